// See sanitizer.hpp.
#include "arch/sanitizer.hpp"

#include <pthread.h>

namespace weft::arch {

void san_adopt_thread([[maybe_unused]] SanStack& self) {
#if WEFT_ASAN
  pthread_attr_t attr;
  void* lo = nullptr;
  std::size_t size = 0;
  if (pthread_getattr_np(pthread_self(), &attr) == 0) {
    pthread_attr_getstack(&attr, &lo, &size);
    pthread_attr_destroy(&attr);
  }
  self.bottom = lo;
  self.size = size;
#endif
#if WEFT_TSAN
  self.fiber = __tsan_get_current_fiber();
#endif
}

void* san_create_fiber() {
#if WEFT_TSAN
  return __tsan_create_fiber(0);
#else
  return nullptr;
#endif
}

void san_destroy_fiber([[maybe_unused]] void* fiber) {
#if WEFT_TSAN
  if (fiber) __tsan_destroy_fiber(fiber);
#endif
}

}  // namespace weft::arch
