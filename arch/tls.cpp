// See tls.hpp.
#include "arch/tls.hpp"

#include <cerrno>

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
  weft_current_m = mp;
}

}  // namespace weft::arch
