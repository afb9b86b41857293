// Birth and death of goroutines.
//
// Birth      A descriptor from the P's free list, the closure in it (up to 64 bytes), an id, and it is runnable: next on this P.
//            No stack: a P binds its hottest one when the G first runs, so a million queued Gs cost their descriptors.
// Death      The entry's loop: when a G has finished and the next one has never run, the stack is simply taken over, without a
//            switch. Otherwise the dead G leaves for good; the next context gives its stack and descriptor back (commit).
// Entry      g_entry's return address is undefined for unwinders: an exception that nobody catches finds no handler and
//            std::terminate runs at the throw point, with the stack intact (obs/report.cpp). So nothing on this path may be
//            noexcept or catch all: the only handler is the one for the unwinding token.
// Orders     [run-state] see lifecycle.cpp. [idle] see idle.cpp.
//            [ended] release by a goroutine's end, acquire by who counts: whoever finds that few are left (settle, the end of a
//            Runtime) sees what the others did.
#include <weft/detail/value.hpp>
#include <weft/panic.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/base/collector.hpp"
#include "runtime/base/probe.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/core/segments.hpp"
#include "runtime/sched/hibernator.hpp"
#include "runtime/sched/switch.hpp"
#include "runtime/sched/unwind.hpp"

namespace weft::rt {

void (*settle_hook)() = nullptr;

namespace {

constexpr std::uint32_t kFreeBatch = kFreeCapacity / 2;
constexpr std::uint32_t kAhead = 4;  // descriptors prefetched before their turn
constexpr unsigned kIdBlock = 1024;
constexpr std::size_t kMainStackBytes = std::size_t{8} << 20;
// The sanitizers keep a shadow of each stack's frames and must see every context begin and end.
constexpr bool kTakeOver = !WEFT_ASAN && !WEFT_TSAN;

WEFT_NOINLINE bool refill(P* pp) {
  // Backwards, so that fresh ones are used in order of address.
  G* some[kFreeBatch];
  const std::uint32_t n = g_table_take(some, kFreeBatch);
  for (std::uint32_t i = 0; i < n; i++) pp->free_gs[i] = some[n - 1 - i];
  pp->free_count = n;
  return n != 0;
}

WEFT_ALWAYS_INLINE G* take_free(P* pp) {
  if (WEFT_UNLIKELY(pp->free_count == 0) && !refill(pp)) return nullptr;
  G* gp = pp->free_gs[--pp->free_count];
  if (pp->free_count >= kAhead) {
    char* soon = reinterpret_cast<char*>(pp->free_gs[pp->free_count - kAhead]);
    __builtin_prefetch(soon, 1);
    __builtin_prefetch(soon + arch::kCacheLine, 1);
  }
  return gp;
}

WEFT_NOINLINE void give_batch(P* pp) {
  // The oldest half: what is hot stays.
  g_table_give(pp->free_gs, kFreeBatch);
  pp->free_count -= kFreeBatch;
  std::memmove(pp->free_gs, pp->free_gs + kFreeBatch, pp->free_count * sizeof(G*));
}

WEFT_ALWAYS_INLINE void give_free(P* pp, G* gp) {
  if (WEFT_UNLIKELY(pp->free_count == kFreeCapacity)) give_batch(pp);
  pp->free_gs[pp->free_count++] = gp;
}

void free_closure(G* gp) {
  if (void* c = std::exchange(gp->closure, nullptr); c != gp->inline_closure) weft::detail::value_free(c, gp->closure_align());
}

/// Back to what a new descriptor looks like. The stack is dealt with already.
void scrub(G* gp) {
  gp->preempt.store(0, memory_order_relaxed);
  gp->depth.store(0, memory_order_relaxed);
  gp->no_preempt.store(0, memory_order_relaxed);
  gp->started = kFresh;
  gp->unwinding = Unwinding::No;
  gp->cancel.store(0, memory_order_relaxed);  // [cancel]
  gp->domain = nullptr;
  gp->is_main = false;
  gp->ctx = nullptr;
  gp->m = nullptr;
  gp->eh = {};
  if (WEFT_UNLIKELY(gp->extra != nullptr)) {
    delete gp->extra;
    gp->extra = nullptr;
  }
  if (WEFT_UNLIKELY(gp->nodes_capacity() > 8)) {
    delete[] gp->nodes;
    gp->nodes = nullptr;
    gp->nodes_log = 0;
  }
}

/// Its stack may be taken out of memory while it is parked.
WEFT_ALWAYS_INLINE bool hibernates(const G* gp) {
  if (WEFT_LIKELY(!gp->extra || gp->extra->spawn.hibernate == Hibernate::Default)) return sched.hibernates && !gp->is_main;
  const Hibernate h = gp->extra->spawn.hibernate;
  return h == Hibernate::On || (h == Hibernate::Auto && sched.hibernates_safely);
}

std::size_t stack_bytes_of(const G* gp) {
  if (gp->extra && gp->extra->spawn.stack_bytes) return gp->extra->spawn.stack_bytes;
  if (gp->is_main) return kMainStackBytes;
  return sched.config->stack_bytes;
}

void commit_dead(M* mp, G* from, void*) {
  mp->leaves = false;
  P* pp = mp->p;
  if (WEFT_UNLIKELY(is_copyable(from))) {
    end_in_run_slot(mp, from);
  } else {
    if (is_segmented(from))
      end_segments(from);
    else if (WEFT_UNLIKELY(stack_ended_hook != nullptr))
      stack_ended_hook(from, from->stack);
    stack_release(pp ? &pp->stacks : nullptr, std::exchange(from->stack, nullptr));
  }
  if (WEFT_UNLIKELY(peek(sched.stackless_count) != 0)) retry_stackless();
  scrub(from);
  if (pp) {
    give_free(pp, from);
  } else {
    g_table_give(&from, 1);
  }
}

WEFT_COLD void swallowed_goexit(std::uint64_t id) {
  fatalf("weft: catch (...) swallowed goexit in goroutine %llu", static_cast<unsigned long long>(id));
}

/// A G begins and ends inside the runtime.
void run_closure(G* gp) {
  Inside::go_out(gp);
  try {
    gp->ops->run(gp->closure);
  } catch (UnwindToken& token) {
    token.arrived = true;
    gp->unwinding = Unwinding::Arrived;
  }
  if (WEFT_UNLIKELY(gp->extra != nullptr) && gp->extra->locals) gp->extra->locals->end();
  Inside::go_in(gp);
  // It came to its end although it was being unwound: whoever caught the token has kept it alive (std::exception_ptr).
  if (WEFT_UNLIKELY(gp->unwinding == Unwinding::UnderWay) && sched.state.load(memory_order_acquire) == RunState::Running)  // [run-state] see lifecycle.cpp
    swallowed_goexit(gp->id);
}

/// The G on this stack has finished. Returns if another took the stack over; it is the M's current G then. (Or, if a context is
/// left from its entry only, when all is ready for the jump.)
WEFT_NOINLINE void finish(G* gp) {
  SCHED_POINT("exit");
  M* mp = current_m();
  free_closure(gp);
  probe::ended(gp->id);
  if (WEFT_UNLIKELY(peek(gp->preempt))) {
    if (!keeps_p(mp)) {
      reacquire_p(mp);
      mp = current_m();
    }
    report_safepoint(gp);
  }
  P* pp = mp->p;
  bump(pp->ended, std::uint64_t{1}, memory_order_release);  // [ended]
  if (WEFT_UNLIKELY(gp->is_main)) {
    if (gp->unwinding == Unwinding::Arrived)
      sched.main_goexit = true;
    else
      begin_ending();
  }
  if (WEFT_UNLIKELY(peek(sched.settlers) != 0)) settle_check();
  set_status(gp, GStatus::Running, GStatus::Dead);

  G* next = nullptr;
  if (WEFT_LIKELY(gp->started == kStarted))
    next = pick(mp, pp);
  else if (mp->locked_g == gp || mp == sched.host_m)
    end_locked(mp, gp);
  if (WEFT_LIKELY(next != nullptr)) {
    if (kTakeOver && !next->started && next->stack_cls == gp->stack_cls && !next->stack && next->stack_cls != kOwnMapping &&
        gp->stack->guard != GuardKind::Canary && !stack_ended_hook) {
      next->stack = std::exchange(gp->stack, nullptr);
      next->stack->owner.store(next, memory_order_relaxed);
      next->stack->may_hibernate = hibernates(next);
      next->started = kStarted;
      next->depth.store(1, memory_order_relaxed);
      now_running(mp, pp, next);
      mp->curg = next;
      scrub(gp);
      give_free(pp, gp);
      return;
    }
    if (next->started != kStarted && (next->started == kSpecial || !hot_stack(pp, next))) {
      mp->chosen = next;
      next = nullptr;
    }
  }
  if (next)
    now_running(mp, pp, next);
  else
    next = &mp->g0;
  mp->commit = Commit::Call;
  mp->commit_call = commit_dead;
  mp->leaves = true;
  if constexpr (arch::kLeftFromEntry) {
    set_out(mp, gp, next);
  } else {
    switch_to(mp, gp, next);
    __builtin_unreachable();
  }
}

// Out of line, so that g_entry has nothing but its mark. Returns only if contexts are left from their entry.
WEFT_NOINLINE M* g_main(arch::Transfer t) {
  M* mp = landed(t);
  for (;;) {
    G* gp = mp->curg;
    run_closure(gp);
    finish(gp);
    mp = current_m();
    if constexpr (arch::kLeftFromEntry) return mp;
  }
}

}  // namespace

WEFT_NO_TSAN void g_entry(arch::Transfer t) {
  WEFT_MARK_ENTRY;
  [[maybe_unused]] M* mp = g_main(t);
  if constexpr (arch::kLeftFromEntry) {
    jump(mp, mp->from, mp->curg);
    __builtin_unreachable();
  }
}

namespace {

WEFT_COLD void stack_found(G* gp) {
  gp->reason = WaitReason::None;
  sched.mu.lock();
  sched.stackless_since = 0;
  sched.mu.unlock();
}

/// Memory is short (hibernator.cpp): is there a stack that somebody has had, or one that may be had newly?
WEFT_COLD bool may_start(P* pp, const G* gp) {
  if (gp->stack_cls == kOwnMapping || stack_at_hand(pp ? &pp->stacks : nullptr, gp->stack_cls)) return true;
  constexpr std::int64_t n = kStacksAtOnce;
  if (sched.starts_allowed.fetch_sub(n, memory_order_relaxed) >= n) return true;
  sched.starts_allowed.fetch_add(n, memory_order_relaxed);
  return false;
}

}  // namespace

bool bind_stack(P* pp, G* gp) {
  StackSlot* s = gp->stack;  // try_go has bound one already
  if (WEFT_UNLIKELY(peek(memory_short)) && !s && !may_start(pp, gp)) return false;
  if (!s) s = stack_acquire(pp ? &pp->stacks : nullptr, gp->stack_cls, stack_bytes_of(gp));
  if (!s) return false;
  s->owner.store(gp, memory_order_relaxed);
  s->may_hibernate = hibernates(gp);
  if (WEFT_UNLIKELY(stack_bound_hook != nullptr)) stack_bound_hook(s);
  gp->stack = s;
  begin_on_stack(gp);
  gp->started = kStarted;
  return true;
}

void begin_on_stack(G* gp) {
  StackSlot* s = gp->stack;
  if (WEFT_UNLIKELY(gp->reason == WaitReason::NoStack)) stack_found(gp);
  arch::san_ready_stack(s->san);
  arch::san_fresh_stack(s->san, s->lo, s->bytes());
  char* const start = is_segmented(gp) ? s->start() - sizeof(Segment) : s->start();
  gp->ctx = arch::make_context(start, static_cast<std::size_t>(start - s->lo), g_entry);
  gp->depth.store(1, memory_order_relaxed);
}

void wait_for_stack(G* gp) {
  gp->reason = WaitReason::NoStack;
  sched.mu.lock();
  if (sched.stackless_since == 0) sched.stackless_since = arch::clock_now();
  sched.stackless.push(gp);
  sched.stackless_count.store(sched.stackless.count, memory_order_relaxed);
  sched.mu.unlock();
}

void retry_stackless() {
  sched.mu.lock();
  G* gp = sched.stackless.pop();
  sched.stackless_count.store(sched.stackless.count, memory_order_relaxed);
  sched.mu.unlock();
  if (!gp) return;
  put_global(gp);
  wake_one();
}

UnwindToken::~UnwindToken() {
  // One that swallows the stop's is abandoned by it.
  if (!arrived && !because_of_stop) swallowed_goexit(goid);
}

void unwind_current(bool because_of_stop) {
  G* gp = current_m()->curg;
  gp->unwinding = Unwinding::UnderWay;
  throw UnwindToken(gp->id, because_of_stop);
}

std::uint64_t live_goroutines() {
  // Ends first: who is counted as ended is then counted as created too, and one that starts the next and ends is never nobody.
  std::uint64_t ended = 0;
  for (std::uint32_t i = 0; i < ps_there(); i++) ended += sched.ps[i]->ended.load(memory_order_acquire);  // [ended]
  std::uint64_t created = peek(sched.outside_created);
  for (std::uint32_t i = 0; i < ps_there(); i++) created += peek(sched.ps[i]->created);
  return created - ended;
}

// ---- new ones ------------------------------------------------------------------------------------------------------

namespace {

WEFT_COLD G* new_g_elsewhere() {
  check_not_forked();
  const RunState s = sched.state.load(memory_order_acquire);  // [run-state] see lifecycle.cpp
  if (s == RunState::Off || s == RunState::Ending)
    fatalf("weft: go called while no runtime runs (start one with weft::run or Runtime::start)");
  G* gp = nullptr;
  g_table_take(&gp, 1);
  return gp;
}

WEFT_ALWAYS_INLINE bool place_closure(G* gp, std::size_t size, std::size_t align) {
  if (WEFT_LIKELY(size <= sizeof gp->inline_closure && align <= 16)) {
    gp->closure = gp->inline_closure;
    return true;
  }
  void* block = value_try_new(size, align);
  if (!block) return false;
  gp->closure_log = static_cast<std::uint8_t>(std::countr_zero(align));
  ::new (gp->inline_closure) std::size_t(size);  // for who enumerates it (closure_bytes())
  gp->closure = block;
  return true;
}

/// What it starts gets something of it.
WEFT_ALWAYS_INLINE bool hands_on(const G* gp) { return WEFT_UNLIKELY(gp->extra != nullptr) && gp->extra->hands_on(); }

/// Labels that the new one does not give itself.
void add_labels(Spawn* spawn, const Spawn& from) {
  const auto own = static_cast<std::ptrdiff_t>(spawn->labels.size());
  for (const auto& label : from.labels) {
    const auto end = spawn->labels.begin() + own;
    if (std::none_of(spawn->labels.begin(), end, [&](const auto& l) { return l.first == label.first; }))
      spawn->labels.push_back(label);
  }
}

void check_segments_can_be() {
  if (!arch::kSegmented)
    fatalf("weft: Stack::Segmented: this weft was built without segmented stacks (Meson option -Dsegmented=enabled, x86-64 with lld or gold)");
  if (!arch::split_code_is_there())
    fatalf("weft: Stack::Segmented: the program is not linked with weft-segmented, so its code cannot ask for segments");
}

void drop_g(G* gp) {
  scrub(gp);
  M* mp = current_m();
  if (mp && mp->p) {
    give_free(mp->p, gp);
  } else {
    g_table_give(&gp, 1);
  }
}

}  // namespace
}  // namespace weft::rt

namespace weft::detail {

using namespace rt;

NewG new_goroutine(std::size_t size, std::size_t align) {
  {
    Inside inside;
    M* mp = inside.m;
    if (WEFT_LIKELY(!mp || !hands_on(mp->curg))) {
      G* gp = WEFT_LIKELY(mp && mp->p) ? take_free(mp->p) : new_g_elsewhere();
      if (WEFT_UNLIKELY(!gp)) fatalf("out of memory: no descriptor for a goroutine");
      gp->stack_cls = sched.default_stack_cls;
      if (WEFT_UNLIKELY(!place_closure(gp, size, align))) {
        drop_g(gp);
        throw std::bad_alloc();
      }
      return {to_public(gp), gp->closure};
    }
  }
  return new_goroutine_with(Spawn{}, size, align, false);  // outside: copies what users have made
}

NewG new_goroutine_with(const Spawn& spawn, std::size_t size, std::size_t align, bool must_have_stack) {
  const bool segmented = spawn.stack == Stack::Segmented;
  if (segmented) check_segments_can_be();
  if (spawn.stack_bytes > kStackBytesMax)
    fatalf("weft: stack_bytes = %zu: at most %zu", spawn.stack_bytes, kStackBytesMax);
  if (spawn.main_thread && sched.in_run)
    panic("weft: Spawn::main_thread in run(): goroutine 1 is on its thread, and stays there with lock_os_thread()");
  const bool copyable = spawn.stack == Stack::Copyable;
  const std::uint8_t cls = segmented ? kSegmentedClass : spawn.stack_bytes ? stack_class(spawn.stack_bytes) : sched.default_stack_cls;
  if (copyable && spawn.main_thread) fatalf("weft: Stack::Copyable with Spawn::main_thread: the host's thread runs growable stacks only");
  if (copyable && cls == kOwnMapping) fatalf("weft: Stack::Copyable of more than 1 MiB: set Spawn::stack_bytes to at most 1 << 20");
  const bool plain = spawn.name.empty() && spawn.labels.empty() && spawn.stack_bytes == 0 && !spawn.main_thread &&
                     spawn.hibernate == Hibernate::Default;
  if (spawn.hibernate == Hibernate::On || (spawn.hibernate == Hibernate::Auto && sched.hibernates_safely)) hibernator_asked();
  const G* self = current_g();
  const G* parent = self && hands_on(self) ? self : nullptr;
  std::unique_ptr<GExtra> extra;
  if (!plain || parent) {
    try {
      extra.reset(new GExtra{.spawn = spawn});
      if (parent) {
        add_labels(&extra->spawn, parent->extra->spawn);
        if (parent->extra->locals && parent->extra->locals->hands_on()) {
          extra->locals = std::make_unique<Locals>();
          extra->locals->inherit(*parent->extra->locals);
        }
      }
    } catch (const std::bad_alloc&) {
      if (must_have_stack) return {nullptr, nullptr};
      throw;
    }
  }
  Inside inside;
  M* mp = inside.m;
  G* gp = mp && mp->p ? take_free(mp->p) : new_g_elsewhere();
  if (!gp) {
    if (must_have_stack) return {nullptr, nullptr};
    fatalf("out of memory: no descriptor for a goroutine");
  }
  gp->stack_cls = copyable ? static_cast<std::uint8_t>(kCopyableClass + cls) : cls;
  try {
    gp->extra = extra.release();
    if (copyable || segmented) gp->started = kSpecial;
    if (spawn.main_thread) {
      gp->extra->locks = 1;  // never undone
      gp->extra->locked_m = sched.host_m;
      gp->started = kSpecial;
    }
    if (!place_closure(gp, size, align)) throw std::bad_alloc();
  } catch (const std::bad_alloc&) {
    drop_g(gp);
    if (must_have_stack) return {nullptr, nullptr};
    throw;
  }
  if (must_have_stack && !copyable) {
    gp->stack = stack_acquire(mp && mp->p ? &mp->p->stacks : nullptr, segmented ? kFirstSegmentClass : gp->stack_cls, stack_bytes_of(gp));
    if (!gp->stack) {
      free_closure(gp);
      drop_g(gp);
      return {nullptr, nullptr};
    }
    gp->stack->owner.store(gp, memory_order_relaxed);
  }
  return {to_public(gp), gp->closure};
}

void drop_goroutine(Goroutine* g) {
  Inside inside;
  G* gp = to_g(g);
  if (gp->stack) {
    stack_release(nullptr, std::exchange(gp->stack, nullptr));
  }
  free_closure(gp);
  drop_g(gp);
}

void start_goroutine(Goroutine* g, const ClosureOps* ops, const void* site) {
  SCHED_POINT("go");
  Inside inside;
  G* gp = to_g(g);
  gp->ops = ops;
  gp->site = site;
  M* mp = inside.m;
  P* pp = mp ? mp->p : nullptr;
  if (WEFT_LIKELY(pp != nullptr)) {
    if (WEFT_UNLIKELY(pp->ids_left == 0)) {
      pp->next_id = g_table_ids(kIdBlock);
      pp->ids_left = kIdBlock;
    }
    pp->ids_left--;
    gp->id = pp->next_id++;
    gp->parent = mp->curg->id;
    probe::created(gp->id, gp->parent);
    bump(pp->created);
    set_status(gp, GStatus::Dead, GStatus::Runnable);
    if (WEFT_LIKELY(!gp->is_main))
      put_next_here(pp, gp);
    else
      mp->chosen = gp;  // goroutine 1 begins on run()'s caller, which it may want to keep (lock_os_thread)
    return;
  }
  Outside outside(mp);
  gp->id = g_table_ids(1);
  gp->parent = mp ? mp->curg->id : 0;
  probe::created(gp->id, gp->parent);
  set_status(gp, GStatus::Dead, GStatus::Runnable);
  sched.mu.lock();
  // Counted and queued at once: who looks whether all are asleep (deadlock.cpp) sees both or neither.
  sched.outside_created.fetch_add(1, memory_order_relaxed);
  sched.global.push(&gp, 1, false);
  sched.global_size.fetch_add(1, memory_order_seq_cst);  // [idle]
  sched.mu.unlock();
  wake_one();
  if (mp) safepoint_now(mp);
}

}  // namespace weft::detail

namespace weft {

std::uint64_t goid() {
  rt::G* gp = rt::current_g();
  return gp ? gp->id : 0;
}

void goexit() {
  if (!rt::current_g()) rt::fatalf("weft: goexit called outside a goroutine");
  rt::unwind_current(false);
}

int num_goroutines() { return static_cast<int>(rt::live_goroutines()); }

}  // namespace weft
