// What ASan and TSan must be told at each switch. Empty in plain builds.
//
// ASan       start_switch() right before the jump, finish_switch() first thing after it. The fake-stack handle belongs
//            to the leaving context, the bounds are the destination's. A context that leaves for good passes no handle.
// TSan       One fiber per stack, pooled with it (creating one costs 0.5 ms, 843 KiB). Flag 1: the switch itself orders
//            nothing. What two contexts of one thread share, the M and its P, is ordered by the M alone: released before the
//            jump, acquired after it. Between threads the runtime's own atomics must order, and missing orders are found.
// Shadow     TSan keeps a stack of the functions that a fiber is in, pushed at each entry and popped at each return. A context that
//            ends leaves by a jump: what stands on it then would stay for the next life of the stack, three frames each time,
//            until after 20,000 lives the 64 Ki entries are full (SIGSEGV). So under TSan such a context is left from its entry
//            (kLeftFromEntry), which TSan does not see, all others having returned.
//            Rejected: a new fiber for each life (0.5 ms); __tsan_func_exit() as often as there are frames (the compiler decides
//            how many there are); these functions not instrumented (then their atomics order nothing for TSan either).
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
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace weft::arch {

/// A context that ends jumps off in its entry function, nowhere below it.
inline constexpr bool kLeftFromEntry = WEFT_TSAN;

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

/// What the leaving context did before it gave `shared` (its M, mostly) to san_start_switch is seen by the next one.
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

/// While one lives TSan minds no plain access of this context: for calls into a library that orders its threads by atomics which
/// TSan does not see, while it does see the memcpy, mmap and strlen between them. No switch meanwhile.
class SanForeign {
 public:
  SanForeign() {
#if WEFT_TSAN
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
  }
  ~SanForeign() {
#if WEFT_TSAN
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
  }
  SanForeign(const SanForeign&) = delete;
  SanForeign& operator=(const SanForeign&) = delete;
};

/// TSan's fiber of a pooled stack. Null in other builds.
void* san_create_fiber();
void san_destroy_fiber(void* fiber);

}  // namespace weft::arch
