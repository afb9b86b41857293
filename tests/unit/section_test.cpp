// weft/detail/section_cpu.hpp and arch/section.hpp: a store that depends on a look, and the barrier that undoes it.
#include <atomic>
#include <thread>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

TEST(Section, ReplacesOnlyWhatItExpects) {
  if (!detail::has_sections()) GTEST_SKIP() << "no rseq";
  std::atomic<std::uint32_t> word{1};
  EXPECT_FALSE(detail::section_replace(word, 2, 3));
  EXPECT_EQ(word, 1u);
  while (!detail::section_replace(word, 1, 0)) {  // it may be interrupted
  }
  EXPECT_EQ(word, 0u);
}

// One thread makes the word 1 and then 0 by a section, for ever; the other adds a bit to the 1. If the bit is there after the
// barrier, no section of before may take it away.
TEST(Section, WhatIsThereAfterTheBarrierStays) {
  if (!detail::has_sections()) GTEST_SKIP() << "no rseq";
  constexpr std::uint32_t kBit = 16;
  std::atomic<std::uint32_t> word{0};
  std::atomic<bool> stop{false};
  std::atomic<int> stored{0};
  std::thread worker([&] {
    while (!stop) {
      std::uint32_t free = 0;
      if (!word.compare_exchange_strong(free, 1)) continue;
      while (word == 1 && !detail::section_replace(word, 1, 0)) {
      }
      stored++;
      while (word & kBit) {
      }
    }
  });
  while (stored == 0) {
  }
  for (int stays = 0; stays < scaled(1000, 50);) {
    std::uint32_t taken = 1;
    if (!word.compare_exchange_strong(taken, 1 | kBit)) continue;
    arch::section_barrier();
    if (!(word & kBit)) continue;  // it was through before
    stays++;
    bool there = true;
    for (int k = 0; k < 200; k++) there = there && word == (1 | kBit);
    EXPECT_TRUE(there) << "after " << stays << " times";
    word = 0;
  }
  stop = true;
  word = 0;
  worker.join();
}

}  // namespace
}  // namespace weft::test
