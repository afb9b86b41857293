// What programs are made of: stand-ins for atomics, fences, plain variables and locks, each of
// whose operations is a scheduling point of the explorer.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/model/explore.hpp"

namespace weft::model {

// Filled in by the compiler at each call; not for callers to give.
#define WEFT_MODEL_SITE                                                             \
  const char *file = __builtin_FILE(), const char *function = __builtin_FUNCTION(), \
             int line = __builtin_LINE()

/// Stands in for std::atomic.
template <class T>
class Atomic {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  using Order = std::memory_order;

 public:
  Atomic() : Atomic(T{}) {}
  Atomic(T v)
      : cell_(Explorer::now().add_cell(to_bits(v), std::is_pointer_v<T>)) {
  }  // NOLINT: as std::atomic's
  Atomic(const Atomic&) = delete;
  Atomic& operator=(const Atomic&) = delete;

  T load(Order o, WEFT_MODEL_SITE) const {
    return to_value(Explorer::now().load(cell_, o, {file, function, line, "load", o}));
  }
  void store(T v, Order o, WEFT_MODEL_SITE) {
    Explorer::now().store(cell_, to_bits(v), o, {file, function, line, "store", o});
  }
  T exchange(T v, Order o, WEFT_MODEL_SITE) {
    return to_value(Explorer::now().rmw(cell_, [&](std::uint64_t) { return to_bits(v); }, o,
                                        {file, function, line, "exchange", o}));
  }
  bool compare_exchange_strong(T& expected, T desired, Order o, Order failure, WEFT_MODEL_SITE) {
    std::uint64_t bits = to_bits(expected);
    const bool done = Explorer::now().cas(cell_, bits, to_bits(desired), o, failure,
                                          {file, function, line, "cas", o},
                                          {file, function, line, "cas failure", failure});
    if (!done) expected = to_value(bits);
    return done;
  }
  bool compare_exchange_weak(T& expected, T desired, Order o, Order failure, WEFT_MODEL_SITE) {
    return compare_exchange_strong(expected, desired, o, failure, file, function, line);
  }
  bool compare_exchange_strong(T& expected, T desired, Order o, WEFT_MODEL_SITE) {
    const Order failure = o == Order::acq_rel   ? Order::acquire
                          : o == Order::release ? Order::relaxed
                                                : o;
    return compare_exchange_strong(expected, desired, o, failure, file, function, line);
  }
  bool compare_exchange_weak(T& expected, T desired, Order o, WEFT_MODEL_SITE) {
    return compare_exchange_strong(expected, desired, o, file, function, line);
  }
  T fetch_add(T by, Order o, WEFT_MODEL_SITE) {
    return update([&](T v) { return static_cast<T>(v + by); }, o, {file, function, line, "add", o});
  }
  T fetch_sub(T by, Order o, WEFT_MODEL_SITE) {
    return update([&](T v) { return static_cast<T>(v - by); }, o, {file, function, line, "sub", o});
  }
  T fetch_and(T by, Order o, WEFT_MODEL_SITE) {
    return update([&](T v) { return static_cast<T>(v & by); }, o, {file, function, line, "and", o});
  }
  T fetch_or(T by, Order o, WEFT_MODEL_SITE) {
    return update([&](T v) { return static_cast<T>(v | by); }, o, {file, function, line, "or", o});
  }

  /// One step of whoever does it in one (the kernel). Orders nothing.
  template <class F>
  T change(F f, WEFT_MODEL_SITE) {
    return update(f, Order::relaxed, {file, function, line, "change", Order::relaxed});
  }

  /// The store that ends a section (weft/detail/section_cpu.hpp): not made if the section is undone by then. True: made.
  template <class F>
  bool commit(F next, const bool& undone, Order o, WEFT_MODEL_SITE) {
    bool made = false;
    update([&](T old) { return (made = !undone) ? next(old) : old; }, o, {file, function, line, "store", o});
    return made;
  }
  /// `f` in one step with a look at the newest value.
  template <class F>
  T look_and(F f, Order o, WEFT_MODEL_SITE) {
    return update([&](T v) { return f(), v; }, o, {file, function, line, "look", o});
  }

  /// Sleeps while the newest value is `v`, as on a futex; then reads it. `timed`: another execution
  /// takes the way of the timeout.
  T sleep_while(T v, Order o, bool timed = false, WEFT_MODEL_SITE) const {
    struct Wanted {
      int cell;
      std::uint64_t not_this;
    } wanted{cell_, to_bits(v)};
    return to_value(Explorer::now().await(cell_,
                                          [](const void* arg) {
                                            const auto* w = static_cast<const Wanted*>(arg);
                                            return Explorer::now().newest(w->cell) != w->not_this;
                                          },
                                          &wanted, timed, {file, function, line, "sleep", o}));
  }

  /// Outside the threads: what it came to.
  T final() const { return to_value(Explorer::now().newest(cell_)); }

 private:
  template <class F>
  T update(F f, Order o, const Site& site) {
    return to_value(Explorer::now().rmw(
        cell_, [&](std::uint64_t bits) { return to_bits(f(to_value(bits))); }, o, site));
  }
  static std::uint64_t to_bits(T v) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &v, sizeof v);
    return bits;
  }
  static T to_value(std::uint64_t bits) {
    T v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
  }

  int cell_;
};

/// Found for an Atomic where the runtime's own is for std::atomic.
template <class T>
T peek(const Atomic<T>& a) {
  return a.load(std::memory_order_relaxed);
}

inline void publish_fence(WEFT_MODEL_SITE) {
  Explorer::now().fence({file, function, line, "fence", std::memory_order_seq_cst});
}

/// A variable that only an order between its users protects.
template <class T>
class Plain {
 public:
  Plain() = default;
  explicit Plain(T v) : value_(v) {}
  T get() {
    touch(false);
    return value_;
  }
  void set(T v) {
    touch(true);
    value_ = v;
  }

 private:
  void touch(bool write) {
    Explorer& e = Explorer::now();
    const int self = e.self();
    if (self < 0) return;
    for (int i = 0; i < kThreadsMax; i++) {
      if (i == self) continue;
      check(written_[i] <= e.clock_of(i), "a race: a write that nothing orders before this access");
      if (write)
        check(read_[i] <= e.clock_of(i), "a race: a read that nothing orders before this write");
    }
    (write ? written_ : read_)[self] = e.clock_of(self);
  }

  T value_{};
  std::array<std::uint16_t, kThreadsMax> written_{};
  std::array<std::uint16_t, kThreadsMax> read_{};
};

/// As a Plain, for code that reads and writes it like a T.
template <class T>
class Field {
 public:
  Field() = default;
  Field(T v) : v_(v) {}  // NOLINT: stands for a T
  Field(const Field&) = delete;
  operator T() const { return v_.get(); }
  T operator->() const { return v_.get(); }
  T operator=(T v) { return v_.set(v), v; }
  T operator=(const Field& o) { return *this = static_cast<T>(o); }

 private:
  mutable Plain<T> v_;
};

/// Stands in for SpinLock and Mutex: taking it sleeps until it is free.
class Lock {
 public:
  Lock() : cell_(Explorer::now().add_cell(0)) {}
  void lock(WEFT_MODEL_SITE) {
    Explorer::now().take(cell_, {file, function, line, "lock", std::memory_order_relaxed});
  }
  bool try_lock(WEFT_MODEL_SITE) {
    return Explorer::now().rmw(cell_, [](std::uint64_t) { return std::uint64_t{1}; }, std::memory_order_acquire,
                               {file, function, line, "try_lock", std::memory_order_relaxed}) == 0;
  }
  void unlock(WEFT_MODEL_SITE) {
    Explorer::now().store(cell_, 0, std::memory_order_release,
                          {file, function, line, "unlock", std::memory_order_relaxed});
  }
  bool held(WEFT_MODEL_SITE) const {
    return Explorer::now().load(cell_, std::memory_order_acquire,
                                {file, function, line, "held", std::memory_order_acquire}) != 0;
  }

 private:
  int cell_;
};

#undef WEFT_MODEL_SITE

}  // namespace weft::model
