// Sleeping threads that are woken for nothing, by signals and by futexes, sleep on and wake when they should: the runtime's sleep primitive, and
// idle runtimes whose timers are all they wait for. Go: TestSpuriousWakeupsNeverHangSemasleep.
#include <dirent.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <thread>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

std::atomic<int> signals_taken{0};

/// While one lives every other thread of the process gets a signal that interrupts its system calls, again and again.
class Storm {
 public:
  explicit Storm(std::function<void()> also = [] {}) : also_(std::move(also)) {
    struct sigaction action = {};
    action.sa_handler = [](int) { signals_taken.fetch_add(1, std::memory_order_relaxed); };
    action.sa_flags = SA_ONSTACK;  // no SA_RESTART
    ::sigaction(SIGIO, &action, &old_);
    signals_taken = 0;
    thread_ = std::thread([this] {
      while (!over_) {
        const pid_t self = ::gettid(), process = ::getpid();
        if (DIR* all = ::opendir("/proc/self/task")) {
          while (const dirent* entry = ::readdir(all))
            if (const pid_t tid = std::atoi(entry->d_name); tid != 0 && tid != self) ::syscall(SYS_tgkill, process, tid, SIGIO);
          ::closedir(all);
        }
        also_();
        const timespec gap{0, 300'000};  // the storm's own pace
        ::nanosleep(&gap, nullptr);
      }
    });
  }
  ~Storm() {
    over_ = true;
    thread_.join();
    ::sigaction(SIGIO, &old_, nullptr);
  }

 private:
  std::function<void()> also_;
  std::atomic<bool> over_{false};
  struct sigaction old_ = {};
  std::thread thread_;
};

/// The futex that a Note sleeps on is all there is in it.
std::atomic<uint32_t>& word_of(rt::Note& note) {
  static_assert(sizeof(rt::Note) == sizeof(std::atomic<uint32_t>));
  return reinterpret_cast<std::atomic<uint32_t>&>(note);
}

TEST(Note, SpuriousWakeUpsNeitherEndNorProlongATimedSleep) {  // 129
  rt::Note note;
  Storm storm([&] { arch::futex_wake(word_of(note), 1); });
  for (int i = 0; i < 5; i++) {
    const int before = signals_taken;
    const std::int64_t begin = arch::clock_now();
    EXPECT_FALSE(note.sleep_until(begin + 20'000'000));
    EXPECT_GE(arch::clock_now(), begin + 20'000'000);
    EXPECT_LT(arch::clock_now(), begin + std::chrono::nanoseconds(kPatience).count());
    EXPECT_GT(signals_taken, before) << "nobody disturbed it";
  }
}

TEST(Note, SpuriousWakeUpsDoNotEndASleepWithoutALimit) {  // 129
  rt::Note note;
  std::atomic<bool> woken{false};
  std::atomic<int> slept{0};
  Storm storm([&] { arch::futex_wake(word_of(note), 1); });
  std::thread sleeper([&] {
    for (int i = 0; i < 5; i++) {
      note.sleep();
      EXPECT_TRUE(woken.exchange(false)) << "it went on without a wake-up";
      note.clear();
      slept++;
    }
  });
  for (int i = 0; i < 5; i++) {
    const int before = signals_taken;
    ASSERT_TRUE(eventually([&] { return signals_taken > before + 20; }));
    EXPECT_EQ(slept, i);
    woken = true;
    note.wake();
    ASSERT_TRUE(eventually([&] { return slept > i; }));
  }
  sleeper.join();
}

TEST(Spurious, SignalsNeverHangASleepOfAnIdleRuntime) {  // 129
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    {
      Storm storm;
      std::vector<Task<void>> sleepers;
      for (int i = 1; i <= 3; i++)
        sleepers.push_back(rt.submit([i] {
          const Time begin = now();
          sleep_for(i * 20ms);
          EXPECT_GE(now() - begin, i * 20ms);
          EXPECT_LT(now() - begin, kPatience);
        }));
      // A plain thread's, and a wait that a channel ends.
      Chan<int> c = make_chan<int>();
      EXPECT_EQ(c.recv_for(20ms).status, RecvStatus::Empty);
      std::thread receiver([c] { EXPECT_EQ(c.recv(), 5); });
      for (Task<void>& t : sleepers) t.get();
      rt.go([c] { c.send(5); });
      receiver.join();
      EXPECT_GT(signals_taken, 0);
    }
    rt.stop(5s);
  }
}

}  // namespace
}  // namespace weft::test
