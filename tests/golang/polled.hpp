// Loops without a call, built with polls inserted by the compiler (poll_cflags).
#pragma once

#include <atomic>
#include <cstdint>

namespace weft::test::polled {

/// Until somebody says so.
void spin_until(const std::atomic<bool>& flag);
/// For ever: there is no way out of the loop. Clang's default coverage leaves such a loop without a poll.
[[noreturn]] void spin_for_ever(std::atomic<std::uint64_t>& count);
/// A few polls. Returns its argument plus one.
std::uint64_t pass(std::uint64_t n);

}  // namespace weft::test::polled
