// What others see of a segmented stack: collectors, dumps, reports of overflows.
#include <weft/dump.hpp>
#include <weft/gc_hook.hpp>

#include <set>
#include <string>
#include <vector>

#include "tests/segmented/deep.hpp"
#include "tests/segmented/unsplit.hpp"

namespace weft::test {

// Reports name them, so not in an anonymous namespace.
[[gnu::noinline]] std::uint64_t outermost_of_all(std::size_t n, void (*f)());
[[gnu::noinline]] std::uint64_t one_level(std::size_t n, void (*f)()) {
  volatile char frame[16 << 10];
  frame[0] = static_cast<char>(n);
  if (n == 0)
    f();
  else
    one_level(n - 1, f);
  return static_cast<std::uint64_t>(frame[0]);
}
[[gnu::noinline]] std::uint64_t outermost_of_all(std::size_t n, void (*f)()) {
  const std::uint64_t got = one_level(n, f) + 1;
  asm volatile("" ::"r"(got));
  return got;
}

[[gnu::noinline]] std::uint64_t recurses_for_ever(std::uint64_t n) {
  volatile char frame[512];
  frame[0] = static_cast<char>(n);
  if (n == ~std::uint64_t{0}) return 0;
  return recurses_for_ever(n + 1) + static_cast<std::uint64_t>(frame[0]);
}

namespace {

using namespace std::chrono_literals;

// ---- a collector ----------------------------------------------------------------------------------------------------

// What a live word looks like: hidden from the searcher by the key.
constexpr std::uintptr_t kKey = 0x5a5a'0000'dead'0000;
constexpr std::size_t kLevels = 1500;

struct Found {
  std::uint64_t goid = 0;
  unsigned pieces = 0;
  std::uintptr_t base = 0;
  std::vector<bool> seen = std::vector<bool>(kLevels + 1);
};

__attribute__((no_sanitize("thread", "address"))) void look_through(const gc::StackView& v, void* arg) {
  auto* found = static_cast<Found*>(arg);
  if (v.words != gc::Words::Goroutine || v.goid != found->goid) return;
  if (v.kind == gc::StackKind::Segmented && v.lo != v.hi) found->pieces++;
  for (auto* p = static_cast<const volatile std::uintptr_t*>(v.lo); p < v.hi; p++)
    if (const std::uintptr_t level = *p - found->base; level <= kLevels) found->seen[level] = true;
  for (auto* p = static_cast<const volatile std::uintptr_t*>(v.registers_lo); p < v.registers_hi; p++)
    if (const std::uintptr_t level = *p - found->base; level <= kLevels) found->seen[level] = true;
}

std::size_t seen(const Found& found) {
  std::size_t n = 0;
  for (const bool s : found.seen) n += s;
  return n;
}

// Each level has one marked word on its frame.
template <class F>
[[gnu::noinline]] std::uintptr_t marks(std::uintptr_t base, std::size_t n, F& f) {
  volatile std::uintptr_t frame[128];
  frame[n % 128] = base + n;
  std::uintptr_t got = 0;
  if (n == 0)
    f();
  else
    got = marks(base, n - 1, f);
  return got + frame[n % 128];
}

std::uintptr_t base_for(std::uint64_t goid) { return kKey ^ (static_cast<std::uintptr_t>(goid) << 20); }

TEST(SegmentsSeen, EveryWordOfAParkedOneIsFoundInEachPiece) {
  in_run(kMachines[1], [] {
    auto gate = make_chan<void>();
    std::atomic<std::uint64_t> id{0};
    go(kSegmented, [&] {
      id = goid();
      auto parks = [&] { (void)gate.recv(); };
      marks(base_for(goid()), kLevels, parks);
    });
    ASSERT_TRUE(eventually([&] { return id.load() != 0; }));
    ASSERT_TRUE(until_parked(id));
    for (const bool freeze : {false, true}) {
      Found found{.goid = id, .base = base_for(id)};
      if (freeze) {
        ASSERT_TRUE(gc::freeze_world());
      } else {
        gc::stop_world();
      }
      gc::each_stack(look_through, &found);
      if (freeze) {
        gc::thaw_world();
      } else {
        gc::start_world();
      }
      EXPECT_GE(found.pieces, 4u);
      EXPECT_EQ(seen(found), kLevels + 1);
    }
    gate.close();
  });
}

TEST(SegmentsSeen, OfOneThatRunsWhateverInstructionItIsAt) {
  in_run(kMachines[1], [] {
    std::atomic<std::uint64_t> id{0};
    std::atomic<bool> stop{false}, deep_enough{false};
    auto ended = make_chan<void>();
    go(kSegmented, [&] {
      id = goid();
      auto works = [&] {
        deep_enough = true;
        // Across a boundary and back, again and again, so that it is stopped in the midst of that.
        auto one = [] { return std::uint64_t{1}; };
        while (!stop.load(std::memory_order_relaxed)) deep(260, one);
      };
      marks(base_for(goid()), kLevels, works);
      ended.send();
    });
    ASSERT_TRUE(eventually([&] { return deep_enough.load(); }));
    for (int i = 0; i < scaled(300, 30); i++) {
      Found found{.goid = id, .base = base_for(id)};
      const bool by_suspension = i % 3 == 0;
      if (by_suspension) {
        ASSERT_TRUE(gc::suspend(id));
        gc::stack_of(id, look_through, &found);
        gc::resume(id);
      } else {
        ASSERT_TRUE(gc::freeze_world());
        gc::each_stack(look_through, &found);
        gc::thaw_world();
      }
      ASSERT_GE(found.pieces, 4u) << i;
      ASSERT_EQ(seen(found), kLevels + 1) << i;
      if (i % 50 == 0) yield();
    }
    stop = true;
    (void)ended.recv();
  });
}

TEST(SegmentsSeen, ByItselfInItsOwnFreeze) {
  in_run(kMachines[1], [] {
    on_segments([] {
      const std::uint64_t id = goid();
      Found found{.goid = id, .base = base_for(id)};
      auto looks = [&] {
        ASSERT_TRUE(gc::freeze_world());
        gc::each_stack(look_through, &found);
        gc::thaw_world();
      };
      marks(base_for(id), kLevels, looks);
      EXPECT_GE(found.pieces, 4u);
      EXPECT_EQ(seen(found), kLevels + 1);
    });
  });
}

TEST(SegmentsSeen, WordsInArraysOnTheHeapAreFound) {
  in_run(kMachines[1], [] {
    auto gate = make_chan<void>();
    std::atomic<std::uint64_t> id{0};
    go(kSegmented, [&] {
      const std::size_t n = (1 << 20) / sizeof(std::uintptr_t);
      volatile std::uintptr_t a[n];
      for (std::size_t i = 0; i <= kLevels; i++) a[i * 8] = base_for(goid()) + i;
      id = goid();
      (void)gate.recv();
      EXPECT_EQ(a[8], base_for(goid()) + 1);
    });
    ASSERT_TRUE(eventually([&] { return id.load() != 0; }));
    ASSERT_TRUE(until_parked(id));
    Found found{.goid = id, .base = base_for(id)};
    ASSERT_TRUE(gc::freeze_world());
    gc::each_stack(look_through, &found);
    gc::thaw_world();
    EXPECT_EQ(seen(found), kLevels + 1);
    gate.close();
  });
}

// ---- dumps ----------------------------------------------------------------------------------------------------------

void parks_for_a_dump() {
  std::fputs(dump_goroutines().c_str(), stderr);
}

TEST(SegmentsSeen, ATracebackGoesThroughAllOfThem) {
  const Child c = child([] {
    run([] {
      auto gate = make_chan<void>();
      go({.name = "goes deep", .stack = Stack::Segmented}, [gate] {
        static Chan<void> g;
        g = gate;
        outermost_of_all(60, [] { (void)g.recv(); });
      });
      go({.name = "dumps", .stack = Stack::Segmented}, [gate] {
        sleep_for(50ms);
        outermost_of_all(60, parks_for_a_dump);
        gate.close();
      });
      settle(1, 30s);
    });
  });
  EXPECT_EQ(c.status, 0) << c.report();
  for (const char* name : {"goes deep", "dumps"}) {
    const std::string g = c.goroutine(name);
    int levels = 0;
    for (std::size_t at = 0; (at = g.find("one_level(", at)) != std::string::npos; at++) levels++;
    EXPECT_EQ(levels, 61) << g << c.report();
    EXPECT_NE(g.find("outermost_of_all("), std::string::npos) << g;
    EXPECT_EQ(g.find("morestack"), std::string::npos) << g;
  }
}

// ---- ends -----------------------------------------------------------------------------------------------------------

TEST(SegmentsEnd, BeyondTheLimitIsGosOverflow) {
  const Child c = child([] {
    run([] {
      go({.name = "deep", .stack = Stack::Segmented, .stack_bytes = 20 << 20}, [] { recurses_for_ever(0); });
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("runtime: goroutine stack exceeds 20971520-byte limit\nfatal error: stack overflow\n"))
      << c.report();
  EXPECT_TRUE(c.says("\"deep\" [running]: segmented stack of 2")) << c.report();
  EXPECT_TRUE(c.says(" segments, the first [0x")) << c.report();
  EXPECT_TRUE(c.says("to give it more: weft::go({.stack = weft::Stack::Segmented, .stack_bytes = 41943040}"))
      << c.report();
  EXPECT_TRUE(c.says("recurses_for_ever(")) << c.report();
  EXPECT_TRUE(c.says("frames elided...")) << c.report();
  EXPECT_TRUE(c.says("created by ")) << c.report();
  EXPECT_EQ(c.count("fatal error: "), 1) << c.report();
}

TEST(SegmentsEnd, TheLimitIsAGibibyteUnlessSaidOtherwise) {
  in_run(kMachines[0], [] {
    on_segments([] { EXPECT_EQ(rt::first_segment(rt::current_g())->limit, std::size_t{1} << 30); });
  });
}

TEST(SegmentsEnd, AFrameLargerThanTheLimitIsAnOverflow) {
  const Child c = child([] {
    run([] {
      go({.name = "wide", .stack = Stack::Segmented, .stack_bytes = 4 << 20}, [] {
        volatile char frame[8 << 20];
        frame[0] = 1;
        std::printf("%d", frame[0]);
      });
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: stack overflow")) << c.report();
  EXPECT_TRUE(c.says("\"wide\"")) << c.report();
  EXPECT_EQ(c.out, "");
}

TEST(SegmentsEnd, RefusedMemoryIsSaid) {
  const Child c = child([] {
    run(
        [] {
          go({.name = "deep", .stack = Stack::Segmented}, [] { recurses_for_ever(0); });
          (void)make_chan<int>().recv();
        },
        {.stacks_bytes_max = 64 << 20});
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("fatal error: out of memory: no segment for ")) << c.report();
  EXPECT_TRUE(c.says("\"deep\" [running]: segmented stack of ")) << c.report();
  EXPECT_TRUE(c.says("recurses_for_ever(")) << c.report();
  EXPECT_EQ(c.count("fatal error: "), 1) << c.report();
}

TEST(SegmentsEnd, CodeThatDoesNotAskHasRoomAndIsReportedAtItsEnd) {
  in_run(kMachines[0], [] {
    on_segments([] {
      // At every distance from the guard.
      auto room = [] { return static_cast<std::uint64_t>(takes(76 << 10) == 76 << 10); };
      for (std::size_t n = 0; n < 240; n += 3) ASSERT_EQ(deep(n, room), n + 1);
    });
  });
  const Child c = child([] {
    run([] {
      go({.name = "does not ask", .stack = Stack::Segmented},
         [] { outermost_of_all(30, [] { recurses_without_asking(1); }); });
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("-byte limit of a segment\nfatal error: stack overflow\n")) << c.report();
  EXPECT_TRUE(c.says("\"does not ask\" [running]: segmented stack of ")) << c.report();
  EXPECT_TRUE(c.says("code that is not built with -fsplit-stack does not ask for more")) << c.report();
  EXPECT_TRUE(c.says("weft::Stack::Growable, .stack_bytes = ")) << c.report();
  EXPECT_TRUE(c.says("recurses_without_asking(")) << c.report();
  EXPECT_TRUE(c.says("outermost_of_all(")) << c.report();
}

TEST(SegmentsEnd, GrowableOnesInSuchAProgramOverflowAsEver) {
  const Child c = child([] {
    run([] {
      go({.name = "grows"}, [] { recurses_for_ever(0); });
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("goroutine stack exceeds 262144-byte limit\nfatal error: stack overflow")) << c.report();
  EXPECT_TRUE(c.says("\"grows\" [running]: growable stack [")) << c.report();
}

TEST(SegmentsEnd, AnUncaughtExceptionShowsWhereItWasThrown) {
  const Child c = child([] {
    run([] {
      go({.name = "throws", .stack = Stack::Segmented}, [] { outermost_of_all(50, [] { panic("from far below"); }); });
      (void)make_chan<int>().recv();
    });
  });
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_TRUE(c.says("panic: from far below")) << c.report();
  EXPECT_TRUE(c.says("outermost_of_all(")) << c.report();
  EXPECT_EQ(c.count("one_level("), 51) << c.report();
}

}  // namespace
}  // namespace weft::test
