// Sleeping on a 32-bit word. The only blocking wait of threads besides the poller.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>

#include "arch/kernel.hpp"

namespace weft::arch {

/// Sleeps while `*word == expected`, at most `timeout_ns` (negative: no limit). May return early and for no
/// reason: the caller looks at its condition again.
inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       std::int64_t timeout_ns = -1) {
  timespec ts{};
  if (timeout_ns >= 0) {
    ts.tv_sec = timeout_ns / 1'000'000'000;
    ts.tv_nsec = timeout_ns % 1'000'000'000;
  }
  kernel.futex_wait(reinterpret_cast<std::uint32_t*>(&word), expected, timeout_ns >= 0 ? &ts : nullptr);
}

/// Wakes at most `n` sleepers.
inline void futex_wake(std::atomic<std::uint32_t>& word, int n) {
  kernel.futex_wake(reinterpret_cast<std::uint32_t*>(&word), n);
}

}  // namespace weft::arch
