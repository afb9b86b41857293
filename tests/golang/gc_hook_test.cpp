// What a collector finds: each goroutine keeps one secret word where only it can be found, and every look into the frozen world
// must see all of them. The words are not in the test's own tables: those hold numbers.
#include <weft/gc_hook.hpp>

#include <array>
#include <thread>
#include <vector>

#include "tests/support/child.hpp"
#include "tests/support/freeze.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uintptr_t kSecret = 0x5ec2'0000'0000'0000;
constexpr unsigned kSecretsMax = 4096;

/// The word of holder `i`. Not a constant that could stand in code or in another goroutine's frame.
__attribute__((noinline)) std::uintptr_t secret(unsigned i) {
  asm volatile("" : "+r"(i));
  return kSecret | std::uintptr_t{i} << 4;
}

/// What a look into the world has found. Allocates nothing.
struct Found {
  std::array<bool, kSecretsMax> seen{};
  std::array<unsigned, 8> states{};
  unsigned views = 0;
  std::uint64_t only = 0;  // every view is of this goroutine; 0: of anybody

  __attribute__((no_sanitize("address", "thread"))) void words(const void* lo, const void* hi) {
    for (auto* p = static_cast<const std::uintptr_t*>(lo); p + 1 <= static_cast<const std::uintptr_t*>(hi); p++) {
      const std::uintptr_t w = *p;
      if (w >> 16 << 16 != kSecret || (w & 15) != 0) continue;
      if (const std::uintptr_t i = (w & 0xffff) >> 4; i < kSecretsMax) seen[i] = true;
    }
  }
  unsigned missing(unsigned n) const {
    unsigned m = 0;
    for (unsigned i = 0; i < n; i++) m += !seen[i];
    return m;
  }
};

void take_view(const gc::StackView& v, void* arg) {
  auto* f = static_cast<Found*>(arg);
  f->views++;
  if (f->only) {
    EXPECT_EQ(v.goid, f->only);
  }
  if (v.words == gc::Words::Goroutine) f->states[static_cast<unsigned>(v.state)]++;
  f->words(v.lo, v.hi);
  if (v.registers_lo) f->words(v.registers_lo, v.registers_hi);
}

void take_root(const gc::Root& r, void* arg) { static_cast<Found*>(arg)->words(r.lo, r.hi); }

/// One look. The caller keeps `f` in memory of its own that nobody scans.
void look(Found& f, bool roots = true) {
  f.seen.fill(false);
  f.states.fill(0);
  f.views = 0;
  ASSERT_TRUE(freeze_in_time());
  gc::each_stack(take_view, &f);
  if (roots) gc::each_root(take_root, &f);
  gc::thaw_world();
}

/// Keeps `w` in a register or in the caller's frame, as the compiler likes.
#define KEEP(w) asm volatile("" : "+r"(w))

/// The only copy of a word goes down into a deep frame, parks there, and comes back: whoever takes the context of the park before,
/// which was less deep, misses it.
template <class Step>
__attribute__((noinline)) std::uintptr_t park_deep_with(std::uintptr_t w, unsigned pages, Step& step) {
  volatile char room[512];
  room[0] = static_cast<char>(pages);
  if (pages != 0) return park_deep_with(w, pages - 1, step) + (room[0] == 100);
  KEEP(w);
  step();
  KEEP(w);
  return w;
}

struct Holders {
  std::atomic<bool> stop{false};
  std::atomic<unsigned> ready{0};

  /// The word is in `here` or down there, never in both, nor in a register that somebody saves.
  template <class Step>
  __attribute__((noinline)) void hold_deep(unsigned i, Step& step) {
    volatile std::uintptr_t here = secret(i);
    ready++;
    while (!stop.load(std::memory_order_relaxed)) {
      step();
      const std::uintptr_t down = here;
      here = 0;
      here = park_deep_with(down, 6, step);
    }
    EXPECT_EQ(here, secret(i));
  }

  bool deep = false;  // parks in turn here and in a deep frame

  template <class Step>
  void hold(unsigned i, Step step) {
    if (deep) {
      hold_deep(i, step);
      return;
    }
    std::uintptr_t w = secret(i);
    ready++;
    while (!stop.load(std::memory_order_relaxed)) {
      KEEP(w);
      step();
      KEEP(w);
    }
    EXPECT_EQ(w, secret(i));
  }
};

TEST(GcHook, EveryStateOfAGoroutineIsFoundWithItsWords) {
  for (int procs : {1, 2, 4}) {
    in_run({procs, 1}, [] {
      auto found = std::make_unique<Found>();
      Holders h;
      Chan<int> never = make_chan<int>(), other = make_chan<int>();
      Mutex mu;
      mu.lock();
      int pipe_fds[2];
      ASSERT_EQ(::pipe(pipe_fds), 0);
      unsigned n = 0;
      WaitGroup wg;
      auto start = [&](auto step) { wg.go([&, i = n, step] { h.hold(i, step); }), n++; };
      start([&] { never.recv(); });
      start([&] { select(recv(never), recv(other)); });
      start([&] { mu.lock(), mu.unlock(); });
      start([&] { sleep_for(10ms); });
      start([&] { yield(); });
      start([&] { safepoint(); });
      start([] {});                                                                     // in user code for ever: loses its P
      start([] { std::free(std::malloc(100)); });                                       // the same, often inside malloc
      start([&] {  // in the kernel; TSan holds the signal back until read() returns
        blocking([&] {
          char c;
          if (kTsan)
            ::usleep(1000);
          else
            (void)!::read(pipe_fds[0], &c, 1);
        });
      });
      start([&] { SyscallRegion r; ::usleep(100); });
      start([&] { try { throw 1; } catch (int) { yield(); } });                          // with an exception in flight
      eventually([&] { return h.ready == n; });
      for (int round = 0; round < scaled(300, 40); round++) {
        look(*found);
        ASSERT_EQ(found->missing(n), 0u) << "round " << round;
        if (round % 8 == 0) yield();
      }
      EXPECT_GE(found->views, n + 1);
      h.stop = true;
      mu.unlock();
      never.close();
      ASSERT_EQ(::write(pipe_fds[1], "x", 1), 1);
      wg.wait();
      ::close(pipe_fds[0]);
      ::close(pipe_fds[1]);
    });
  }
}

// 39. The window between the jump and the store of the context is a few instructions: goroutines that do nothing but switch.
TEST(GcHook, AGoroutineThatIsHalfWayParkedIsFound) {
  for (int procs : {1, 2, 4}) {
    Runtime rt{Config{.procs = procs, .use_env = false}};
    ASSERT_FALSE(rt.start());
    auto found = std::make_unique<Found>();
    constexpr unsigned kHolders = 60;
    Holders h;
    h.deep = true;
    Chan<int> ping = make_chan<int>(), pong = make_chan<int>();
    for (unsigned i = 0; i < kHolders; i++) {
      if (i % 3 == 0)
        rt.go([&h, i] { h.hold(i, [] { yield(); }); });
      else if (i % 3 == 1)
        rt.go([&h, i, ping, pong] { h.hold(i, [&] { ping.send(1), pong.recv(); }); });
      else
        rt.go([&h, i, ping, pong] { h.hold(i, [&] { ping.recv(), pong.send(2); }); });
    }
    eventually([&] { return h.ready == kHolders; });
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(scaled(3, 2));
    unsigned looks = 0, misses = 0;
    while (std::chrono::steady_clock::now() < until) {
      look(*found);
      looks++;
      misses += found->missing(kHolders);
    }
    EXPECT_EQ(misses, 0u) << "in " << looks << " looks";
    EXPECT_GT(looks, 20u);
    h.stop = true;
    const StopResult r = rt.stop(0s);
    EXPECT_TRUE(r.abandoned.empty());
  }
}

TEST(GcHook, AGoroutineThatDiesAndHandsItsStackOnDoesNotHideTheNext) {
  Runtime rt{Config{.procs = 2, .use_env = false}};
  ASSERT_FALSE(rt.start());
  auto found = std::make_unique<Found>();
  // A chain: each starts the next and ends. The word goes from closure to stack to closure.
  struct Chain {
    static void link(std::uintptr_t w, std::atomic<bool>* stop, std::atomic<unsigned>* links) {
      (*links)++;
      if (stop->load()) return;
      go([w, stop, links] { link(w, stop, links); });
    }
  };
  std::atomic<bool> stop{false};
  std::atomic<unsigned> links{0};
  for (unsigned i = 0; i < 4; i++) rt.go([w = secret(i), &stop, &links] { Chain::link(w, &stop, &links); });
  eventually([&] { return links > 100; });
  unsigned misses = 0;
  for (int i = 0; i < scaled(3000, 200); i++) {
    look(*found);
    misses += found->missing(4);
  }
  EXPECT_EQ(misses, 0u);
  stop = true;
  rt.stop(10s);
}

#if defined(__x86_64__)
TEST(GcHook, AWordThatIsInAVectorRegisterOnlyIsFound) {
  if (kTsan) GTEST_SKIP() << "TSan runs the handler later than the signal came: the words are others by then";
  in_run({2, 1}, [] {
    auto found = std::make_unique<Found>();
    std::atomic<bool> stop{false}, there{false};
    WaitGroup wg;
    wg.go([&] {
      // Both halves of one, and a GPR that is cleared before anybody looks.
      const bool* done = reinterpret_cast<const bool*>(&stop);
      bool* in = reinterpret_cast<bool*>(&there);
      std::uintptr_t w = 0x5ec2;
      asm volatile(
          "shlq $48, %[w]\n\t"
          "orq $0x50, %[w]\n\t"
          "movq %[w], %%xmm9\n\t"
          "xorl %k[w], %k[w]\n\t"
          "movb $1, (%[in])\n"
          "1: pause\n\t"
          "cmpb $0, (%[done])\n\t"
          "je 1b\n\t"
          "movq %%xmm9, %[w]\n\t"
          : [w] "+&r"(w)
          : [done] "r"(done), [in] "r"(in)
          : "xmm9", "memory", "cc");
      EXPECT_EQ(w, secret(5));
    });
    eventually([&] { return there.load(); });
    for (int i = 0; i < 50; i++) {
      look(*found);
      EXPECT_TRUE(found->seen[5]);
    }
    stop = true;
    wg.wait();
  });
}
TEST(GcHook, AWordThatIsInTheRedZoneOnlyIsFound) {
  if (kTsan) GTEST_SKIP() << "TSan runs the handler on the stack that it interrupted";
  in_run({2, 1}, [] {
    auto found = std::make_unique<Found>();
    std::atomic<bool> stop{false}, there{false};
    WaitGroup wg;
    wg.go([&] {
      const bool* done = reinterpret_cast<const bool*>(&stop);
      bool* in = reinterpret_cast<bool*>(&there);
      std::uintptr_t w = 0x5ec2;
      asm volatile(
          "subq $512, %%rsp\n\t"
          "shlq $48, %[w]\n\t"
          "orq $0x60, %[w]\n\t"
          "movq %[w], -120(%%rsp)\n\t"
          "xorl %k[w], %k[w]\n\t"
          "movb $1, (%[in])\n"
          "1: pause\n\t"
          "cmpb $0, (%[done])\n\t"
          "je 1b\n\t"
          "movq -120(%%rsp), %[w]\n\t"
          "movq $0, -120(%%rsp)\n\t"
          "addq $512, %%rsp\n\t"
          : [w] "+&r"(w)
          : [done] "r"(done), [in] "r"(in)
          : "memory", "cc");
      EXPECT_EQ(w, secret(6));
    });
    eventually([&] { return there.load(); });
    for (int i = 0; i < 50; i++) {
      look(*found);
      EXPECT_TRUE(found->seen[6]);
    }
    stop = true;
    wg.wait();
  });
}

#endif

TEST(GcHook, ClosuresOfGoroutinesThatHaveNotRunAreRoots) {
  in_run({1, 1}, [] {
    auto found = std::make_unique<Found>();
    std::atomic<unsigned> sum{0};
    {
      NoPreempt nobody_else_runs;
      // Small: in the descriptor. Large: in a block.
      for (unsigned i = 0; i < 8; i++) go([&sum, w = secret(i)] { sum += static_cast<unsigned>((w & 0xffff) >> 4); });
      for (unsigned i = 8; i < 16; i++) {
        std::array<std::uintptr_t, 20> large{};
        large[19] = secret(i);
        go([&sum, large] { sum += static_cast<unsigned>((large[19] & 0xffff) >> 4); });
      }
      look(*found);
      EXPECT_EQ(found->missing(16), 0u);
      EXPECT_EQ(found->states[static_cast<unsigned>(gc::GoState::Fresh)], 16u);
    }
    EXPECT_TRUE(eventually([&] { return sum == 120; }));
  });
}

TEST(GcHook, ADeadGoroutinesClosureIsNoRoot) {
  in_run({1, 1}, [] {
    auto found = std::make_unique<Found>();
    WaitGroup wg;
    for (unsigned i = 0; i < 50; i++) {
      std::uintptr_t w = secret(1000);
      wg.go([w] { EXPECT_EQ(w >> 48, 0x5ec2u); });
      KEEP(w);
    }
    wg.wait();
    // A stack may hold the word still; roots must not.
    ASSERT_TRUE(freeze_in_time());
    gc::each_root(take_root, found.get());
    gc::thaw_world();
    EXPECT_FALSE(found->seen[1000]);
  });
}

TEST(GcHook, ASuspendedGoroutinesStackIsFoundWhileTheOthersRun) {
  for (int procs : {1, 2}) {
    in_run({procs, 1}, [] {
      auto found = std::make_unique<Found>();
      Holders h;
      Chan<int> never = make_chan<int>();
      std::array<std::atomic<std::uint64_t>, 3> ids{};
      WaitGroup wg;
      wg.go([&] { ids[0] = goid(), h.hold(0, [&] { never.recv(); }); });
      wg.go([&] { ids[1] = goid(), h.hold(1, [] { yield(); }); });
      wg.go([&] { ids[2] = goid(), h.hold(2, [] {}); });
      eventually([&] { return h.ready == 3; });
      for (int round = 0; round < scaled(50, 10); round++)
        for (unsigned i = 0; i < 3; i++) {
          ASSERT_TRUE(gc::suspend(ids[i]));
          found->seen.fill(false);
          found->only = ids[i];
          gc::stack_of(ids[i], take_view, found.get());
          found->only = 0;
          EXPECT_TRUE(found->seen[i]) << i;
          gc::resume(ids[i]);
        }
      EXPECT_NE(panic_of([&] { gc::stack_of(ids[1], take_view, found.get()); }), "no panic");
      h.stop = true;
      never.close();
      wg.wait();
    });
  }
}

TEST(GcHook, TheWorldCanBeFrozenWhileOneGoroutineIsSuspended) {
  in_run({2, 1}, [] {
    auto found = std::make_unique<Found>();
    Holders h;
    std::atomic<std::uint64_t> id{0};
    WaitGroup wg;
    wg.go([&] { id = goid(), h.hold(0, [] {}); });
    wg.go([&] { h.hold(1, [] { yield(); }); });
    eventually([&] { return h.ready == 2; });
    const auto began = std::chrono::steady_clock::now();
    for (int round = 0; round < 20; round++) {
      ASSERT_TRUE(gc::suspend(id));
      for (int i = 0; i < 5; i++) {
        look(*found);
        EXPECT_EQ(found->missing(2), 0u);
      }
      gc::resume(id);
    }
    EXPECT_LT(std::chrono::steady_clock::now() - began, 30s);
    h.stop = true;
    wg.wait();
  });
}

TEST(GcHook, AStoppedWorldShowsWhoIsParkedAndSaysWhoMoves) {
  in_run({2, 1}, [] {
    auto found = std::make_unique<Found>();
    Holders h;
    Chan<int> never = make_chan<int>();
    WaitGroup wg;
    wg.go([&] { h.hold(0, [&] { never.recv(); }); });
    wg.go([&] { h.hold(1, [] {}); });
    eventually([&] { return h.ready == 2; });
    std::uintptr_t mine = secret(2);
    KEEP(mine);
    gc::stop_world();
    struct Both {
      Found* f;
      unsigned moving = 0;
    } both{found.get()};
    gc::each_stack(
        [](const gc::StackView& v, void* arg) {
          auto* b = static_cast<Both*>(arg);
          b->moving += v.where == gc::Where::Moving;
          take_view(v, b->f);
        },
        &both);
    gc::start_world();
    KEEP(mine);
    EXPECT_TRUE(found->seen[0]);
    EXPECT_TRUE(found->seen[2]) << "the caller's own";
    EXPECT_EQ(both.moving, 1u);
    h.stop = true;
    never.close();
    wg.wait();
    EXPECT_NE(panic_of([&] { gc::each_stack(take_view, found.get()); }), "no panic");
    EXPECT_NE(panic_of([&] { gc::each_root(take_root, found.get()); }), "no panic");
  });
}

TEST(GcHook, AFreezeNeitherWaitsForASafepointNorIsOne) {
  in_run({2, 1}, [] {
    std::atomic<bool> stop{false};
    WaitGroup wg;
    // One that stops the world all the time, and needs our P for it.
    wg.go([&] {
      while (!stop) {
        gc::stop_world();
        gc::start_world();
      }
    });
    for (int i = 0; i < scaled(500, 60); i++) {
      const pid_t before = thread_now();
      std::uint64_t scratch = 0;
      for (int k = 0; k < 3; k++) {
        ASSERT_TRUE(freeze_in_time());
        scratch++;
        gc::thaw_world();
      }
      EXPECT_EQ(thread_now(), before);
      EXPECT_EQ(scratch, 3u);
      yield();
    }
    stop = true;
    wg.wait();
  });
}

TEST(GcHook, EachGoroutineComesToASafepointOnce) {
  for (int procs : {1, 2, 4}) {
    in_run({procs, 1}, [] {
      static std::array<std::atomic<unsigned>, 64> came;
      for (auto& c : came) c = 0;
      std::atomic<bool> stop{false};
      std::atomic<unsigned> ready{0};
      Chan<int> never = make_chan<int>();
      std::atomic<bool> let_go{false}, in_call{false};
      WaitGroup wg;
      std::array<std::atomic<std::uint64_t>, 5> ids{};
      auto start = [&](unsigned i, auto f) {
        wg.go([&, i, f] {
          ids[i] = goid();
          ready++;
          f();
        });
      };
      start(0, [&] { never.recv(); });
      start(1, [&] { while (!stop) yield(); });
      start(2, [&] { while (!let_go) {} while (!stop) safepoint(); });      // in user code without a P
      start(3, [&] { blocking([&] { for (in_call = true; !let_go;) ::usleep(100); }); never.recv(); });
      start(4, [&] { while (!let_go) {} });                                  // ends without another call
      eventually([&] { return ready == 5 && in_call; });
      const std::size_t missing = gc::at_next_safepoint(
          [](std::uint64_t id, void* first) { came[id - *static_cast<std::uint64_t*>(first)]++; }, [&] {
            static std::uint64_t first;
            first = ids[0];
            for (auto& id : ids) first = std::min<std::uint64_t>(first, id);
            first = std::min<std::uint64_t>(first, goid());
            return &first;
          }());
      EXPECT_GE(missing, 3u);  // one that yields may have been caught outside as well
      EXPECT_GE(gc::safepoints_to_come(), 3u);
      EXPECT_NE(panic_of([] { gc::at_next_safepoint([](std::uint64_t, void*) {}, nullptr); }), "no panic");
      let_go = true;
      EXPECT_TRUE(eventually([] { return gc::safepoints_to_come() == 0; }));
      unsigned all = 0;
      for (auto& c : came) {
        EXPECT_LE(c.load(), 1u);
        all += c;
      }
      EXPECT_EQ(all, 6u);
      stop = true;
      never.close();
      wg.wait();
    });
  }
}

TEST(GcHook, PausesAreCounted) {
  in_run({2, 1}, [] {
    gc::clear_pause_stats();
    for (int i = 0; i < 100; i++) {
      ASSERT_TRUE(freeze_in_time());
      gc::thaw_world();
    }
    ASSERT_TRUE(freeze_in_time());
    const auto until = std::chrono::steady_clock::now() + 5ms;
    while (std::chrono::steady_clock::now() < until) {
    }
    gc::thaw_world();
    const gc::PauseStats s = gc::pause_stats();
    EXPECT_EQ(s.count, 101u);
    EXPECT_GE(s.max_ns, 5'000'000);
    EXPECT_GE(s.total_ns, s.max_ns);
    EXPECT_GT(s.p50_ns, 0);
    EXPECT_LE(s.p50_ns, s.p99_ns);
    EXPECT_LE(s.p99_ns, s.max_ns);
    EXPECT_LE(s.stop_p50_ns, s.p50_ns);
  });
}

TEST(GcHook, NestedStopsAndLateCollectorsArePanics) {
  in_run({2, 1}, [] {
    ASSERT_TRUE(freeze_in_time());
    EXPECT_TRUE(gc::frozen_by_caller());
    EXPECT_NE(panic_of([] { gc::freeze_world(); }), "no panic");
    EXPECT_FALSE(gc::frozen_by_caller()) << "the panic thaws";
    ASSERT_TRUE(freeze_in_time());
    EXPECT_NE(panic_of([] { gc::stop_world(); }), "no panic");
    ASSERT_TRUE(freeze_in_time());
    EXPECT_NE(panic_of([] { gc::suspend(1); }), "no panic");
    ASSERT_TRUE(freeze_in_time());
    EXPECT_NE(panic_of([] { gc::start_world(); }), "no panic");
    EXPECT_FALSE(gc::frozen_by_caller());
    EXPECT_NE(panic_of([] { gc::attach({}); }).find("while a runtime runs"), std::string::npos);
  });
  gc::Collector c;
  c.allocate = [](std::size_t, std::size_t) -> void* { return nullptr; };
  c.release = [](void*) {};
  EXPECT_NE(panic_of([&] { Chan<int> early = make_chan<int>(1); gc::attach(c); }).find("after a channel"), std::string::npos);
  c.release = nullptr;
  EXPECT_NE(panic_of([&] { gc::attach(c); }), "no panic");
}

// A collector of the test's own: counts what it is told, and hands out blocks.
struct Told {
  std::atomic<int> blocks{0}, made{0}, ended{0}, threads_began{0}, threads_ended{0}, users_made{0};
  std::atomic<std::uint64_t> allocated{0};
};
Told told;

TEST(GcHook, ACollectorIsToldOfEveryGoroutineThreadAndBlock) {
  const Child c = child([] {
    gc::Collector collector;
    collector.allocate = [](std::size_t bytes, std::size_t align) {
      told.blocks++;
      told.allocated++;
      return std::aligned_alloc(align < 16 ? 16 : align, (bytes + 63) & ~std::size_t{63});
    };
    collector.release = [](void* p) {
      told.blocks--;
      std::free(p);
    };
    collector.goroutine_made = [](std::uint64_t, std::uint64_t) { told.made++; };
    collector.goroutine_ended = [](std::uint64_t) { told.ended++; };
    collector.thread_began = [](const gc::ThreadView& t) { told.threads_began += t.stack_lo < t.stack_hi && t.signal_stack_lo < t.signal_stack_hi; };
    collector.thread_ends = [](const gc::ThreadView&) { told.threads_ended++; };
    gc::attach(collector);
    set_hooks({.on_create = [](std::uint64_t, std::uint64_t) { told.users_made++; }});
    if (panic_of([&] { gc::attach(collector); }).find("twice") == std::string::npos) return 10;
    auto use_it_all = [] {
      WaitGroup wg;
      struct Large {
        char bytes[5000] = {};
      };
      auto buffered = make_chan<std::string>(8);
      auto boxed = make_chan<Large>(1);
      for (int i = 0; i < 50; i++)
        wg.go([i, large = Large{}, buffered, boxed] {
          buffered.send(std::to_string(i));
          boxed.try_send(large);
          boxed.try_recv();
          buffered.recv();
          blocking([] { ::usleep(100); });
        });
      wg.wait();
      SyncMap<int, int> map;
      for (int i = 0; i < 10; i++) map.store(i, i);
      Pool<int> pool;
      pool.put(1);
      static const ContextKey<int> key{"n"};
      Context ctx = with_value(background(), key, 5);
      auto seven = once_value([] { return 7; });
      if (seven() + await<int>([](Resume<int> done) { done(3); }) != 10) fatal("wrong");
    };
    const Config config{.procs = 2, .use_env = false};
    run(use_it_all, config);
    const int kept = told.blocks;  // by the process: what background() is never done with
    run(use_it_all, config);
    std::fprintf(stderr, "blocks %d of %llu, goroutines %d %d %d, threads %d %d\n", told.blocks.load(),
                 static_cast<unsigned long long>(told.allocated.load()), told.made.load(), told.ended.load(), told.users_made.load(),
                 told.threads_began.load(), told.threads_ended.load());
    if (told.blocks != kept || kept > 1) return 11;
    if (told.allocated < 50 + 2 + 50 + 10 + 4) return 12;  // closures, channels, elements in boxes, nodes of maps and others
    if (told.made != told.ended || told.made != 102 || told.users_made != told.made) return 13;
    if (told.threads_began != told.threads_ended || told.threads_began < 2) return 14;
    return 0;
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 0) << c.report();
}

}  // namespace
}  // namespace weft::test
