/// weft/local.hpp: goroutine-local values. What thread_local is to threads, for goroutines.
#pragma once

#include <weft/detail/value.hpp>

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace weft {

/// What a goroutine that is started gets of its creator's value.
enum class Inherit : std::uint8_t {
  None,   ///< nothing: it starts without one
  Copy,   ///< a copy, made in the creator when it says `go`
  Share,  ///< the same object; the last of its goroutines destroys it
};

namespace detail {

struct LocalOps {
  void (*destroy)(void* value);
  void* (*inherit)(const void* value);  // null: not inherited
};

std::uint64_t new_local_key();
void* find_local(std::uint64_t key);
/// The old value is destroyed. Null: there is none any more.
void set_local(std::uint64_t key, void* value, const LocalOps* ops);

}  // namespace detail

/// A variable of which each goroutine has its own, made when it is first used there. Usually a static object:
///     static weft::GLocal<std::string, weft::Inherit::Copy> request_id;
///     *request_id = "7";  weft::go([] { log(*request_id); });
/// Values are destroyed when their goroutine ends (return, goexit; newest first; destructors may park).
/// Errors:   what T's construction throws. A copy that throws passes out of `go`; nothing is started then.
/// Lifetime: destroying the GLocal leaves the values where they are until their goroutines end.
/// Cost:     some nanoseconds: a search among the locals that this goroutine has. A `go` by a goroutine that has none to hand on
///           pays nothing.
/// Threads:  any; a plain thread has its own, destroyed when it ends, and hands none on.
/// Go:       nothing like it but labels, and values in a context.
template <class T, Inherit I = Inherit::None>
class GLocal {
  static_assert(std::is_object_v<T> && !std::is_const_v<T>);
  static_assert(I != Inherit::Copy || std::copy_constructible<T>, "Inherit::Copy needs a T that can be copied");

 public:
  GLocal() : key_(detail::new_local_key()) {}
  /// `init` makes the value where there is none; default: T{}.
  explicit GLocal(std::function<T()> init) : key_(detail::new_local_key()), init_(std::move(init)) {}
  GLocal(const GLocal&) = delete;
  GLocal& operator=(const GLocal&) = delete;

  /// This goroutine's value; null if it has none yet. The pointer is good until reset() or the goroutine's end.
  T* get() const { return at(detail::find_local(key_)); }
  T& operator*() const {
    if (T* v = get()) return *v;
    if (init_) return put(detail::make_shared_value<T>(init_()));
    if constexpr (std::default_initializable<T>)
      return put(detail::make_shared_value<T>());
    else
      throw std::bad_function_call();
  }
  T* operator->() const { return &**this; }
  /// Replaces it. A shared one is replaced for this goroutine only.
  T& set(T value) const { return put(detail::make_shared_value<T>(std::move(value))); }
  void reset() const { detail::set_local(key_, nullptr, nullptr); }

 private:
  using Box = std::shared_ptr<T>;

  static T* at(void* box) { return box ? static_cast<Box*>(box)->get() : nullptr; }
  T& put(Box value) const {
    auto box = std::make_unique<Box>(std::move(value));
    T& v = **box;
    detail::set_local(key_, box.get(), &kOps);
    box.release();
    return v;
  }
  static void* inherited(const void* value) {
    const Box& box = *static_cast<const Box*>(value);
    if constexpr (I == Inherit::Copy)
      return new Box(detail::make_shared_value<T>(std::as_const(*box)));
    else
      return new Box(box);
  }
  static constexpr detail::LocalOps kOps{[](void* box) { delete static_cast<Box*>(box); },
                                         I == Inherit::None ? nullptr : &inherited};

  std::uint64_t key_;
  std::function<T()> init_;
};

}  // namespace weft
