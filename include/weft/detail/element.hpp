// How an element of type T travels through a channel: as bytes.
//
// A channel knows only a size: no user code runs under its lock. An element that is trivially copyable, or declared
// relocatable, is its own bytes; every other one (it may throw when moved, or is larger than 4 KiB) is put in a box
// and the pointer travels. An empty type has no bytes at all.
#pragma once

#include <weft/detail/value.hpp>

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace weft {

/// True if moving a T and then forgetting the source equals copying its bytes. Specialise it for your own types to
/// spare channels the box. Wrong for anything that points into itself (std::string does).
template <class T>
struct is_relocatable : std::is_trivially_copyable<T> {};
template <class T>
struct is_relocatable<std::unique_ptr<T>> : std::true_type {};
template <class T>
struct is_relocatable<std::shared_ptr<T>> : std::true_type {};
template <class T>
struct is_relocatable<std::weak_ptr<T>> : std::true_type {};
template <class T>
struct is_relocatable<std::vector<T>> : std::true_type {};
template <class T>
struct is_relocatable<std::optional<T>> : is_relocatable<T> {};
template <class A, class B>
struct is_relocatable<std::pair<A, B>> : std::conjunction<is_relocatable<A>, is_relocatable<B>> {};
template <class T, std::size_t N>
struct is_relocatable<std::array<T, N>> : is_relocatable<T> {};

/// The value of a Chan<void>.
struct [[maybe_unused]] Unit {
  friend constexpr bool operator==(Unit, Unit) { return true; }
};

namespace detail {

struct ElemType {
  std::size_t size;
  std::size_t align;
  void (*destroy)(void* cell);  // of an element left in the buffer; null: nothing to do
};

template <class T>
inline constexpr bool kBoxed = !is_relocatable<T>::value || sizeof(T) > 4096;

template <class T>
inline constexpr bool kNoBytes = std::is_empty_v<T> && std::is_trivially_copyable_v<T>;

/// Room for one travelling element; its bytes are what the channel copies.
template <class T>
struct Cell {
  using Stored = std::conditional_t<kBoxed<T>, T*, T>;
  alignas(Stored) std::byte bytes[sizeof(Stored)];

  Stored* stored() { return std::launder(reinterpret_cast<Stored*>(bytes)); }

  template <class V>
  void put(V&& v) {
    if constexpr (kBoxed<T>)
      ::new (bytes) Stored(new_value<T>(std::forward<V>(v)));
    else
      ::new (bytes) Stored(std::forward<V>(v));
  }
  /// The element itself, while the cell holds one.
  T& get() {
    if constexpr (kBoxed<T>)
      return **stored();
    else
      return *stored();
  }
  void drop() {
    if constexpr (kBoxed<T>)
      delete_value(*stored());
    else
      std::destroy_at(stored());
  }
  /// Moves the element out and empties the cell.
  T take() {
    struct Drop {
      Cell* c;
      ~Drop() { c->drop(); }
    } d{this};
    return std::move(get());
  }
};

template <class T>
inline constexpr ElemType kElemType{
    kNoBytes<T> ? 0 : sizeof(typename Cell<T>::Stored),
    alignof(typename Cell<T>::Stored),
    !kBoxed<T> && std::is_trivially_destructible_v<T>
        ? nullptr
        : +[](void* cell) { static_cast<Cell<T>*>(cell)->drop(); },
};

}  // namespace detail
}  // namespace weft
