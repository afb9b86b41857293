// Segmented stacks: a chain of stack slots that a goroutine's frames go along.
//
// Segment    A slot of the pool (stack.hpp) with its guard, owned by the goroutine; its record lies at the slot's top,
//            out of reach of frames, which grow away from it. The first is a 256K one, as growable goroutines have: one
//            page is touched. Later ones come when a function does not fit (arch/more_stack.hpp): 256K, from 1 MiB in
//            all on 1M, a mapping of its own for a frame that is larger.
// Room       The guard word of a segment lies kReserve above its lowest byte. What is not built with -fsplit-stack
//            (libc, the runtime) never asks and runs on what is left: kReserve at least, 16 KiB more where lld or gold
//            linked the caller. Behind it is the slot's own guard: who runs into that is reported. None of it costs
//            memory before it is touched.
// Found      Which segment, and which goroutine, is told by the stack pointer alone: find_stack(), then the record at
//            the top. Nothing else has to be right at an instruction at which a freeze or a fault may come.
// Chain      first -> newer -> newer. Live are the segment of the stack pointer and those older; `left_at` of one says
//            where the next older one was left. One more is kept at hand, the others go back when they are left,
//            without their pages: a loop that calls across a boundary costs no kernel call, and a deep recursion keeps
//            nothing.
//
//              function                            freeze, at any instruction
//              new->older, left_at written         stack pointer in the old one: the new one is not looked at
//              old->newer = new                    the same
//              sp into the new one                 live: from sp; the old one from left_at
//              returns: sp into the old one        the new one is not looked at, though its words are still there
//
// Limit      Spawn::stack_bytes, 1 GiB by default: who has as much in segments and blocks and wants more has
//            overflowed.
// Blocks     alloca() and arrays of variable size that do not fit come from the heap. They are freed when the segment
//            that their frame lies in is left, or a frame farther out asks again, or the goroutine ends.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arch/more_stack.hpp"
#include "runtime/core/g.hpp"
#include "runtime/core/stack.hpp"

namespace weft::rt {

inline constexpr std::uint8_t kSegmentedClass = 250;  // G::stack_cls of a segmented goroutine
inline constexpr std::uint8_t kFirstSegmentClass = 2;
inline constexpr std::size_t kSegmentReserve = 64 << 10;

struct SegmentBlock {
  SegmentBlock* next;
  std::uintptr_t sp;  // of who asked
  std::size_t bytes;  // behind this record
};

struct alignas(64) Segment {
  StackSlot* slot = nullptr;
  Segment* older = nullptr;
  Segment* newer = nullptr;        // in use, or at hand. __morestack reads it
  SegmentBlock* blocks = nullptr;  // ditto
  std::uintptr_t guard = 0;        // its guard word
  std::uintptr_t left_at = 0;      // the lowest live byte of `older`
  std::size_t bytes = 0;           // of the first: what all segments and blocks take
  std::size_t limit = 0;           // ditto: how much they may

  /// Where its first frame begins.
  std::uintptr_t top() const { return reinterpret_cast<std::uintptr_t>(this); }
};
static_assert(offsetof(Segment, newer) == 16 && offsetof(Segment, blocks) == 24, "arch/more_stack_x86_64.cpp");
static_assert(sizeof(Segment) == 64);

inline bool is_segmented(const G* gp) { return arch::kSegmented && WEFT_UNLIKELY(gp->stack_cls == kSegmentedClass); }

/// The record of a slot that is one.
inline Segment* segment_of(const StackSlot* s) { return reinterpret_cast<Segment*>(s->hi - sizeof(Segment)); }

/// It has begun to run, so its stack is a chain of these.
inline bool has_segments(const G* gp) {
  return is_segmented(gp) && gp->stack && gp->stack->kind == StackKind::Segmented;
}

/// The slot of a segment of `gp`'s that `addr` lies in, its guard counted in; null: none. Async-signal-safe.
StackSlot* segment_slot_at(const G* gp, std::uintptr_t addr);
inline Segment* segment_at(const G* gp, std::uintptr_t addr) {
  const StackSlot* s = segment_slot_at(gp, addr);
  return s ? segment_of(s) : nullptr;
}
/// Some stack of gp's holds `addr`, whatever its kind.
bool on_stack_of(const G* gp, const void* addr);
/// The slot of gp's, of whatever kind, that `addr` lies in or has just run out of; its first if it lies in none.
StackSlot* slot_at(const G* gp, const void* addr);

/// Makes `s` the first segment of gp.
void begin_segments(G* gp, StackSlot* s, std::size_t limit);
/// Another one after `at`, the newest, for `need` bytes of frame and arguments. Null: the kernel refuses memory.
Segment* add_segment(G* gp, Segment* at, std::size_t need);
/// Those after `at` are given back.
void drop_newer_segments(Segment* first, Segment* at);
/// The goroutine has ended: all but the first are given back, and that is an ordinary stack again.
void end_segments(const G* gp);

/// `bytes` from the heap for who stands at `sp` in `at`. Null: refused.
void* add_block(Segment* first, Segment* at, std::uintptr_t sp, std::size_t bytes);
/// Those of `s` whose askers stand below `sp` are freed: they have ended.
void free_blocks(Segment* first, Segment* s, std::uintptr_t sp);

inline Segment* first_segment(const G* gp) { return segment_of(gp->stack); }

/// Has gp as much as it may?
inline bool segments_are_full(const Segment* first, std::size_t need) {
  return first->bytes >= first->limit || need > first->limit;
}

/// Calls f for each piece of gp's stack that is live, newest first. `from` gives the lowest live byte of a segment as
/// far as is known otherwise, from its range [lo, hi); hi: nothing. No lock, no allocation.
template <class From, class F>
void each_live_segment(const G* gp, From from, F f) {
  Segment* s = first_segment(gp);
  while (Segment* newer = *const_cast<Segment* volatile*>(&s->newer)) s = newer;
  std::uintptr_t left_at = 0;  // of the next newer live one
  for (; s; s = s->older) {
    const auto lo = reinterpret_cast<std::uintptr_t>(s->slot->lo), hi = reinterpret_cast<std::uintptr_t>(s->slot->hi);
    std::uintptr_t live = from(s->slot, lo, hi);
    if (left_at >= lo && left_at < live) live = left_at;
    if (live >= hi) continue;
    f(s->slot, live, hi);
    for (const SegmentBlock* b = s->blocks; b; b = b->next)
      f(s->slot, reinterpret_cast<std::uintptr_t>(b + 1), reinterpret_cast<std::uintptr_t>(b + 1) + b->bytes);
    left_at = s->left_at;
  }
}

/// Set by runtime/obs: says that gp, which stands at `sp` and wants `need` bytes, has overflowed or that there is no
/// memory, and ends the process.
extern void (*segments_reporter)(const G* gp, std::uintptr_t sp, std::size_t need, bool refused);

/// Segments beside the first ones, now.
std::size_t segments_in_use();

}  // namespace weft::rt
