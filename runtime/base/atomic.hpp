// Atomics of the runtime, and the one fence.
//
// gcc's TSan refuses std::atomic_thread_fence and misreads programs that use it. So there are no bare fences:
// publish_fence(word) is a fence in normal builds and a seq_cst read-modify-write of that word under TSan.
//
// Orders     [fence] seq_cst both ways; the caller's tag says what it pairs with.
//            [published] release by the owner's store, acquire by whoever follows the pointer from another thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "arch/cpu.hpp"

namespace weft::rt {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

/// Orders every earlier store of this thread before every later load: the store-load half of "publish, then look".
/// The other side's read-modify-write must be seq_cst as well.
template <class T>
WEFT_ALWAYS_INLINE void publish_fence([[maybe_unused]] std::atomic<T>& word) {
#if WEFT_TSAN
  word.fetch_add(0, std::memory_order_seq_cst);  // [fence] stands for the fence below
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);  // [fence] pairs with the tag at the call
#endif
}

/// Statistics and flags whose order does not matter.
template <class T>
WEFT_ALWAYS_INLINE T peek(const std::atomic<T>& a) {
  return a.load(std::memory_order_relaxed);
}

/// A plain field that others may look at: reads and writes like a T, each relaxed, ordering nothing. Of several writers each
/// must hold the lock that guards it.
template <class T>
class Relaxed {
 public:
  constexpr Relaxed(T v = {}) : v_(v) {}  // NOLINT: stands for a T
  Relaxed(const Relaxed& o) : v_(static_cast<T>(o)) {}
  Relaxed& operator=(const Relaxed&) = delete;
  WEFT_ALWAYS_INLINE operator T() const { return v_.load(std::memory_order_relaxed); }
  WEFT_ALWAYS_INLINE T operator=(T v) {
    v_.store(v, std::memory_order_relaxed);
    return v;
  }
  WEFT_ALWAYS_INLINE T operator->() const { return *this; }
  T operator++(int) { return *this = static_cast<T>(*this) + 1, static_cast<T>(*this) - 1; }
  T operator--(int) { return *this = static_cast<T>(*this) - 1, static_cast<T>(*this) + 1; }

 private:
  std::atomic<T> v_;
};

/// A pointer that its owner changes and other threads follow: what it points at was set up before. The owner reads and writes
/// it like a T*; the others ask for seen(), which may be stale.
template <class T>
class Published {
 public:
  constexpr Published(T* p = nullptr) : p_(p) {}  // NOLINT: stands for a T*
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;
  WEFT_ALWAYS_INLINE operator T*() const { return p_.load(std::memory_order_relaxed); }
  WEFT_ALWAYS_INLINE T* operator=(T* p) {
    p_.store(p, std::memory_order_release);  // [published]
    return p;
  }
  WEFT_ALWAYS_INLINE T* operator->() const { return *this; }
  WEFT_ALWAYS_INLINE T* seen() const { return p_.load(std::memory_order_acquire); }  // [published]

 private:
  std::atomic<T*> p_;
};

/// A counter with one writer: no locked instruction.
template <class T>
WEFT_ALWAYS_INLINE void bump(std::atomic<T>& a, T by = 1, std::memory_order order = std::memory_order_relaxed) {
  a.store(a.load(std::memory_order_relaxed) + by, order);
}

}  // namespace weft::rt
