// What ASan and TSan must be told at each switch. Empty in plain builds.
//
// ASan       start_switch() right before the jump, finish_switch() first thing after it. The fake-stack handle belongs
//            to the leaving context, the bounds are the destination's. A context that leaves for good passes no handle.
// TSan       One fiber per stack, pooled with it (creating one costs 0.5 ms, 843 KiB). Flag 1: the switch itself orders
//            nothing. What two contexts of one thread share, the M and its P, is ordered by the M alone: released before the
//            jump, acquired after it. Between threads the runtime's own atomics must order, and missing orders are found.
// Trap       Between these calls and the jump there may be no instrumented function entry or exit: everything here is
//            forced inline.
#pragma once

#include <cstddef>

#include "arch/cpu.hpp"

#if WEFT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if WEFT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace weft::arch {

/// Per context: the sanitizers' view of its stack.
struct SanStack {
#if WEFT_ASAN
  void* fake = nullptr;
  const void* bottom = nullptr;
  std::size_t size = 0;
#endif
#if WEFT_TSAN
  void* fiber = nullptr;
#endif
};

WEFT_ALWAYS_INLINE void san_start_switch([[maybe_unused]] SanStack& from, [[maybe_unused]] SanStack& to,
                                         [[maybe_unused]] bool leaves_for_good,
                                         [[maybe_unused]] void* shared = nullptr) {
#if WEFT_ASAN
  __sanitizer_start_switch_fiber(leaves_for_good ? nullptr : &from.fake, to.bottom, to.size);
#endif
#if WEFT_TSAN
  void* const fiber = to.fiber;  // nothing of ours is touched after the release
  if (shared) __tsan_release(shared);
  __tsan_switch_to_fiber(fiber, 1);
#endif
}

/// What the leaving context did to `shared` (its M, given to san_start_switch) is seen by the next one on the same thread.
WEFT_ALWAYS_INLINE void san_take_over([[maybe_unused]] void* shared) {
#if WEFT_TSAN
  __tsan_acquire(shared);
#endif
}

/// First action of the context that resumed.
WEFT_ALWAYS_INLINE void san_finish_switch([[maybe_unused]] SanStack& self) {
#if WEFT_ASAN
  __sanitizer_finish_switch_fiber(self.fake, nullptr, nullptr);
#endif
}

/// The thread's own stack becomes a context (an M's g0).
void san_adopt_thread(SanStack& self);

/// A stack was bound to a new context: clears what dead frames left poisoned.
WEFT_ALWAYS_INLINE void san_fresh_stack([[maybe_unused]] SanStack& s, [[maybe_unused]] void* lo,
                                        [[maybe_unused]] std::size_t size) {
#if WEFT_ASAN
  s.fake = nullptr;
  s.bottom = lo;
  s.size = size;
  __asan_unpoison_memory_region(lo, size);
#endif
}

/// TSan's fiber of a pooled stack. Null in other builds.
void* san_create_fiber();
void san_destroy_fiber(void* fiber);

}  // namespace weft::arch
