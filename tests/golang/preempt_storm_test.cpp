// The storm: signals at any moment, each of which asks its thread to let go of the P, change no result.
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/internals.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

void computes() {
  volatile unsigned x = 1;
  for (int i = 0; i < 10'000; i++) x = x * 1664525u + 1013904223u;
}

/// Work that goes through the runtime in every way, and tells if something came out wrong.
struct Works {
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::atomic<std::uint64_t> rounds{0};
  WaitGroup wg;

  void check(bool right) {
    if (!right) wrong++;
  }

  void start() {
    for (int pair = 0; pair < 2; pair++) {
      Chan<int> there = make_chan<int>(pair), back = make_chan<int>();
      wg.go([=, this] {
        for (int i = 0; !stop; i++) {
          there.send(i);
          check(back.recv() == i + 1);
          rounds++;
        }
        there.close();
      });
      wg.go([=] {
        while (std::optional<int> v = there.recv()) back.send(*v + 1);
        back.close();
      });
    }
    wg.go([this] {
      Chan<int> a = make_chan<int>(1), b = make_chan<int>(1);
      while (!stop) {
        int got = 0;
        select(send(a, 1), send(b, 2));
        const auto take = [&](std::optional<int> v) { got = v.value_or(0); };
        select(recv(a, take), recv(b, take));
        check(got == 1 || got == 2);
        rounds++;
      }
    });
    wg.go([this] {
      while (!stop) {
        const Time before = now();
        sleep_for(200us);
        check(now() - before >= 200us);
        rounds++;
      }
    });
    wg.go([this] {
      for (int i = 0; !stop; i++) {
        try {
          throw i;
        } catch (int caught) {
          yield();
          check(caught == i);
          try {
            throw;
          } catch (int again) {
            check(again == i);
          }
        }
        rounds++;
      }
    });
    wg.go([this] {
      while (!stop) {
        std::vector<std::unique_ptr<std::string>> v;
        const auto text = [](std::size_t i) { return std::to_string(i * 1000) + " is a number"; };
        for (std::size_t i = 0; i < 50; i++) v.push_back(std::make_unique<std::string>(text(i)));
        for (std::size_t i = 0; i < 50; i++) check(*v[i] == text(i));
        safepoint();
        rounds++;
      }
    });
    wg.go([this] {
      static thread_local int mine = 0;
      for (int i = 0; !stop; i++) {
        NoPreempt guard;
        mine = i;
        const pid_t here = thread_now();
        computes();
        check(mine == i && thread_now() == here && rt::current_m()->p);
        rounds++;
      }
    });
    wg.go([this] {
      while (!stop) {
        set_procs(1 + static_cast<int>(rounds % 4));
        go([this] { rounds++; });
        sleep_for(1ms);
      }
    });
  }
};

void storm(std::chrono::milliseconds lasts) {
  rt::fault_install({{rt::Call::Membarrier, 1, rt::FaultRule::kForEver, ENOSYS}});  // so that there is the handler
  Config c;
  c.procs = 3;
  c.use_env = false;
  c.log = [](LogLevel, std::string_view) {};
  std::uint64_t signals = 0;
  const int status = run(
      [&] {
        Works w;
        w.start();
        std::thread thrower([&] {
          const auto end = Clock::now() + lasts;
          while (Clock::now() < end) {
            rt::sched.mu.lock();
            for (rt::M* mp = rt::sched.all_ms; mp; mp = mp->all_link) {
              if (mp->tid == 0) continue;
              mp->asked_to_let_go.store(true, std::memory_order_relaxed);
              if (arch::interrupt_thread(mp->tid)) signals++;
            }
            rt::sched.mu.unlock();
            std::this_thread::sleep_for(20us);
          }
        });
        blocking([&] { thrower.join(); });
        w.stop = true;
        w.wg.wait();
        EXPECT_EQ(w.wrong.load(), 0);
        EXPECT_GT(w.rounds.load(), 100u);
        EXPECT_TRUE(settle(1, kPatience)) << dump_goroutines();
      },
      c);
  EXPECT_EQ(status, 0);
  rt::fault_restore();
  std::printf("%llu signals\n", static_cast<unsigned long long>(signals));
}

TEST(Preempt, AStormOfSignalsChangesNoResult) {
  if (kTsan) GTEST_SKIP() << "TSan holds signals back";
  storm(1500ms);
}

TEST(Preempt, DISABLED_AStormOfFiveMinutesChangesNoResult) { storm(5min); }

}  // namespace
}  // namespace weft::test
