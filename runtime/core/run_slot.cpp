// See run_slot.hpp.
//
// Table      Slots by number: StackSlot::next of a slot's stack. Each P has kRunSlotsPerP of each class for goroutines that start there;
//            a slot is made when it is first wanted. Slots of single goroutines are numbered after these and reused.
// Orders     [slot] a slot is written before its entry is, and read after it.
#include "runtime/core/run_slot.hpp"

#include <cstring>
#include <utility>
#include <vector>

#include "arch/cpu.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/immortal.hpp"
#include "runtime/core/blocks.hpp"

namespace weft::rt {
namespace {

constexpr std::uint32_t kPsMost = 1024;
constexpr std::uint32_t kShared = kPsMost * kRunSlotsPerP * kStackClasses;

CopyMode mode = CopyMode::Copied;  // changed while no runtime runs

Mutex table_mu{Rank::RunSlots};
std::atomic<RunSlot*> shared[kShared];  // [slot] written once under table_mu
struct Table {
  std::vector<RunSlot*> own;       // of single goroutines, by number - kShared
  std::vector<std::uint32_t> free;  // numbers of those that are nobody's
  std::size_t made = 0;
};
Immortal<Table> table;

RunSlot* make_slot(std::uint8_t cls) {
  StackSlot* stack = stack_acquire(nullptr, cls, 0);
  if (!stack) return nullptr;
  stack->kind = StackKind::Copyable;
  auto* s = new RunSlot;
  s->stack = stack;
  return s;
}

/// Class first: few classes are in use, and a P's slots of one lie together.
std::uint32_t number_of(std::uint32_t p_id, std::uint32_t i, std::uint8_t cls) {
  return (cls * kPsMost + p_id) * kRunSlotsPerP + i % kRunSlotsPerP;
}

RunSlot* shared_slot(std::uint32_t n, std::uint8_t cls) {
  RunSlot* s = shared[n].load(memory_order_acquire);  // [slot]
  if (WEFT_LIKELY(s != nullptr)) return s;
  table_mu.lock();
  s = shared[n].load(memory_order_relaxed);
  if (!s && (s = make_slot(cls))) {
    s->stack->next = n;
    table->made++;
    shared[n].store(s, memory_order_release);  // [slot]
  }
  table_mu.unlock();
  return s;
}

RunSlot* own_slot(std::uint8_t cls) {
  RunSlot* s = make_slot(cls);
  if (!s) return nullptr;
  s->own = true;
  table_mu.lock();
  if (table->free.empty()) {
    table->free.push_back(kShared + static_cast<std::uint32_t>(table->own.size()));
    table->own.push_back(nullptr);
  }
  s->stack->next = table->free.back();
  table->own[s->stack->next - kShared] = s;
  table->free.pop_back();
  table->made++;
  table_mu.unlock();
  return s;
}

bool try_claim(RunSlot* s) {
  s->lock.lock();
  const bool was_free = !s->busy;
  s->busy = true;
  s->lock.unlock();
  return was_free;
}

std::size_t live_bytes(const RunSlot* s, const G* gp) {
  return static_cast<std::size_t>(s->stack->start() - static_cast<const char*>(gp->ctx));
}

void drop_block(RunSlot* s) {
  if (s->spare) block_release(s->spare, s->spare_bytes);
  s->spare = nullptr;
}

void copy_out(RunSlot* s, G* gp) {
  const std::size_t live = live_bytes(s, gp);
  const std::size_t size = block_bytes(live);
  if (!s->spare || s->spare_bytes != size) {
    drop_block(s);
    s->spare = block_acquire(size);
    s->spare_bytes = size;
    if (!s->spare) fatalf("out of memory: no block for the copyable stack of goroutine %llu", static_cast<unsigned long long>(gp->id));
  }
  std::memcpy(s->spare, gp->ctx, live);
  // Not the other way round: a resident's `block` is its M (runs_on()). The bytes are in place still.
  arch::order_for_signals();
  s->resident = nullptr;
  arch::order_for_signals();
  set_block(gp->block, std::exchange(s->spare, nullptr));
}

/// In an order that leaves the bytes to be found by who looks on from a frozen world (copied_by()): in the block until that is null,
/// in place from then on.
void copy_in(RunSlot* s, G* gp) {
  const std::size_t live = live_bytes(s, gp);
  std::memcpy(gp->ctx, gp->block, live);
  drop_block(s);
  s->spare = gp->block;
  s->spare_bytes = block_bytes(live);
  arch::order_for_signals();
  set_block(gp->block, nullptr);
}

void set_trap(RunSlot* s, bool on) {
  // Each trap is a mapping of its own; beyond these there are none.
  constexpr std::uint32_t kTrapsMost = 10'000;
  static std::atomic<std::uint32_t> traps{0};
  if (s->trapped == on) return;
  if (on && traps.fetch_add(1, memory_order_relaxed) >= kTrapsMost) {
    traps.fetch_sub(1, memory_order_relaxed);
    return;
  }
  const bool done = on ? arch::deny_access(s->stack->lo, s->stack->bytes()) : arch::allow_access(s->stack->lo, s->stack->bytes());
  if (!done && !on) fatalf("out of memory: the kernel does not give a trapped stack back");
  if (done) s->trapped = on;
  if (!s->trapped) traps.fetch_sub(1, memory_order_relaxed);
}

void unmake(RunSlot* s) {
  drop_block(s);
  s->stack->owner.store(nullptr, memory_order_relaxed);
  delete s;
}

}  // namespace

CopyMode copy_mode() { return mode; }

void run_slots_start([[maybe_unused]] bool traps) {
#if WEFT_ASAN || WEFT_TSAN
  mode = CopyMode::Own;
#elif defined(NDEBUG)
  mode = traps ? CopyMode::Trapped : CopyMode::Copied;
#else
  mode = CopyMode::Trapped;
#endif
}

RunSlot* run_slot_of(const StackSlot* s) {
  if (s->next < kShared) return shared[s->next].load(memory_order_acquire);  // [slot]
  table_mu.lock();
  RunSlot* slot = table->own[s->next - kShared];
  table_mu.unlock();
  return slot;
}

RunSlot* claim_fresh_slot(std::uint32_t p_id, std::uint32_t hint, std::uint8_t cls) {
  if (mode != CopyMode::Copied) {
    RunSlot* s = own_slot(cls);
    if (s) s->busy = true;
    return s;
  }
  for (std::uint32_t i = 0; i < kRunSlotsPerP; i++) {
    RunSlot* s = shared_slot(number_of(p_id, hint + i, cls), cls);
    if (s && try_claim(s)) return s;
  }
  return nullptr;
}

bool claim_slot(RunSlot* s, G* gp) {
  s->lock.lock();
  const bool was_free = !s->busy;
  if (was_free)
    s->busy = true;
  else
    s->waiting.push(gp);
  s->lock.unlock();
  return was_free;
}

void bring_in(RunSlot* s, G* gp) {
  if (s->trapped) set_trap(s, false);
  if (s->resident == gp) return;
  if (s->resident) copy_out(s, s->resident);
  if (gp->block) copy_in(s, gp);
  arch::order_for_signals();
  s->resident = gp;
  s->stack->owner.store(gp, memory_order_relaxed);
}

G* release_slot(RunSlot* s) {
  if (s->own && !s->resident) {
    StackSlot* stack = s->stack;
    table_mu.lock();
    table->own[stack->next - kShared] = nullptr;
    table->free.push_back(stack->next);
    table->made--;
    table_mu.unlock();
    delete s;
    stack_release(nullptr, stack);
    return nullptr;
  }
  if (mode == CopyMode::Trapped && s->own) set_trap(s, true);
  s->lock.lock();
  s->busy = false;
  G* next = s->waiting.pop();
  s->lock.unlock();
  return next;
}

void forget_resident(RunSlot* s) {
  s->resident = nullptr;
  if (!s->own) s->stack->owner.store(nullptr, memory_order_relaxed);
}

std::ptrdiff_t copied_by(const G* gp) {
  if (mode != CopyMode::Copied || !is_copyable(gp)) return 0;
  const RunSlot* s = run_slot_of(gp->stack);
  if (!s || s->resident == gp || !gp->block || !gp->ctx) return 0;
  return static_cast<const char*>(gp->block) - static_cast<const char*>(gp->ctx);
}

M* runs_on(const G* gp) {
  if (mode != CopyMode::Copied || !is_copyable(gp)) return gp->m;  // no lock: a thread that stands still may hold the table's
  const RunSlot* s = gp->stack ? run_slot_of(gp->stack) : nullptr;
  return s && s->resident == gp && s->busy ? gp->m : nullptr;
}

void open_for_reading(const G* gp, bool open) {
  if (mode != CopyMode::Trapped || !is_copyable(gp) || !gp->stack) return;
  RunSlot* s = run_slot_of(gp->stack);
  if (s && s->own && !s->busy) set_trap(s, !open);
}

void run_slots_stop() {
  if (table->made == 0) {
    blocks_stop();
    return;
  }
  for (std::atomic<RunSlot*>& at : shared)
    if (RunSlot* s = at.load(memory_order_relaxed); s && !s->busy) {
      unmake(s);
      at.store(nullptr, memory_order_relaxed);
    }
  for (RunSlot*& s : table->own)
    if (s && !s->busy) {
      if (s->trapped) set_trap(s, false);
      unmake(s);
      s = nullptr;
    }
  // What abandoned goroutines run on stays, out of the table's sight: they never come back to it.
  for (std::atomic<RunSlot*>& at : shared) at.store(nullptr, memory_order_relaxed);
  table->own.clear();
  table->free.clear();
  table->made = 0;
  blocks_stop();
}

RunSlotStats run_slot_stats() {
  RunSlotStats st;
  table_mu.lock();
  st.slots = table->made;
  table_mu.unlock();
  const BlockStats b = block_stats();
  st.copied_out = b.count;
  st.block_bytes = b.bytes;
  return st;
}

}  // namespace weft::rt
