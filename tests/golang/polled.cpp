// See polled.hpp. No call in a loop: only the inserted polls are there.
#include "tests/golang/polled.hpp"

namespace weft::test::polled {

void spin_until(const std::atomic<bool>& flag) {
  while (!flag.load(std::memory_order_relaxed)) {
  }
}

void spin_for_ever(std::atomic<std::uint64_t>& count) {
  for (;;) count.fetch_add(1, std::memory_order_relaxed);
}

std::uint64_t pass(std::uint64_t n) {
  volatile std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < n; i++) sum = sum + 1;
  return sum + 1;
}

}  // namespace weft::test::polled
