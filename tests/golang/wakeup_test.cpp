// Sleeping threads: none misses a wake-up, and none wakes when there is nothing to do.
#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Scheduler, ALongPollIsInterruptedByNewWork) {  // 63
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    Chan<void> never = make_chan<void>();
    rt.go([=] { (void)select(recv(never), timeout(1h)); });  // a far timer bounds the poll
    auto worst = 0ns;
    for (int i = 0; i < 20; i++) {
      // Let the Ms fall asleep: idle for as long as this thread sleeps.
      std::this_thread::sleep_for(2ms);
      std::promise<void> ran;
      const Time before = now();
      rt.go([&] { ran.set_value(); });
      ran.get_future().get();
      worst = std::max<std::chrono::nanoseconds>(worst, now() - before);
      // The goroutine has set the value but may still be using the promise.
      ASSERT_TRUE(settle(1, 30s));
    }
    EXPECT_LT(worst, 5s);
    never.close();
    rt.stop(5s);
  }
}

TEST(Scheduler, ATimerMovedBeforeThePollsEndShortensIt) {  // 63
  each_run([] {
    Timer t(1h);
    go_parked("chan receive", [&] { (void)t.chan().recv(); });
    sleep_for(2ms);  // the other Ps are idle in their polls by now
    const Time before = now();
    t.reset(1ms);
    EXPECT_TRUE(settle(1, 30s));
    EXPECT_LT(now() - before, 5s);
  });
}

TEST(Scheduler, NoWakeUpIsLost) {  // 72
  each_run([] {
    // One goroutine parks, the other readies it at every possible moment of its parking.
    constexpr int kRounds = scaled(200000, 10000);
    Chan<int> c = make_chan<int>();
    go([=] {
      for (int i = 0; i < kRounds; i++) {
        c.send(i);
        for (int k = 0; k < i % 3; k++) safepoint();
      }
    });
    for (int i = 0; i < kRounds; i++) ASSERT_EQ(c.recv(), i);
  });
}

TEST(Scheduler, NoWakeUpFromAPlainThreadIsLost) {  // 72
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    constexpr int kRounds = scaled(5000, 500);
    Chan<int> there = make_chan<int>(), back = make_chan<int>();
    rt.go([=] {
      for (int v : there) back.send(v);
    });
    // After each exchange everything is idle, and the next send has to wake an M.
    for (int i = 0; i < kRounds; i++) {
      there.send(i);
      const Recv<int> r = back.recv_for(30s);
      ASSERT_EQ(r.status, RecvStatus::Ok) << "a wake-up was lost in round " << i;
      ASSERT_EQ(r.value, i);
    }
    there.close();
    rt.stop(5s);
  }
}

// Context switches of all threads of this process but the caller's.
int64_t switches_of_others() {
  int64_t sum = 0;
  DIR* d = ::opendir("/proc/self/task");
  if (!d) return 0;
  while (dirent* e = ::readdir(d)) {
    const std::string tid = e->d_name;
    if (tid[0] == '.' || tid == std::to_string(::gettid())) continue;
    std::ifstream in("/proc/self/task/" + tid + "/status");
    for (std::string line; std::getline(in, line);)
      if (line.find("ctxt_switches:") != std::string::npos)
        sum += std::stoll(line.substr(line.find(':') + 1));
  }
  ::closedir(d);
  return sum;
}

void wakes_no_thread_for(std::chrono::seconds time) {
  if (kTsan || kAsan) return;  // their own background thread wakes
  Runtime rt{Machine{4, 1}.config()};
  ASSERT_FALSE(rt.start());
  Chan<void> quit = make_chan<void>();
  for (int i = 0; i < 10; i++) rt.go([=] { quit.recv(); });
  rt.go([=] { (void)select(recv(quit), timeout(1h)); });
  // Until every thread has come to rest: two looks apart see no switch.
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  for (;;) {
    const int64_t before = switches_of_others();
    std::this_thread::sleep_for(50ms);
    if (switches_of_others() == before) break;
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the threads never come to rest";
  }
  const int64_t before = switches_of_others();
  std::this_thread::sleep_for(time);
  EXPECT_EQ(switches_of_others() - before, 0);
  quit.close();
  rt.stop(5s);
}

TEST(Scheduler, AnIdleProcessWakesNoThread) { wakes_no_thread_for(1s); }  // 73
TEST(Scheduler, DISABLED_AnIdleProcessWakesNoThreadForTenSeconds) { wakes_no_thread_for(10s); }

TEST(Scheduler, TimersFireWhileAllProcsCompute) {  // 74
  each_run([] {
    std::atomic<bool> stop{false};
    WaitGroup wg;
    for (int i = 0; i < procs() + 2; i++)
      wg.go([&] {
        while (!stop) safepoint();
      });
    std::atomic<int> fired{0};
    for (int i = 1; i <= 10; i++) after_func(1ms * i, [&] { fired++; });
    const Time before = now();
    sleep_for(10ms);
    eventually([&] { return fired == 10; });
    EXPECT_LT(now() - before, 10s);
    stop = true;
    wg.wait();
  });
}

}  // namespace
}  // namespace weft::test
