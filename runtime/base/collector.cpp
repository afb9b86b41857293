// See collector.hpp and weft/detail/value.hpp.
#include "runtime/base/collector.hpp"

#include <weft/detail/value.hpp>

#include <new>

namespace weft::rt {

gc::Collector collector;
Relaxed<bool> collector_attached;
Relaxed<bool> values_made;
#ifndef NDEBUG
std::atomic<void (*)()> value_check{nullptr};
#endif

void* value_try_new(std::size_t bytes, std::size_t align) noexcept {
#ifndef NDEBUG
  if (void (*const check)() = peek(value_check)) check();
#endif
  if (WEFT_UNLIKELY(collector.allocate != nullptr)) return collector.allocate(bytes, align);
  if (!values_made) values_made = true;
  return align <= __STDCPP_DEFAULT_NEW_ALIGNMENT__ ? ::operator new(bytes, std::nothrow)
                                                   : ::operator new(bytes, std::align_val_t(align), std::nothrow);
}

}  // namespace weft::rt

namespace weft::detail {

void* value_new(std::size_t bytes, std::size_t align) {
  void* block = rt::value_try_new(bytes, align);
  if (WEFT_UNLIKELY(!block)) throw std::bad_alloc();
  return block;
}

void value_free(void* block, std::size_t align) noexcept {
  if (WEFT_UNLIKELY(rt::collector.release != nullptr))
    rt::collector.release(block);
  else if (align <= __STDCPP_DEFAULT_NEW_ALIGNMENT__)
    ::operator delete(block);
  else
    ::operator delete(block, std::align_val_t(align));
}

}  // namespace weft::detail
