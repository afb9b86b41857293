// Run queues of a P: a FIFO ring for Gs that have run before, a LIFO deque for those that have not.
//
// Owner and thief ends are different functions; only the P's owner calls push and pop.
//
// RunQueue   head: next to take, advanced by CAS (owner and thieves). tail: next free, written by the owner only. A thief
//            copies half of [head, tail) and claims it with one CAS: if that fails what it copied is void.
// FreshQueue Chase-Lev: the owner pushes and pops at the bottom (newest first: depth-first spawning binds few stacks),
//            thieves take one at a time from the top (oldest: the biggest subtrees). Owner and thief race for the last
//            one only, and settle it by CAS on top.
// Solo       With one P there is no thief, and the number of Ps changes only while the world is stopped: the owner may
//            then skip the locked instructions.
// Orders     [ring-tail] release by push, acquire by the thief: it sees the slot. [ring-head] release by who took, acquire by
//            push: the slot may be used again. [fresh] seq_cst on both sides of the last element: the owner's bottom store
//            before its top load, the thief's top load before its bottom load.
//            [idle] size() is part of the last look of an M that goes to sleep: sched/idle.cpp.
// Atomic     std::atomic, or that of tests/model, which tries all executions of small queues.
// Rejected   Stealing half of the FreshQueue at once: an owner that pops from the far end without a CAS would take the
//            same elements.
#pragma once

#include <cstdint>

#include "runtime/base/atomic.hpp"

namespace weft::rt {

template <class T, std::uint32_t kCapacity, template <class> class Atomic = std::atomic>
class RunQueue {
  static_assert((kCapacity & (kCapacity - 1)) == 0);

 public:
  explicit RunQueue(std::uint32_t start = 0) : head_(start), tail_(start) {}

  // --- owner ---

  /// False: full.
  WEFT_ALWAYS_INLINE bool push(T* g) {
    const std::uint32_t t = peek(tail_);
    if (WEFT_UNLIKELY(t - head_.load(memory_order_acquire) == kCapacity)) return false;  // [ring-head]
    slots_[t % kCapacity].store(g, memory_order_relaxed);
    tail_.store(t + 1, memory_order_release);  // [ring-tail]
    return true;
  }

  WEFT_ALWAYS_INLINE T* pop(bool solo) {
    std::uint32_t h = head_.load(memory_order_acquire);  // [ring-head]
    for (;;) {
      if (peek(tail_) == h) return nullptr;
      T* g = slots_[h % kCapacity].load(memory_order_relaxed);
      if (solo) {
        head_.store(h + 1, memory_order_release);  // [ring-head]
        return g;
      }
      if (head_.compare_exchange_weak(h, h + 1, memory_order_acq_rel, memory_order_acquire)) return g;  // [ring-head]
    }
  }

  /// Takes the older half of a full ring for the global queue; 0 if thieves were faster.
  std::uint32_t take_half(T** out) {
    std::uint32_t h = head_.load(memory_order_acquire);  // [ring-head]
    const std::uint32_t n = (peek(tail_) - h) / 2;
    for (std::uint32_t i = 0; i < n; i++) out[i] = slots_[(h + i) % kCapacity].load(memory_order_relaxed);
    return head_.compare_exchange_strong(h, h + n, memory_order_acq_rel, memory_order_relaxed) ? n : 0;  // [ring-head]
  }

  // --- anybody ---

  /// May be stale.
  std::uint32_t size() const {
    const std::uint32_t h = head_.load(memory_order_seq_cst);  // [idle] last look
    const std::uint32_t t = tail_.load(memory_order_seq_cst);  // [idle]
    return t - h;
  }
  WEFT_ALWAYS_INLINE bool empty() const { return peek(head_) == peek(tail_); }

  /// Takes half, rounded up, into `out` (room for half the capacity). 0: nothing there.
  std::uint32_t steal(T** out) {
    for (;;) {
      std::uint32_t h = head_.load(memory_order_acquire);        // [ring-head]
      const std::uint32_t t = tail_.load(memory_order_acquire);  // [ring-tail]
      std::uint32_t n = t - h;
      n -= n / 2;
      if (n == 0) return 0;
      if (n > kCapacity / 2) continue;  // head and tail are from different moments
      for (std::uint32_t i = 0; i < n; i++) out[i] = slots_[(h + i) % kCapacity].load(memory_order_relaxed);
      if (head_.compare_exchange_strong(h, h + n, memory_order_acq_rel, memory_order_relaxed)) return n;  // [ring-head]
    }
  }

  Atomic<std::uint32_t>& fence_word() { return tail_; }

  /// Places in the queue, for comparisons: whoever was pushed when tail() was t waits while before(t).
  std::uint32_t tail() const { return peek(tail_); }
  bool before(std::uint32_t t) const { return static_cast<std::int32_t>(t - peek(head_)) > 0; }

 private:
  Atomic<std::uint32_t> head_;
  Atomic<std::uint32_t> tail_;
  Atomic<T*> slots_[kCapacity] = {};
};

template <class T, std::uint32_t kCapacity, template <class> class Atomic = std::atomic>
class FreshQueue {
  static_assert((kCapacity & (kCapacity - 1)) == 0);

 public:
  explicit FreshQueue(std::uint32_t start = 0) : top_(start), bottom_(start) {}

  // --- owner ---

  WEFT_ALWAYS_INLINE bool push(T* g) {
    const std::uint32_t b = peek(bottom_);
    if (WEFT_UNLIKELY(b - top_.load(memory_order_acquire) == kCapacity)) return false;  // [fresh]
    slots_[b % kCapacity].store(g, memory_order_relaxed);
    bottom_.store(b + 1, memory_order_release);  // [fresh]
    return true;
  }

  /// The newest.
  WEFT_ALWAYS_INLINE T* pop(bool solo) {
    std::uint32_t b = peek(bottom_);
    if (b == peek(top_)) return nullptr;
    b--;
    if (solo) {
      bottom_.store(b, memory_order_relaxed);
      return slots_[b % kCapacity].load(memory_order_relaxed);
    }
    bottom_.exchange(b, memory_order_seq_cst);              // [fresh] store bottom, then load top
    std::uint32_t t = top_.load(memory_order_seq_cst);      // [fresh]
    if (static_cast<std::int32_t>(b - t) < 0) {             // a thief took the last one
      bottom_.store(b + 1, memory_order_release);  // [fresh] thieves read the slots through it
      return nullptr;
    }
    T* g = slots_[b % kCapacity].load(memory_order_relaxed);
    if (b != t) return g;
    if (!top_.compare_exchange_strong(t, t + 1, memory_order_seq_cst, memory_order_relaxed)) g = nullptr;  // [fresh]
    bottom_.store(b + 1, memory_order_release);  // [fresh]
    return g;
  }

  /// Takes the older half for the global queue; 0 if thieves were faster. One CAS does for many here: the owner, who alone
  /// takes from the other end, is busy with this.
  std::uint32_t take_half(T** out) {
    std::uint32_t t = top_.load(memory_order_seq_cst);  // [fresh]
    const std::uint32_t n = (peek(bottom_) - t) / 2;
    for (std::uint32_t i = 0; i < n; i++) out[i] = slots_[(t + i) % kCapacity].load(memory_order_relaxed);
    return top_.compare_exchange_strong(t, t + n, memory_order_seq_cst, memory_order_relaxed) ? n : 0;  // [fresh]
  }

  // --- anybody ---

  /// The oldest; null: nothing there, or somebody was faster.
  T* steal() {
    std::uint32_t t = top_.load(memory_order_seq_cst);           // [fresh] load top, then bottom
    const std::uint32_t b = bottom_.load(memory_order_seq_cst);  // [fresh]
    if (static_cast<std::int32_t>(b - t) <= 0) return nullptr;
    T* g = slots_[t % kCapacity].load(memory_order_relaxed);
    if (!top_.compare_exchange_strong(t, t + 1, memory_order_seq_cst, memory_order_relaxed)) return nullptr;  // [fresh]
    return g;
  }

  std::uint32_t size() const {
    const std::uint32_t t = top_.load(memory_order_seq_cst);     // [idle] last look
    const std::uint32_t b = bottom_.load(memory_order_seq_cst);  // [idle]
    return static_cast<std::int32_t>(b - t) > 0 ? b - t : 0;
  }
  WEFT_ALWAYS_INLINE bool empty() const { return peek(top_) == peek(bottom_); }

  Atomic<std::uint32_t>& fence_word() { return bottom_; }

 private:
  Atomic<std::uint32_t> top_;
  Atomic<std::uint32_t> bottom_;
  Atomic<T*> slots_[kCapacity] = {};
};

}  // namespace weft::rt
