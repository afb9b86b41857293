// Goroutines on segmented stacks: where the scheduler brings them in, and what the compiler's code asks for.
//
// Switch     Such a G is special (GStart): only g0 starts it, and it leaves to g0 only. So g0 sets its thread's guard
//            word before the switch to it (enter_segments) and clears it after the switch back (execute): all others
//            pay nothing. Nothing is saved: the word is that of the segment in which the saved stack pointer lies.
// Asked      weft_more_stack() runs in the midst of user code: at a function's first instruction, on what is left of
//            its segment. It is no safepoint and never switches, so between two runtime calls a goroutine stays on its
//            thread here as well. It takes no P: segments come from the central lists.
// Refused    The function goes on where it is, on the reserve, where a split must not be had: on a stack that is not
//            this goroutine's (a signal handler, a coroutine of the user's); inside the runtime, whose locks rank above
//            those of the lists; in a forked child; and for who has frozen the world, since somebody who stands still
//            may hold the lock of the lists.
// Suspended  A thread that is made to stand still for good (gc::suspend) must not hold that lock either: NotFrozen.
// longjmp    out of a segment leaves the guard word of a segment that is not in use. The next question or switch mends
//            it; without one (the word lies below the segment that is used) frames run on to the guard, which is
//            reported.
#include <new>

#include "arch/tls.hpp"
#include "runtime/base/check.hpp"
#include "runtime/core/segments.hpp"
#include "runtime/sched/freeze.hpp"
#include "runtime/sched/switch.hpp"

namespace weft::rt {
namespace {

/// What a call of ours may take before the frame that asks begins.
constexpr std::size_t kSlack = 1024;

std::size_t limit_of(const G* gp) {
  const std::size_t asked = gp->extra ? gp->extra->spawn.stack_bytes : 0;
  return asked ? asked : kStackBytesMax;
}

struct KeptErrno {
  int value = *weft_errno();
  ~KeptErrno() { *weft_errno() = value; }
};

bool may_grow() { return !sched.forked && !frozen_here(); }

/// The goroutine that asks, if it stands on its own stack.
Segment* asker(G** who, std::uintptr_t sp) {
  M* mp = current_m();
  G* gp = mp ? static_cast<G*>(mp->curg) : nullptr;
  if (!gp || gp->system || !is_segmented(gp) || !gp->stack) return nullptr;
  *who = gp;
  return segment_at(gp, sp);
}

WEFT_COLD void cannot_grow(const G* gp, std::uintptr_t sp, std::size_t need, bool refused) {
  if (segments_reporter) segments_reporter(gp, sp, need, refused);
  fatalf(refused ? "out of memory: no segment of %zu bytes for the stack of goroutine %llu"
                 : "stack overflow: %zu bytes more for goroutine %llu",
         need, static_cast<unsigned long long>(gp->id));
}

WEFT_NOINLINE Segment* grow(G* gp, Segment* at, std::uintptr_t sp, std::size_t need) {
  if (!may_grow()) return nullptr;
  const KeptErrno kept;
  Segment* s = nullptr;
  bool full;
  {
    NotFrozen alone;
    Segment* first = first_segment(gp);
    drop_newer_segments(first, at);
    full = segments_are_full(first, need);
    if (!full) s = add_segment(gp, at, need);
  }
  if (!s) cannot_grow(gp, sp, need, !full);
  return s;
}

}  // namespace

bool enter_segments(M* mp, G* gp) {
  if (!gp->ctx) {
    StackSlot* s = gp->stack;  // try_go has bound one already
    if (!s) s = stack_acquire(&mp->p->stacks, kFirstSegmentClass, 0);
    if (!s) {
      wait_for_stack(gp);
      return false;
    }
    begin_segments(gp, s, limit_of(gp));
    gp->stack = s;
    begin_on_stack(gp);
  }
  arch::set_guard_word(segment_at(gp, reinterpret_cast<std::uintptr_t>(gp->ctx))->guard);
  return true;
}

}  // namespace weft::rt

using namespace weft::rt;

extern "C" void* weft_more_stack(std::size_t frame, std::size_t args, std::uintptr_t sp,
                                 weft::arch::SplitCall* call) noexcept {
  call->segment = nullptr;
  G* gp = nullptr;
  Segment* at = asker(&gp, sp);
  Segment* s = nullptr;
  if (at) {
    call->guard = at->guard;
    const std::size_t need = frame + args + kSlack;
    const bool fits = sp > at->guard && sp - at->guard > need;
    if (!fits && peek(gp->depth) == 0) {
      s = at->newer;
      if (WEFT_UNLIKELY(!s || s->top() - s->guard < need)) s = grow(gp, at, sp, need);
    }
  }
  if (!s) {
    weft::arch::set_guard_word(call->guard);
    return nullptr;
  }
  s->left_at = reinterpret_cast<std::uintptr_t>(call);
  call->segment = s;
  weft::arch::set_guard_word(s->guard);
  return s;
}

extern "C" void weft_less_stack(void* segment) noexcept {
  auto* s = static_cast<Segment*>(segment);
  if (!s->newer && !s->blocks) return;
  if (!may_grow()) return;  // when the next one is left
  const KeptErrno kept;
  Segment* first = first_segment(peek(s->slot->owner));
  NotFrozen alone;
  drop_newer_segments(first, s);
  free_blocks(first, s, UINTPTR_MAX);
}

extern "C" WEFT_NOINLINE void* __morestack_allocate_stack_space(std::size_t bytes) noexcept {
  const auto sp = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const std::uintptr_t word = weft::arch::guard_word();
  weft::arch::set_guard_word(0);
  G* gp = nullptr;
  Segment* at = asker(&gp, sp);
  if (!gp) fatalf("weft: %zu bytes of alloca() do not fit on the stack of a thread", bytes);
  const KeptErrno kept;
  Segment* first = first_segment(gp);
  if (!at) at = first;
  free_blocks(first, at, sp);
  const bool full = segments_are_full(first, bytes);
  void* p = full ? nullptr : add_block(first, at, sp, bytes);
  if (!p) cannot_grow(gp, sp, bytes, !full);
  weft::arch::set_guard_word(word);
  return p;
}
