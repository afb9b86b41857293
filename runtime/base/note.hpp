// A thread sleeps on a note until somebody wakes it: one wake per sleep, no matter who comes first.
//
// Orders     [note] release in wake(), acquire in sleep(): the sleeper sees what the waker did.
#pragma once

#include <cstdint>

#include "arch/clock.hpp"
#include "arch/futex.hpp"
#include "runtime/base/atomic.hpp"

namespace weft::rt {

class Note {
 public:
  /// Before anybody can wake it.
  void clear() { word_.exchange(0, memory_order_acquire); }  // [note] of a waker whose wake-up is dropped here

  void wake() {
    if (word_.exchange(1, memory_order_release) == 0) arch::futex_wake(word_, 1);  // [note]
  }

  /// Has it been woken already? The sleeper's own look.
  bool woken() const { return word_.load(memory_order_acquire) != 0; }  // [note]

  void sleep() {
    while (word_.load(memory_order_acquire) == 0) arch::futex_wait(word_, 0);  // [note]
  }

  /// False: `deadline` passed first (a later wake() still counts as that sleep's).
  bool sleep_until(std::int64_t deadline) {
    while (word_.load(memory_order_acquire) == 0) {  // [note]
      const std::int64_t left = deadline - arch::clock_now();
      if (left <= 0) return word_.load(memory_order_acquire) != 0;  // [note]
      arch::futex_wait(word_, 0, left);
    }
    return true;
  }

 private:
  std::atomic<std::uint32_t> word_{0};
};

}  // namespace weft::rt
