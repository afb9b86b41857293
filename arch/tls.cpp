// See tls.hpp.
#include "arch/tls.hpp"

#include <cerrno>

#include "arch/more_stack.hpp"

WEFT_INITIAL_EXEC thread_local weft::rt::M* weft_current_m = nullptr;

extern "C" WEFT_NOINLINE int* weft_errno() noexcept {
  asm volatile("" ::: "memory");
  return &errno;
}

namespace weft::arch {

// Out of line with an opaque asm, so that no caller can keep the address.
WEFT_NOINLINE rt::M* load_current_m() {
  asm volatile("" ::: "memory");
  return weft_current_m;
}

WEFT_NOINLINE void set_current_m(rt::M* mp) {
  asm volatile("" ::: "memory");
  if constexpr (kSegmented) {
    // Somebody else's (libgcc's, in a library that brings its own) would split on goroutines that have nowhere to go.
    static thread_local std::uintptr_t threads_own = 0;
    if (mp) threads_own = guard_word();
    set_guard_word(mp ? 0 : threads_own);
  }
  weft_current_m = mp;
}

}  // namespace weft::arch
