// arch/thread.hpp: what the kernel says about threads.
#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

TEST(Thread, CountsItself) { EXPECT_GE(arch::count_process_threads(), 1); }

// A deadlock is fatal only if no other thread could still wake somebody: one that is missed ends a healthy program.
TEST(Thread, NoneIsMissedWhileOthersEnd) {
  constexpr int kStay = 4, kGo = 24;
  const int before = arch::count_process_threads();
  int fewest = 1'000;
  for (int round = 0; round < 50; round++) {
    std::atomic<bool> go{false}, stop{false};
    auto start = [](std::vector<std::thread>& in, int n, std::atomic<bool>& until) {
      for (int i = 0; i < n; i++) in.emplace_back([&] { until.wait(false); });
    };
    // The kernel lists them in this order: those that stay come after those that end.
    std::vector<std::thread> goers, stayers;
    start(goers, kGo, go);
    start(stayers, kStay, stop);
    go = true;
    go.notify_all();
    for (int i = 0; i < 100; i++) fewest = std::min(fewest, arch::count_process_threads() - before);
    stop = true;
    stop.notify_all();
    for (std::thread& t : goers) t.join();
    for (std::thread& t : stayers) t.join();
    // A joined thread is counted until the kernel is through with it.
    while (arch::count_process_threads() > before) std::this_thread::yield();
  }
  EXPECT_GE(fewest, kStay);
}

}  // namespace
}  // namespace weft::test
