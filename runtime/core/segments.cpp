// See segments.hpp.
#include "runtime/core/segments.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace weft::rt {

void (*segments_reporter)(const G* gp, std::uintptr_t sp, std::size_t need, bool refused) = nullptr;

namespace {

constexpr std::size_t kLargeFrom = 1 << 20;  // bytes in all
constexpr std::uint8_t kLargeClass = 3;
// Beside frame and arguments: the record, what a small frame need not ask for, alignment.
constexpr std::size_t kOverhead = sizeof(Segment) + 1024;

std::atomic<std::size_t> in_use{0};

std::size_t usable(std::uint8_t cls) { return kStackClassBytes[cls] - kStackGuardBytes[cls]; }

Segment* make_segment(G* gp, StackSlot* s) {
  s->may_hibernate = false;
  auto* seg = ::new (segment_of(s)) Segment;
  seg->slot = s;
  seg->guard = reinterpret_cast<std::uintptr_t>(s->lo) + kSegmentReserve;
  s->owner.store(gp, memory_order_relaxed);
  arch::order_for_signals();
  s->kind = StackKind::Segmented;
  return seg;
}

void give_back(Segment* s) {
  StackSlot* slot = s->slot;
  // Deep frames have touched all of it. A page of a hole's stack that is gone would be a guard.
  if (slot->guard != GuardKind::Hole && slot->cls != kOwnMapping) arch::empty_range(slot->lo, slot->bytes());
  stack_release(nullptr, slot);
  in_use.fetch_sub(1, memory_order_relaxed);
}

}  // namespace

StackSlot* segment_slot_at(const G* gp, std::uintptr_t addr) {
  StackSlot* s = find_stack(reinterpret_cast<const void*>(addr));
  return s && s->kind == StackKind::Segmented && peek(s->owner) == gp ? s : nullptr;
}

bool on_stack_of(const G* gp, const void* addr) {
  const StackSlot* s = has_segments(gp) ? segment_slot_at(gp, reinterpret_cast<std::uintptr_t>(addr)) : gp->stack;
  return s && addr >= s->lo && addr < s->hi;
}

StackSlot* slot_at(const G* gp, const void* addr) {
  StackSlot* s = has_segments(gp) ? segment_slot_at(gp, reinterpret_cast<std::uintptr_t>(addr)) : nullptr;
  return s ? s : gp->stack;
}

void begin_segments(G* gp, StackSlot* s, std::size_t limit) {
  Segment* first = make_segment(gp, s);
  first->bytes = s->bytes();
  first->limit = limit;
}

Segment* add_segment(G* gp, Segment* at, std::size_t need) {
  Segment* first = first_segment(gp);
  need += kSegmentReserve + kOverhead;
  std::uint8_t cls = first->bytes >= kLargeFrom ? kLargeClass : kFirstSegmentClass;
  while (cls < kStackClasses && usable(cls) < need) cls++;
  if (cls == kStackClasses) cls = kOwnMapping;
  StackSlot* slot = stack_acquire(nullptr, cls, need);
  if (!slot) return nullptr;
  in_use.fetch_add(1, memory_order_relaxed);
  Segment* s = make_segment(gp, slot);
  s->older = at;
  first->bytes += slot->bytes();
  arch::order_for_signals();
  at->newer = s;
  return s;
}

void drop_newer_segments(Segment* first, Segment* at) {
  Segment* s = at->newer;
  at->newer = nullptr;
  arch::order_for_signals();
  while (s) {
    Segment* newer = s->newer;
    free_blocks(first, s, UINTPTR_MAX);
    first->bytes -= s->slot->bytes();
    give_back(s);
    s = newer;
  }
}

void end_segments(const G* gp) {
  Segment* first = first_segment(gp);
  drop_newer_segments(first, first);
  free_blocks(first, first, UINTPTR_MAX);
  gp->stack->kind = StackKind::Growable;
}

void* add_block(Segment* first, Segment* at, std::uintptr_t sp, std::size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  auto* b = static_cast<SegmentBlock*>(std::aligned_alloc(64, (sizeof(SegmentBlock) + 40 + bytes + 63) & ~std::size_t{63}));
  if (!b) return nullptr;
  b->next = at->blocks;
  b->sp = sp;
  b->bytes = bytes + 40;
  first->bytes += b->bytes;
  arch::order_for_signals();
  at->blocks = b;
  return reinterpret_cast<char*>(b) + 64;
}

void free_blocks(Segment* first, Segment* s, std::uintptr_t sp) {
  // The newest stands first, and lies deepest.
  while (SegmentBlock* b = s->blocks) {
    if (b->sp >= sp) break;
    s->blocks = b->next;
    arch::order_for_signals();
    first->bytes -= b->bytes;
    std::free(b);
  }
}

std::size_t segments_in_use() { return peek(in_use); }

}  // namespace weft::rt
