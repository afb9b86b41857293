// A Runtime starts and stops for ever without leaving anything behind: descriptors, threads,
// mappings, bytes.
#include <dirent.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

int entries_of(const char* dir) {
  int n = 0;
  if (DIR* d = ::opendir(dir)) {
    while (dirent* e = ::readdir(d)) n += e->d_name[0] != '.';
    ::closedir(d);
  }
  return n;
}

struct Footprint {
  int descriptors = entries_of("/proc/self/fd");
  int threads = entries_of("/proc/self/task");
  int mappings = 0;
  size_t heap = 0;
  size_t resident = resident_bytes();

  Footprint() {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) mappings++;
#if defined(__GLIBC__)
    if (!kTsan && !kAsan) heap = mallinfo2().uordblks;
#endif
  }
};

// Threads that have ended may still be listed for a moment.
void until_threads_are_down_to(int n) {
  eventually([n] { return entries_of("/proc/self/task") <= n; });
}

template <class Round>
void no_growth(int rounds, Round round) {
  for (int i = 0; i < rounds / 10 + 1; i++) round(i);
  // What the runtime keeps for later grows with the most threads that it has had at once, on a busy machine late: then
  // once more. A leak is there each time.
  for (int attempt = 1;; attempt++) {
    const Footprint before;
    for (int i = 0; i < rounds; i++) {
      round(i);
      if (testing::Test::HasFailure()) {
        ADD_FAILURE() << "in round " << i;
        return;
      }
    }
    until_threads_are_down_to(before.threads);
    const Footprint after;
    EXPECT_EQ(after.descriptors, before.descriptors);
    EXPECT_LE(after.threads, before.threads);
    if (kTsan || kAsan) return;
    EXPECT_LE(after.mappings, before.mappings + 8);
    EXPECT_LE(after.resident, before.resident + (4u << 20));
    // A leak of one small block per round would be 16 bytes times the rounds at least.
    const size_t most = before.heap + static_cast<size_t>(rounds) * 8 + 8192;
    if (after.heap > most && attempt < 4) continue;
    EXPECT_LE(after.heap, most);
    return;
  }
}

constexpr int kRounds = scaled(1000, 100);

TEST(Restart, AThousandTimes) {
  no_growth(kRounds, [](int i) {
    Runtime rt{Machine{1 + i % 4, static_cast<uint64_t>(i) + 1}.config()};
    ASSERT_FALSE(rt.start());
    ASSERT_TRUE(rt.running());
    std::atomic<int> n{0};
    for (int g = 0; g < 10; g++)
      rt.go([&] {
        yield();
        n++;
      });
    const StopResult r = rt.stop(30s);
    ASSERT_EQ(n.load(), 10) << "stop did not drain";
    ASSERT_TRUE(r.unwound.empty());
    ASSERT_TRUE(r.abandoned.empty());
    ASSERT_FALSE(rt.running());
  });
}

TEST(Restart, TheSameRuntimeObject) {
  Runtime rt{Machine{2, 1}.config()};
  no_growth(kRounds / 5, [&](int) {
    ASSERT_FALSE(rt.start());
    std::atomic<int> n{0};
    rt.go([&] { n++; });
    ASSERT_TRUE(rt.stop(30s).abandoned.empty());
    ASSERT_EQ(n.load(), 1);
    ASSERT_TRUE(rt.stop(0s).unwound.empty()) << "stopping a stopped runtime does nothing";
  });
}

// Ten goroutines parked for ever, each in another kind of wait, hold memory that only their
// destructors give back.
TEST(Restart, AThousandTimesWithTenParkedForEver) {
  no_growth(kRounds, [](int i) {
    std::atomic<int> destroyed{0};
    struct Held {
      std::atomic<int>& n;
      std::vector<char> bytes = std::vector<char>(1000);
      ~Held() { n++; }
    };
    {
      Runtime rt{Machine{1 + i % 3, static_cast<uint64_t>(i) + 1}.config()};
      ASSERT_FALSE(rt.start());
      Chan<int> c = make_chan<int>();
      auto mu = std::make_shared<Mutex>();
      mu->lock();
      auto wg = std::make_shared<WaitGroup>();
      wg->add(1);
      // The lambdas are coroutines of nobody: each owns what it waits on.
      rt.go([c, &destroyed] {
        Held h{destroyed};
        (void)c.recv();
      });
      rt.go([c, &destroyed] {
        Held h{destroyed};
        (void)c.recv_or();
      });
      rt.go([c, &destroyed] {
        Held h{destroyed};
        for (int v : c) (void)v;
      });
      rt.go([&destroyed] {
        Held h{destroyed};
        Chan<int> mine = make_chan<int>(1);
        mine.send(1);
        mine.send(2);
      });
      rt.go([&destroyed] {
        Held h{destroyed};
        Chan<int>().send(1);
      });
      rt.go([&destroyed] {
        Held h{destroyed};
        select();
      });
      rt.go([c, &destroyed] {
        Held h{destroyed};
        select(recv(c), recv(make_chan<int>()), timeout(1h));
      });
      rt.go([&destroyed] {
        Held h{destroyed};
        sleep_for(1h);
      });
      rt.go([mu, &destroyed] {
        Held h{destroyed};
        mu->lock();
      });
      rt.go([wg, &destroyed] {
        Held h{destroyed};
        wg->wait();
      });
      // All ten are parked before the stop, so that every one of them has to be unwound.
      ASSERT_TRUE(eventually([] {
        const std::string dump = dump_goroutines();
        return num_goroutines() == 10 && dump.find("[run") == std::string::npos;
      }));
      const StopResult r = rt.stop(0s);
      ASSERT_EQ(r.unwound.size(), 10u);
      ASSERT_TRUE(r.abandoned.empty());
      std::set<std::string> reasons;
      std::set<uint64_t> ids;
      for (const GoroutineInfo& g : r.unwound) {
        reasons.insert(g.reason);
        ids.insert(g.id);
      }
      EXPECT_EQ(ids.size(), 10u);
      EXPECT_TRUE(reasons.count("chan receive"));
      EXPECT_TRUE(reasons.count("chan send"));
      EXPECT_TRUE(reasons.count("sleep"));
      EXPECT_TRUE(reasons.count("select"));
      EXPECT_TRUE(reasons.count("sync.Mutex.Lock"));
      EXPECT_TRUE(reasons.count("sync.WaitGroup.Wait"));
      wg->done();
      mu->unlock();
    }
    ASSERT_EQ(destroyed.load(), 10);
  });
}

TEST(Restart, RunManyTimes) {
  no_growth(scaled(300, 50), [](int i) {
    const int r = run(
        [i] {
          WaitGroup wg;
          for (int g = 0; g < 5; g++) wg.go([] { yield(); });
          wg.wait();
          return i;
        },
        Machine{1 + i % 3, 1}.config());
    ASSERT_EQ(r, i);
  });
}

TEST(Restart, UnwindingRunsDestructorsThatBlockShortly) {
  // A destructor may still use channels while stop() unwinds: it is bounded, not forbidden.
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    auto done = std::make_shared<std::atomic<bool>>(false);
    auto parked = std::make_shared<std::atomic<uint64_t>>(0);
    rt.go({.name = "parked"}, [done, parked] {
      Defer d{[&] {
        Chan<int> c = make_chan<int>(1);
        c.send(1);
        (void)c.recv();
        *done = true;
      }};
      *parked = goid();
      sleep_for(1h);
    });
    eventually([&] { return parked->load() != 0; });
    until_parked(parked->load(), "sleep");
    const StopResult r = rt.stop(0s);
    ASSERT_EQ(r.unwound.size(), 1u);
    EXPECT_EQ(r.unwound[0].name, "parked");
    EXPECT_EQ(r.unwound[0].reason, "sleep");
    EXPECT_EQ(r.unwound[0].id, parked->load());
    EXPECT_TRUE(done->load());
  }
}

TEST(Restart, StopDrainsWhatEndsInTime) {
  for (const Machine& m : kMachines) {
    Runtime rt{m.config()};
    ASSERT_FALSE(rt.start());
    std::atomic<int> n{0};
    for (int i = 0; i < 20; i++)
      rt.go([&, i] {
        sleep_for(std::chrono::microseconds(i * 100));
        n++;
      });
    const StopResult r = rt.stop(30s);
    EXPECT_EQ(n.load(), 20);
    EXPECT_TRUE(r.unwound.empty());
  }
}

TEST(Restart, ConfigErrorsAndASecondRuntimeAreErrorCodes) {
  Config bad;
  bad.procs = 5000;
  {
    Runtime rt{bad};
    EXPECT_EQ(rt.start(), Errc::bad_config);
    EXPECT_FALSE(rt.running());
  }
  Runtime first{Machine{1, 1}.config()};
  ASSERT_FALSE(first.start());
  Runtime second{Machine{1, 1}.config()};
  EXPECT_EQ(second.start(), Errc::already_running);
  first.stop(1s);
  EXPECT_FALSE(second.start());
  second.stop(1s);
}

TEST(Restart, SharedRuntimeLivesAsLongAsItsHandles) {
  std::error_code e;
  std::shared_ptr<Runtime> a = shared_runtime(Machine{2, 1}.config(), &e);
  ASSERT_TRUE(a) << e.message();
  std::shared_ptr<Runtime> b = shared_runtime();
  EXPECT_EQ(a, b);
  a.reset();
  std::promise<int> p;
  b->go([&] { p.set_value(procs()); });
  EXPECT_EQ(p.get_future().get(), 2);
  EXPECT_TRUE(settle(0, 30s));
  b.reset();
  // And again.
  a = shared_runtime(Machine{1, 1}.config());
  ASSERT_TRUE(a);
  EXPECT_TRUE(a->running());
}

TEST(Restart, AStuckRuntimeIsReportedNotKilled) {
  for (const Machine& m : kMachines) {
    Config c = m.config();
    auto seen = std::make_shared<std::promise<StuckReport>>();
    auto once = std::make_shared<std::atomic<bool>>(false);
    c.on_stuck = [seen, once](const StuckReport& r) {
      if (!once->exchange(true)) seen->set_value(r);
    };
    Runtime rt{c};
    ASSERT_FALSE(rt.start());
    auto never = std::make_shared<Chan<int>>(make_chan<int>());
    rt.go({.name = "stuck one"}, [never] { (void)never->recv(); });
    auto future = seen->get_future();
    ASSERT_EQ(future.wait_for(kPatience), std::future_status::ready) << "nobody was told";
    const StuckReport r = future.get();
    EXPECT_NE(r.text.find("all goroutines are asleep"), std::string::npos) << r.text;
    ASSERT_EQ(r.goroutines.size(), 1u);
    EXPECT_EQ(r.goroutines[0].name, "stuck one");
    EXPECT_EQ(r.goroutines[0].reason, "chan receive");
    never->close();
    EXPECT_TRUE(settle(0, 30s));
    rt.stop(1s);
  }
}

// Who is started from outside is counted and queued at one moment: the last M that goes to sleep sees no goroutine that nobody runs.
TEST(Restart, NobodyIsStuckWhoHasJustBeenStarted) {
  Config c = Machine{2, 1}.config();
  std::atomic<int> reports{0};
  c.on_stuck = [&](const StuckReport&) { reports++; };
  Runtime rt{c};
  ASSERT_FALSE(rt.start());
  std::atomic<int> ran{0};
  const int n = scaled(20'000, 2'000);
  for (int i = 0; i < n; i++) {
    rt.go([&] { ran++; });
    for (int k = 0; k < i % 97 * 20; k++) arch::cpu_pause();
  }
  EXPECT_TRUE(settle(0, kPatience));
  EXPECT_EQ(ran, n);
  EXPECT_EQ(reports, 0);
}

// The world is stopped for a report, plain threads are not: they take receivers out of the queues that it counts.
TEST(Restart, ThreadsUseTheChannelsThatAReportIsAbout) {
  Config c = Machine{2, 1}.config();
  std::atomic<int> reports{0};
  c.on_stuck = [&](const StuckReport&) { reports++; };
  Runtime rt{c};
  ASSERT_FALSE(rt.start());
  auto plain = make_chan<int>();
  auto chosen = make_chan<int>();
  for (int i = 0; i < 20; i++) {
    rt.go([plain] {
      while (plain.recv()) {
      }
    });
    rt.go([chosen, plain] {
      for (bool open = true; open;)
        select(recv(chosen, [&](std::optional<int> v) { open = v.has_value(); }),
               recv(plain, [&](std::optional<int> v) { open = v.has_value(); }));
    });
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50 || (reports < 20 && i < 20'000); i++) {
        (t == 0 ? plain : chosen).try_send(i);
        // Now and then long enough for all to fall asleep.
        std::this_thread::sleep_for(std::chrono::microseconds(i % 8 * 50));
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_GT(reports.load(), 0);
  plain.close();
  chosen.close();
  EXPECT_TRUE(settle(0, 30s));
  rt.stop(1s);
}

}  // namespace
}  // namespace weft::test
