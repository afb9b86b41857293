// The Boehm collector under goroutines: nothing is collected too early, nearly everything that is dead is.
// Each run is a process of its own: a process attaches one collector, once.
#define GC_THREADS
#define GC_NO_THREAD_REDIRECTS
#include <gc/gc.h>

#include <functional>

namespace weft::test {

/// Runs `f` on a plain thread that libgc knows.
template <class F>
void GC_stack_base_here(F f) {
  std::function<void()> call = f;
  GC_call_with_stack_base(
      [](GC_stack_base* base, void* arg) -> void* {
        GC_register_my_thread(base);
        (*static_cast<std::function<void()>*>(arg))();
        GC_unregister_my_thread();
        return nullptr;
      },
      &call);
}

}  // namespace weft::test

#include "tests/gc/torture.hpp"
#include "tests/support/child.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds kLimit{1200};

void say(const char* what, int procs, const Verdict& v) {
  std::printf("%s, %d procs: %llu checks, %llu premature, %llu collections, pause p50 %.2f p99 %.2f max %.2f ms (stop %.2f %.2f), heap %.1f MiB, free %.1f\n",
              what, procs, static_cast<unsigned long long>(v.checks), static_cast<unsigned long long>(v.premature),
              static_cast<unsigned long long>(v.collections), static_cast<double>(v.pauses.p50_ns) / 1e6,
              static_cast<double>(v.pauses.p99_ns) / 1e6, static_cast<double>(v.pauses.max_ns) / 1e6,
              static_cast<double>(v.pauses.stop_p50_ns) / 1e6, static_cast<double>(v.pauses.stop_p99_ns) / 1e6,
              static_cast<double>(v.heap.heap_bytes) / 1048576, static_cast<double>(v.heap.free_bytes) / 1048576);
}

void nothing_is_collected_too_early(std::chrono::milliseconds each, Hibernate hibernate = Hibernate::Off) {
  for (int procs : {1, 2, 4}) {
    const Child c = child(
        [&] {
          gc::boehm::init();
          const Verdict v = torture(procs, each, 4, hibernate);
          say("torture", procs, v);
          if (v.checks < 1000 || v.collections < 20) return 3;
          if (v.heap.heap_bytes - v.heap.free_bytes > (32u << 20)) return 4;  // what is live at the end is a few chains
          return v.premature == 0 ? 0 : 1;
        },
        {.limit = kLimit});
    if (!c.ran) continue;
    EXPECT_EQ(c.status, 0) << c.report();
    std::fputs(c.out.c_str(), stdout);
  }
}

TEST(Boehm, NothingIsCollectedTooEarlyAndWhatIsDeadIsCollected) { nothing_is_collected_too_early(6s); }

TEST(Boehm, NothingIsCollectedTooEarlyFromHibernatedStacks) { nothing_is_collected_too_early(3s, Hibernate::On); }

// By tools/test.sh --long, with a longer WEFT_TEST_TIMEOUT.
TEST(Boehm, DISABLED_NothingIsCollectedTooEarlyInTenMinutes) {
  alarm(0);
  nothing_is_collected_too_early(200s);
}

// The same test must find what is missing, or it proves nothing.
TEST(Boehm, WithOneClassOfStacksHiddenObjectsAreCollectedTooEarly) {
  for (const std::size_t hidden : {std::size_t{64} << 10, std::size_t{1} << 20}) {
    const Child c = child(
        [&] {
          gc::boehm::init();
          static std::size_t bytes;
          bytes = hidden;
          gc::boehm::shows = [](const gc::StackView& v) { return v.words != gc::Words::Goroutine || v.reserved_bytes != bytes; };
          return torture(2, 30s, 4).premature == 0 ? 0 : 1;
        },
        {.limit = kLimit});
    if (!c.ran) continue;
    // Found, or it came to follow what is no pointer any more.
    EXPECT_TRUE(c.status == 1 || c.signal == SIGSEGV) << c.report();
    EXPECT_FALSE(c.timed_out);
  }
}

TEST(Boehm, WithCopiedStacksHiddenObjectsAreCollectedTooEarly) {
  const Child c = child(
      [] {
        gc::boehm::init();
        gc::boehm::shows = [](const gc::StackView& v) { return v.words != gc::Words::Goroutine || v.where != gc::Where::Block; };
        return torture(2, 30s, 4).premature == 0 ? 0 : 1;
      },
      {.limit = kLimit});
  EXPECT_TRUE(c.status == 1 || c.signal == SIGSEGV) << c.report();
}

// How long a collection stops everybody, for so many parked goroutines that hold a chain each.
void pauses_with(int goroutines, int collections) {
  const Child c = child(
      [&] {
        gc::boehm::init();
        std::atomic<std::uint64_t> wrong{0};
        run(
            [&] {
              auto gate = make_chan<void>();
              WaitGroup wg;
              for (int i = 0; i < goroutines; i++) {
                const auto id = static_cast<std::uint64_t>(i);
                wg.go([&wrong, gate, id, first = chain(id, 4)] {
                  const Node* mine = first;
                  gate.recv();
                  wrong += !whole(mine, id, 4);
                });
              }
              sleep_for(1ms);
              gc::clear_pause_stats();
              for (int i = 0; i < collections; i++) {
                for (int k = 0; k < 1000; k++) chain(0, 4);
                gc::boehm::collect();
                yield();
              }
              const gc::PauseStats s = gc::pause_stats();
              std::printf("%d goroutines: pause p50 %.2f p99 %.2f max %.2f ms, of these to stop p50 %.3f p99 %.3f ms, %llu pauses\n", goroutines,
                          static_cast<double>(s.p50_ns) / 1e6, static_cast<double>(s.p99_ns) / 1e6, static_cast<double>(s.max_ns) / 1e6,
                          static_cast<double>(s.stop_p50_ns) / 1e6, static_cast<double>(s.stop_p99_ns) / 1e6,
                          static_cast<unsigned long long>(s.count));
              if (s.count < static_cast<std::uint64_t>(collections)) wrong++;
              gate.close();
              wg.wait();
            },
            {.procs = 2, .use_env = false});
        return wrong == 0 ? 0 : 1;
      },
      {.limit = kLimit});
  if (!c.ran) return;
  EXPECT_EQ(c.status, 0) << c.report();
  std::fputs(c.out.c_str(), stdout);
}

TEST(Boehm, PausesWithAThousandGoroutines) { pauses_with(1000, 100); }
TEST(Boehm, DISABLED_PausesWithTenThousandGoroutines) { pauses_with(10'000, 100); }
TEST(Boehm, DISABLED_PausesWithAHundredThousandGoroutines) { pauses_with(100'000, 50); }

TEST(Boehm, ABlockThatARuntimesObjectHoldsGoesWithIt) {
  const Child c = child([] {
    gc::boehm::init();
    run([] {
      for (int i = 0; i < 20'000; i++) {
        // A hundred nodes in each buffer: 100 MB in all if channels were never given back.
        auto filled = make_chan<Node*>(100);
        for (int k = 0; k < 100; k++) filled.send(chain(1, 1));
      }
    });
    gc::boehm::collect();
    gc::boehm::collect();
    const gc::boehm::HeapStats s = gc::boehm::heap_stats();
    return s.heap_bytes - s.free_bytes < (8u << 20) ? 0 : 1;
  });
  if (c.ran) {
    EXPECT_EQ(c.status, 0) << c.report();
  }
}

TEST(Boehm, FinalizersRunWhereTheyAreAskedFor) {
  const Child c = child([] {
    gc::boehm::init();
    static std::atomic<int> finalized{0};
    run([] {
      for (int i = 0; i < 1000; i++)
        GC_register_finalizer(chain(7, 1), [](void*, void*) { finalized++; }, nullptr, nullptr, nullptr);
      for (int i = 0; i < 5; i++) gc::boehm::collect();
      if (finalized != 0) fatal("a finalizer ran inside the collector");
      while (gc::boehm::run_finalizers() != 0) yield();
    });
    return finalized > 900 ? 0 : 1;
  });
  if (c.ran) {
    EXPECT_EQ(c.status, 0) << c.report();
  }
}

TEST(Boehm, RuntimesComeAndGoAndItsOwnThreadsCollectBetweenThem) {
  const Child c = child([] {
    gc::boehm::init();
    Node* mine = chain(3, 50);
    for (int i = 0; i < 20; i++) {
      Runtime rt{{.procs = 2, .use_env = false}};
      if (rt.start()) return 3;
      std::atomic<int> wrong{0};
      for (int k = 0; k < 20; k++)
        rt.go([&wrong] {
          Node* c = chain(9, 20);
          for (int n = 0; n < 20; n++) yield();
          gc::boehm::collect();
          wrong += !whole(c, 9, 20);
        });
      rt.go({.main_thread = true}, [&wrong] {
        Node* c = chain(10, 20);
        gc::boehm::collect();
        wrong += !whole(c, 10, 20);
      });
      while (num_goroutines() > 0) {
        rt.run_main_pending();
        std::this_thread::yield();
      }
      gc::boehm::collect();
      rt.stop(10s);
      gc::boehm::collect();
      if (wrong != 0) return 4;
    }
    return whole(mine, 3, 50) ? 0 : 1;
  });
  if (c.ran) {
    EXPECT_EQ(c.status, 0) << c.report();
  }
}

TEST(Boehm, ThreadsThatLibgcDoesNotKnowMayMakeChannelsAndLargeClosures) {
  const Child c = child([] {
    gc::boehm::init();
    Runtime rt{{.procs = 2, .use_env = false}};
    if (rt.start()) return 3;
    std::atomic<int> ran{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; i++)
      threads.emplace_back([&] {
        for (int k = 0; k < 2000; k++) {
          std::array<char, 3000> large{};
          auto c = make_chan<std::array<char, 1000>>(4);
          rt.go([&ran, large, c] { ran += 1 + large[5]; });
        }
      });
    for (auto& t : threads) t.join();
    while (num_goroutines() > 0) std::this_thread::yield();
    return ran == 16'000 && gc::boehm::heap_stats().collections > 3 ? 0 : 1;
  });
  if (c.ran) {
    EXPECT_EQ(c.status, 0) << c.report();
  }
}

TEST(Boehm, WithoutMarkerThreadsADeadlockIsReported) {
  const Child c = child(
      [] {
        gc::boehm::init();
        run([] { make_chan<int>().recv(); });
      },
      {.env = {"GC_MARKERS=1"}});
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: all goroutines are asleep - deadlock!")) << c.report();
}

TEST(Boehm, WrongUseIsRefused) {
  const Child late = child([] {
    Chan<int> early = make_chan<int>(1);
    if (panic_of([] { gc::boehm::init(); }).find("after a channel") == std::string::npos) return 1;
    return 0;
  });
  if (late.ran) {
    EXPECT_EQ(late.status, 0) << late.report();
  }
  const Child running = child([] {
    run([] {
      if (panic_of([] { gc::boehm::init(); }).find("while a runtime runs") == std::string::npos) fatal("no panic");
    });
  });
  if (running.ran) {
    EXPECT_EQ(running.status, 0) << running.report();
  }
  const Child inside = child([] {
    gc::boehm::init();
    run([] {
      gc::freeze_world();
      gc::boehm::collect();
    });
  });
  if (!inside.ran) return;
  EXPECT_EQ(inside.status, 2) << inside.report();
  EXPECT_TRUE(inside.says("fatal error: weft-gc: collected memory was asked for while the caller has frozen the world")) << inside.report();
}

}  // namespace
}  // namespace weft::test
