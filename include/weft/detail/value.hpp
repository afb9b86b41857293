// Blocks that hold values of users: what channels buffer and box, large closures, what contexts, await and once keep.
//
// From operator new, or from the companion collector that gc::attach() named, which traces them.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace weft::detail {

/// Throws bad_alloc.   Cost: operator new's and a load.
void* value_new(std::size_t bytes, std::size_t align);
void value_free(void* block, std::size_t align) noexcept;

template <class T>
struct ValueAllocator {
  using value_type = T;
  ValueAllocator() = default;
  template <class U>
  ValueAllocator(const ValueAllocator<U>&) noexcept {}  // NOLINT: allocators convert
  T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(value_new(n * sizeof(T), alignof(T)));
  }
  void deallocate(T* p, std::size_t) noexcept { value_free(p, alignof(T)); }
  template <class U>
  friend bool operator==(const ValueAllocator&, const ValueAllocator<U>&) noexcept {
    return true;
  }
};

template <class T, class... Args>
std::shared_ptr<T> make_shared_value(Args&&... args) {
  return std::allocate_shared<T>(ValueAllocator<std::remove_cv_t<T>>(), std::forward<Args>(args)...);
}

/// For classes whose objects hold a user's value: `struct Node : ValueBlock`. Their derived classes are allocated so, too.
struct ValueBlock {
  static void* operator new(std::size_t bytes) { return value_new(bytes, alignof(std::max_align_t)); }
  static void* operator new(std::size_t bytes, std::align_val_t align) { return value_new(bytes, static_cast<std::size_t>(align)); }
  static void* operator new(std::size_t, void* at) noexcept { return at; }
  static void operator delete(void* block) noexcept { value_free(block, alignof(std::max_align_t)); }
  static void operator delete(void* block, std::align_val_t align) noexcept { value_free(block, static_cast<std::size_t>(align)); }
};

/// As new T, but in such a block.
template <class T, class... Args>
T* new_value(Args&&... args) {
  void* block = value_new(sizeof(T), alignof(T));
  struct Undo {
    void* block;
    ~Undo() {
      if (block) value_free(block, alignof(T));
    }
  } undo{block};
  T* made = ::new (block) T(std::forward<Args>(args)...);
  undo.block = nullptr;
  return made;
}

template <class T>
void delete_value(T* p) noexcept {
  std::destroy_at(p);
  value_free(p, alignof(T));
}

}  // namespace weft::detail
