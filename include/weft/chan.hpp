/// weft/chan.hpp: channels. Go's rules and messages; elements move.
///
/// Order:   a send happens before the matching receive completes; the k-th receive on a channel of capacity C happens
///          before the (k+C)-th send completes; close happens before a receive that returns because of it.
/// Blocks:  the goroutine, never its thread; on a plain thread, that thread.
/// Lifetime: handles are counted; the channel goes with the last one, elements still buffered are destroyed.
/// Elements: those that are not relocatable (element.hpp) or exceed 4 KiB travel in a box (one allocation each).
#pragma once

#include <weft/detail/clock.hpp>
#include <weft/detail/element.hpp>

#include <atomic>
#include <chrono>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

namespace weft {

class Context;  // context.hpp

enum class RecvStatus : std::uint8_t {
  Ok,
  Empty,     ///< nothing there now, or the time ran out
  Closed,    ///< closed and drained
  Canceled,  ///< the context was done, or the task or scope is cancelled
};

/// What try_recv, recv_for and recv(ctx) give. `value` is set exactly when status is Ok.
template <class T>
struct Recv {
  RecvStatus status = RecvStatus::Empty;
  std::optional<T> value = {};
  explicit operator bool() const { return status == RecvStatus::Ok; }
};

template <class T, bool kSends, bool kReceives>
class BasicChan;

/// Both directions; a default-constructed one is Go's nil channel: blocks for ever, never ready in select.
template <class T>
using Chan = BasicChan<T, true, true>;
template <class T>
using SendChan = BasicChan<T, true, false>;
template <class T>
using RecvChan = BasicChan<T, false, true>;

template <class T>
struct is_relocatable<BasicChan<T, true, true>> : std::true_type {};
template <class T>
struct is_relocatable<BasicChan<T, true, false>> : std::true_type {};
template <class T>
struct is_relocatable<BasicChan<T, false, true>> : std::true_type {};

namespace detail {

/// What handles see of a channel; the rest is the runtime's.
struct ChanHead {
  std::atomic<std::uint32_t> refs{1};
};

ChanHead* chan_make(std::int64_t cap, const ElemType* type);
void chan_free(ChanHead* c);
/// All take a cell. A send that reports success, or panics for another reason than a closed channel, owns its element.
void chan_send(ChanHead* c, void* elem);
bool chan_recv(ChanHead* c, void* elem);  // false: closed and drained
bool chan_try_send(ChanHead* c, void* elem);
RecvStatus chan_try_recv(ChanHead* c, void* elem);
bool chan_send_until(ChanHead* c, void* elem, std::int64_t deadline);
RecvStatus chan_recv_until(ChanHead* c, void* elem, std::int64_t deadline);
std::error_code chan_send_ctx(ChanHead* c, void* elem, const Context& ctx);
RecvStatus chan_recv_ctx(ChanHead* c, void* elem, const Context& ctx);
void chan_close(ChanHead* c);
std::size_t chan_len(const ChanHead* c);
std::size_t chan_cap(const ChanHead* c);

class ChanRef {
 public:
  ChanRef() = default;
  explicit ChanRef(ChanHead* adopted) : head_(adopted) {}
  ChanRef(const ChanRef& o) : head_(o.head_) {
    if (head_) head_->refs.fetch_add(1, std::memory_order_relaxed);
  }
  ChanRef(ChanRef&& o) noexcept : head_(std::exchange(o.head_, nullptr)) {}
  ChanRef& operator=(ChanRef o) noexcept {
    std::swap(head_, o.head_);
    return *this;
  }
  ~ChanRef() {
    // [chan-ref] the last release sees what every earlier holder did.
    if (head_ && head_->refs.fetch_sub(1, std::memory_order_acq_rel) == 1) chan_free(head_);
  }
  ChanHead* head() const { return head_; }

 private:
  ChanHead* head_ = nullptr;
};

/// Sends what `cell` was given; gives the element back to the caller's care if the send did not happen.
template <class T>
struct SendGuard {
  Cell<T> cell;
  bool full = true;
  template <class V>
  explicit SendGuard(V&& v) {
    cell.put(std::forward<V>(v));
  }
  ~SendGuard() {
    if (full) cell.drop();
  }
};

}  // namespace detail

template <class T, bool kSends, bool kReceives>
class BasicChan {
  static_assert(!std::is_reference_v<T> && !std::is_const_v<T>, "channels carry values");
  static constexpr bool kVoid = std::is_void_v<T>;
  using E = std::conditional_t<kVoid, Unit, T>;

 public:
  using value_type = E;

  BasicChan() = default;
  BasicChan(std::nullptr_t) {}  // NOLINT: `c = nullptr` makes it the nil channel
  explicit BasicChan(detail::ChanRef r) : ref_(std::move(r)) {}
  /// A channel becomes one of its directions.
  template <bool S, bool R>
    requires((S >= kSends) && (R >= kReceives) && (S != kSends || R != kReceives))
  BasicChan(const BasicChan<T, S, R>& o) : ref_(o.ref()) {}

  /// Parks until a receiver or a free slot takes the element. Copies an lvalue, moves an rvalue.
  /// Errors: panics "send on closed channel" if the channel is closed, also while parked; v is gone then.
  /// Cost:   O(1), no allocation unless boxed.   Go: `c <- v`.
  void send(E v) const
    requires(kSends && !kVoid)
  {
    if constexpr (std::is_trivially_copyable_v<E> && !detail::kBoxed<E>) {
      detail::chan_send(head(), std::addressof(v));
    } else {
      detail::SendGuard<E> g(std::move(v));
      detail::chan_send(head(), &g.cell);
      g.full = false;
    }
  }
  void send() const
    requires(kSends && kVoid)
  {
    Unit u;
    detail::chan_send(head(), &u);
  }

  /// False: would block; v is untouched then. Errors: panics if closed.
  template <class V = E>
    requires(kSends && !kVoid && std::convertible_to<V, E>)
  bool try_send(V&& v) const {
    return send_or_return(std::forward<V>(v), [this](void* e) { return detail::chan_try_send(head(), e); });
  }
  bool try_send() const
    requires(kSends && kVoid)
  {
    Unit u;
    return detail::chan_try_send(head(), &u);
  }

  /// False: `d` passed first; v is untouched then. A nil channel lets the time pass.
  template <class Rep, class Period, class V = E>
    requires(kSends && !kVoid && std::convertible_to<V, E>)
  bool send_for(V&& v, std::chrono::duration<Rep, Period> d) const {
    const std::int64_t deadline = detail::deadline_after(detail::to_ns(d));
    return send_or_return(std::forward<V>(v),
                          [&](void* e) { return detail::chan_send_until(head(), e, deadline); });
  }
  template <class Rep, class Period>
    requires(kSends && kVoid)
  bool send_for(std::chrono::duration<Rep, Period> d) const {
    Unit u;
    return detail::chan_send_until(head(), &u, detail::deadline_after(detail::to_ns(d)));
  }

  /// The context's error if that is or becomes done first; v is untouched then. Go: select { case c <- v: case <-ctx.Done(): }
  template <class V = E>
    requires(kSends && !kVoid && std::convertible_to<V, E>)
  std::error_code send(const Context& ctx, V&& v) const {
    std::error_code e;
    send_or_return(std::forward<V>(v), [&](void* elem) { return !(e = detail::chan_send_ctx(head(), elem, ctx)); });
    return e;
  }
  std::error_code send(const Context& ctx) const
    requires(kSends && kVoid)
  {
    Unit u;
    return detail::chan_send_ctx(head(), &u, ctx);
  }

  /// Closes it: receivers drain the buffer, then get nothing; parked senders panic.
  /// Errors: panics on a closed or nil channel.
  void close() const
    requires(kSends)
  {
    detail::chan_close(head());
  }

  /// nullopt: closed and drained. Go: v, ok := <-c.
  std::optional<E> recv() const
    requires(kReceives && !kVoid)
  {
    detail::Cell<E> cell;
    if (!detail::chan_recv(head(), &cell)) return std::nullopt;
    return std::optional<E>(cell.take());
  }
  /// True: a value; false: closed.
  bool recv() const
    requires(kReceives && kVoid)
  {
    Unit u;
    return detail::chan_recv(head(), &u);
  }

  /// `otherwise` when closed and drained. Go: x := <-c.
  E recv_or(E otherwise = E{}) const
    requires(kReceives && !kVoid)
  {
    detail::Cell<E> cell;
    if (!detail::chan_recv(head(), &cell)) return otherwise;
    return cell.take();
  }

  Recv<E> try_recv() const
    requires(kReceives)
  {
    detail::Cell<E> cell;
    const RecvStatus s = detail::chan_try_recv(head(), &cell);
    return finish(s, cell);
  }

  template <class Rep, class Period>
    requires(kReceives)
  Recv<E> recv_for(std::chrono::duration<Rep, Period> d) const {
    detail::Cell<E> cell;
    const RecvStatus s =
        detail::chan_recv_until(head(), &cell, detail::deadline_after(detail::to_ns(d)));
    return finish(s, cell);
  }

  /// Canceled: the context is or became done first.
  Recv<E> recv(const Context& ctx) const
    requires(kReceives)
  {
    detail::Cell<E> cell;
    const RecvStatus s = detail::chan_recv_ctx(head(), &cell, ctx);
    return finish(s, cell);
  }

  /// Elements buffered now; 0 for nil. May be stale as soon as it is read.
  std::size_t len() const { return head() ? detail::chan_len(head()) : 0; }
  std::size_t cap() const { return head() ? detail::chan_cap(head()) : 0; }

  /// False for nil.
  explicit operator bool() const { return head() != nullptr; }
  template <bool S, bool R>
  bool operator==(const BasicChan<T, S, R>& o) const {
    return head() == o.head();
  }
  bool operator==(std::nullptr_t) const { return !head(); }
  template <bool S, bool R>
  std::strong_ordering operator<=>(const BasicChan<T, S, R>& o) const {
    return std::compare_three_way{}(static_cast<const void*>(head()), static_cast<const void*>(o.head()));
  }

  /// for (T v : c): until closed and drained. `*it` is T&&.
  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = E;
    using difference_type = std::ptrdiff_t;
    using pointer = E*;
    using reference = E&&;
    iterator() = default;
    explicit iterator(const BasicChan* c) : c_(c) { ++*this; }
    E&& operator*() const { return std::move(*v_); }
    iterator& operator++() {
      if constexpr (kVoid)
        v_ = c_->recv() ? std::optional<Unit>(Unit{}) : std::nullopt;
      else
        v_ = c_->recv();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return !v_; }

   private:
    const BasicChan* c_ = nullptr;
    mutable std::optional<E> v_;
  };
  iterator begin() const
    requires(kReceives)
  {
    return iterator(this);
  }
  std::default_sentinel_t end() const { return {}; }

  detail::ChanHead* head() const { return ref_.head(); }
  const detail::ChanRef& ref() const { return ref_; }

 private:
  // The element goes into a cell and comes back if the send did not happen.
  template <class V, class Op>
  static bool send_or_return(V&& v, Op op) {
    if constexpr (std::is_same_v<std::remove_cvref_t<V>, E> && std::is_trivially_copyable_v<E> &&
                  !detail::kBoxed<E>) {
      return op(const_cast<E*>(std::addressof(v)));
    } else {
      detail::SendGuard<E> g(std::forward<V>(v));
      if (op(&g.cell)) {
        g.full = false;
        return true;
      }
      if constexpr (std::is_same_v<V, E>) {  // an rvalue of exactly E: give it back
        if constexpr (std::is_move_assignable_v<E>) {
          v = std::move(g.cell.get());
        } else {
          std::destroy_at(std::addressof(v));
          ::new (static_cast<void*>(std::addressof(v))) E(std::move(g.cell.get()));
        }
      }
      return false;
    }
  }

  static Recv<E> finish(RecvStatus s, detail::Cell<E>& cell) {
    if (s != RecvStatus::Ok) return {s, std::nullopt};
    return {s, std::optional<E>(cell.take())};
  }

  detail::ChanRef ref_;
};

/// A channel of `capacity` elements; 0: unbuffered. Errors: panics "makechan: size out of range".
template <class T, std::integral I>
Chan<T> make_chan(I capacity) {
  using E = std::conditional_t<std::is_void_v<T>, Unit, T>;
  const bool huge =  // not std::cmp_greater: it refuses character types
      capacity > I{} && static_cast<std::uint64_t>(capacity) > static_cast<std::uint64_t>(detail::kForever);
  return Chan<T>(detail::ChanRef(
      detail::chan_make(huge ? -1 : static_cast<std::int64_t>(capacity), &detail::kElemType<E>)));
}
template <class T>
Chan<T> make_chan() {
  return make_chan<T>(0);
}

template <class C, class T>
concept Sender = requires(const C& c, T v) { c.send(std::move(v)); };
template <class C, class T>
concept Receiver = requires(const C& c) {
  { c.recv() } -> std::convertible_to<std::optional<T>>;
};

}  // namespace weft

template <class T, bool S, bool R>
struct std::hash<weft::BasicChan<T, S, R>> {
  std::size_t operator()(const weft::BasicChan<T, S, R>& c) const noexcept {
    return std::hash<const void*>{}(c.head());
  }
};
