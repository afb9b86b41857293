// Goroutines whose stack grows by segments: this suite is built with -fsplit-stack, as a user's code is that wants
// them.
#include <alloca.h>
#include <immintrin.h>

#include <csetjmp>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <regex>
#include <stdexcept>
#include <vector>

#include "tests/segmented/deep.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(Segments, OneOf100MiBBesideTenThousandSmallOnes) {
  constexpr int kSmall = scaled(10'000, 500);
  constexpr std::size_t kDeep = scaled(std::size_t{100}, std::size_t{20}) * kMiB;
  for (const Machine& m : {kMachines[0], kMachines[1]})
    in_run(m, [&] {
      auto gate = make_chan<void>();
      WaitGroup parked, ended;
      const std::size_t before = resident_bytes();
      for (int i = 0; i < kSmall; i++) {
        parked.add(1);
        ended.add(1);
        go(kSegmented, [&, gate] {
          parked.done();
          (void)gate.recv();
          ended.done();
        });
      }
      parked.wait();
      const std::size_t each = (resident_bytes() - before) / kSmall;
      if (!kTsan) {
        EXPECT_LT(each, 7000u) << "bytes of a parked one";
      }
      EXPECT_EQ(segments_now(), 0u) << "who does not go deep has its first segment only";
      on_segments([&] {
        std::size_t bytes = 0;
        auto at_the_bottom = [&] {
          bytes = rt::first_segment(rt::current_g())->bytes;
          EXPECT_GT(segments_now(), 20u);
          return std::uint64_t{7};
        };
        const std::size_t levels = kDeep / 1024;
        EXPECT_EQ(deep(levels, at_the_bottom), levels + 7);
        EXPECT_GE(bytes, kDeep);
        EXPECT_LT(bytes, kDeep + kDeep / 4);
        EXPECT_LE(segments_now(), 1u) << "one stays at hand, the others go back";
      });
      gate.close();
      ended.wait();
      EXPECT_TRUE(settle(1, kPatience));
      EXPECT_EQ(segments_now(), 0u);
    });
}

TEST(Segments, MemoryOfADeepRecursionGoesBackWhenItReturns) {
  if (kTsan) GTEST_SKIP() << "a sanitizer's shadow outweighs the stacks";
  in_run(kMachines[0], [] {
    if (capabilities().guard == "hole") GTEST_SKIP() << "a page of such a stack that is gone would be a guard";
    on_segments([] {
      std::size_t at_bottom = 0;
      auto look = [&] {
        at_bottom = resident_bytes();
        return std::uint64_t{0};
      };
      const std::size_t before = resident_bytes();
      deep(64 * 1024, look);
      EXPECT_GT(at_bottom, before + 60 * kMiB);
      EXPECT_LT(resident_bytes(), before + 8 * kMiB);
    });
  });
}

[[gnu::always_inline]] inline std::uintptr_t word_here() {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  return rt::segment_at(rt::current_g(), here)->guard;
}

TEST(Segments, ParksAtTheBottomAndGoesOnElsewhere) {
  each_run([] {
    auto ping = make_chan<int>();
    auto pong = make_chan<int>();
    WaitGroup wg;
    for (int i = 0; i < 4; i++)
      wg.add(1), go(kSegmented, [&, i] {
        int n = 0;
        auto talk = [&] {
          for (int k = 0; k < 200; k++) {
            ping.send(i);
            n += *pong.recv();
            EXPECT_EQ(arch::guard_word(), word_here());
            sleep_for(k % 50 == 0 ? 1us : 0us);
          }
          return std::uint64_t{1};
        };
        EXPECT_EQ(deep(static_cast<std::size_t>(2000 + 300 * i), talk), static_cast<std::uint64_t>(2001 + 300 * i));
        EXPECT_EQ(n, 200);
        wg.done();
      });
    for (int k = 0; k < 800; k++) {
      (void)ping.recv();
      EXPECT_EQ(arch::guard_word(), 0u) << "a growable one never asks";
      pong.send(1);
    }
    wg.wait();
  });
}

TEST(Segments, SwitchesBetweenSegmentedAndGrowableByTheMillion) {
  each_run([] {
    constexpr int kTrips = scaled(500'000, 20'000);
    auto c = make_chan<int>();
    auto d = make_chan<int>();
    go([=] {
      for (int v : c) d.send(v + 1);
    });
    on_segments([&] {
      int v = 0;
      for (int i = 0; i < kTrips; i++) {
        c.send(v);
        v = *d.recv();
      }
      EXPECT_EQ(v, kTrips);
    });
    c.close();
  });
}

struct Counted {
  explicit Counted(int* n) : n_(n) {}
  ~Counted() { ++*n_; }
  int* n_;
};

[[gnu::noinline]] void throws_below(int n, int* destroyed) {
  Counted c(destroyed);
  volatile char frame[4096];
  frame[0] = static_cast<char>(n);
  if (n == 0) throw std::runtime_error("from below");
  throws_below(n - 1, destroyed);
  frame[1] = frame[0];
}

TEST(Segments, ExceptionsCrossThem) {
  each_run([] {
    WaitGroup wg;
    for (int i = 0; i < 8; i++)
      wg.add(1), go(kSegmented, [&] {
        for (int round = 0; round < 3; round++) {
          int destroyed = 0;
          try {
            throws_below(500, &destroyed);
            ADD_FAILURE();
          } catch (const std::runtime_error& e) {
            EXPECT_STREQ(e.what(), "from below");
            EXPECT_EQ(destroyed, 501);
            EXPECT_LE(rt::segments_in_use(), 8u * 9u);
            // The guard word is right again: as deep once more, from inside a handler, before and after having been
            // elsewhere.
            EXPECT_EQ(arch::guard_word(), word_here());
            auto one = [] { return std::uint64_t{1}; };
            EXPECT_EQ(deep(1500, one), 1501u);
            sleep_for(10us);
            EXPECT_EQ(deep(1500, one), 1501u);
            EXPECT_EQ(std::uncaught_exceptions(), 0);
            EXPECT_STREQ(e.what(), "from below");
          }
        }
        wg.done();
      });
    wg.wait();
  });
}

TEST(Segments, GoexitAndTheEndOfARuntimeUnwindThem) {
  std::atomic<int> destroyed{0};
  struct Tells {
    std::atomic<int>* n;
    ~Tells() { ++*n; }
  };
  each_runtime([&] {
    auto exits = [&]() -> std::uint64_t {
      Tells t{&destroyed};
      goexit();
    };
    auto parks = [&] {
      Tells t{&destroyed};
      (void)make_chan<int>().recv();
      return std::uint64_t{0};
    };
    go(kSegmented, [=]() mutable { deep(3000, exits); });
    go_parked("chan receive", [] { (void)make_chan<int>().recv(); });
    auto id = std::make_shared<std::atomic<uint64_t>>(0);
    go(kSegmented, [=]() mutable {
      *id = goid();
      deep(3000, parks);
    });
    eventually([&] { return id->load() != 0; });
    until_parked(id->load());
  });
  EXPECT_EQ(destroyed.load(), 2 * static_cast<int>(std::size(kMachines)));
  EXPECT_EQ(segments_now(), 0u);
}

// ---- what the compiler's code relies on -----------------------------------------------------------------------------

[[gnu::noinline]] int varied(int n, const char* format, ...) {
  va_list a;
  va_start(a, format);
  long long sum = 0;
  for (int i = 0; i < n; i++) sum += va_arg(a, long long);
  double d = va_arg(a, double);
  char text[64];
  std::snprintf(text, sizeof text, format, sum, d);
  va_end(a);
  return std::atoi(text);
}

struct Big {
  long long v[12];
};
[[gnu::noinline]] Big many_arguments(int a, int b, int c, int d, int e, int f, long long g, Big h, double x, double y) {
  volatile char frame[2048];
  frame[7] = 1;
  Big r = h;
  r.v[0] += a + b + c + d + e + f + g + frame[7];
  r.v[1] = static_cast<long long>(x * y);
  return r;
}

__attribute__((target("avx2"), noinline)) __m256i vectors(__m256i a, __m256i b) {
  volatile char frame[2048];
  frame[3] = 0;
  return _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_set1_epi64x(frame[3]));
}

// Calls nothing that does not ask, for which the linker would demand 16 KiB here and `vectors` would always find room.
// The call that moves is the first that needs one of the large segments: they are made then, with vector registers.
__attribute__((target("avx2"), noinline)) std::uint64_t vectors_at_the_edge(std::size_t n, int* wrong) {
  volatile char pad[336];
  pad[n % 336] = 1;
  __m256i a = _mm256_set_epi64x(1, 2, 3, 4), b = _mm256_set_epi64x(10, 20, 30, 40);
  asm volatile("" : "+x"(a), "+x"(b));
  const __m256i v = vectors(a, b);
  alignas(32) long long out[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), v);
  if (out[0] != 44 || out[1] != 33 || out[2] != 22 || out[3] != 11) ++*wrong;
  return n == 0 ? 0 : vectors_at_the_edge(n - 1, wrong) + static_cast<std::uint64_t>(pad[n % 336]);
}

// Every call below begins at another distance from the guard, so that each of them is the one that moves in some round.
[[gnu::noinline]] std::uint64_t calls_at_the_edge(std::size_t n, int* wrong) {
  volatile char pad[336];
  pad[n % 336] = 1;
  if (varied(3, "%lld %f", 1LL, 2LL, 3LL, 0.5) != 6) ++*wrong;
  if (varied(9, "%lld %f", 1LL, 2LL, 3LL, 4LL, 5LL, 6LL, 7LL, 8LL, 9LL, 0.5) != 45) ++*wrong;
  Big h{};
  h.v[11] = 11;
  const Big r = many_arguments(1, 2, 3, 4, 5, 6, 7, h, 2.5, 4.0);
  if (r.v[0] != 29 || r.v[1] != 10 || r.v[11] != 11) ++*wrong;
  return n == 0 ? 0 : calls_at_the_edge(n - 1, wrong) + static_cast<std::uint64_t>(pad[n % 336]);
}

TEST(Segments, ArgumentsResultsAndVectorsSurviveAMoveAtAnyCall) {
  in_run(kMachines[1], [] {
    on_segments([] {
      for (int shift = 0; shift < 24; shift++) {
        // One segment is at hand in every round but the first: both ways of moving.
        auto* pad = static_cast<volatile char*>(alloca(static_cast<std::size_t>(shift) * 32 + 16));
        pad[0] = 1;
        int wrong = 0;
        if (__builtin_cpu_supports("avx2")) {
          EXPECT_EQ(vectors_at_the_edge(3000, &wrong), 3000u);
        }
        EXPECT_EQ(calls_at_the_edge(3000, &wrong), 3000u);
        EXPECT_EQ(wrong, 0);
      }
    });
  });
}

[[gnu::noinline]] long double of_long_double(int n) {
  volatile char frame[3000];
  frame[1] = 0;
  frame[0] = static_cast<char>(n);
  return n == 0 ? 1.0L : of_long_double(n - 1) + 1.0L + frame[1] * 0.0L;
}

TEST(Segments, LongDoublesReturnThroughThem) {
  in_run(kMachines[0], [] { on_segments([] { EXPECT_EQ(of_long_double(2000), 2001.0L); }); });
}

TEST(Segments, ErrnoIsKeptThoughTheKernelRefusesThemSomething) {
  const Child c = child(
      [] {
        int wrong = 0;
        run([&] {
          on_segments([&] {
            auto look = [] { return std::uint64_t(errno == 4711); };
            errno = 4711;
            if (deep(5000, look) != 5001 || errno != 4711) wrong++;
            if (rt::fault_hits(rt::Call::Madvise) == 0) wrong += 2;
          });
        });
        return wrong;
      },
      {.env = {"WEFT_GUARD=mprotect", "WEFT_FAULT=madvise:1-:EINVAL"}});
  EXPECT_EQ(c.status, 0) << c.report();
}

[[gnu::noinline]] std::uint64_t array_of(std::size_t n) {
  volatile char a[n];
  for (std::size_t i = 0; i < n; i += 512) a[i] = static_cast<char>(i >> 9);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < n; i += 512) sum += static_cast<unsigned char>(a[i]);
  return sum;
}

TEST(Segments, ArraysThatDoNotFitComeFromTheHeapAndGoBack) {
  in_run(kMachines[0], [] {
    on_segments([] {
      const auto* first = rt::first_segment(rt::current_g());
      const std::size_t before = first->bytes;
      std::uint64_t expected = 0;
      for (std::size_t i = 0; i < kMiB; i += 512) expected += (i >> 9) & 255;
      EXPECT_EQ(array_of(kMiB), expected);
      EXPECT_GT(first->bytes, before + kMiB);
      auto one = [&] { return array_of(2 * kMiB); };
      EXPECT_EQ(deep(2000, one), 2000 + 2 * expected);
      auto more = [&] { return array_of(100); };
      deep(10, more);
      // One in this function's caller's segment may be left until it ends; those that lay in segments are gone.
      EXPECT_LT(first->bytes, before + 2 * kMiB);
    });
  });
}

// ---- code that does not ask -----------------------------------------------------------------------------------------

int by_value_deep(const void* a, const void* b) {
  auto one = [] { return std::uint64_t{1}; };
  if (deep(300, one) != 301) std::abort();
  return *static_cast<const int*>(a) - *static_cast<const int*>(b);
}

TEST(Segments, LibcAndItsCallbacksRunDeepInside) {
  each_run([] {
    on_segments([] {
      auto calls = [] {
        char text[512];
        std::snprintf(text, sizeof text, "%.200f %Lf %s", 1e10, 3.5L, "end");
        if (std::strlen(text) < 200) return std::uint64_t{0};
        std::vector<int> v(300);
        std::iota(v.rbegin(), v.rend(), 0);
        std::qsort(v.data(), v.size(), sizeof v[0], by_value_deep);
        if (v[0] != 0 || v[299] != 299) return std::uint64_t{0};
        const std::string as(3000, 'a');
        if (!std::regex_match(as, std::regex("(a|b)*"))) return std::uint64_t{0};
        try {
          (void)std::stoi("none");
        } catch (const std::invalid_argument&) {
          return std::uint64_t{1};
        }
        return std::uint64_t{0};
      };
      for (std::size_t n : {0u, 60u, 140u, 150u, 160u, 1000u, 4001u}) EXPECT_EQ(deep(n, calls), n + 1);
    });
  });
}

std::jmp_buf back;
[[gnu::noinline]] void jumps_from(std::size_t n) {
  volatile char frame[1024];
  frame[0] = 1;
  if (frame[0] == 0) return;
  if (n == 0) std::longjmp(back, 1);
  jumps_from(n - 1);
  frame[1] = frame[0];
}

TEST(Segments, AfterALongjmpOutOfThemTheNextSwitchMendsAll) {
  in_run(kMachines[0], [] {
    on_segments([] {
      static int i;
      for (i = 0; i < 3; i++) {
        if (setjmp(back) == 0) jumps_from(3000);
        WaitGroup wg;
        wg.go([] {});  // there is one P: it runs when this one parks
        wg.wait();
        auto one = [] { return std::uint64_t{1}; };
        EXPECT_EQ(deep(2000, one), 2001u);
      }
    });
  });
}

// ---- the rest of the runtime ----------------------------------------------------------------------------------------

TEST(Segments, SelectTimersLocksAndBlockingCallsWorkInside) {
  each_run([] {
    Mutex mu;
    int counter = 0;
    auto c = make_chan<int>();
    WaitGroup wg;
    for (int i = 0; i < 8; i++)
      wg.add(1), go(kSegmented, [&] {
        auto work = [&] {
          WaitGroup own;  // on the stack, in a segment that others reach into
          own.go([&] {
            std::lock_guard l(mu);
            counter++;
          });
          own.wait();
          std::uint64_t sum = 0;
          Timer t{1ms};
          (void)t.chan().recv();
          const auto add = [&](std::optional<int> v) { sum += static_cast<std::uint64_t>(*v); };
          const int which = select(recv(c, add), timeout(30s));
          sum += which == 0;
          sum += blocking([&] {
            auto two = [] { return std::uint64_t{2}; };
            return deep(500, two) - 500;
          });
          scope([&](Scope& s) {
            auto a = s.spawn([] { return 1; });
            sum += static_cast<std::uint64_t>(a.get());
          });
          sum += func<std::uint64_t>([&](Frame<std::uint64_t>& f) {
            f.defer([&] { f.result = f.recover() ? 1 : 0; });
            int n = 0;
            throws_below(100, &n);
          });
          return sum;
        };
        EXPECT_EQ(deep(2000, work), 2000u + 5 + 1 + 2 + 1 + 1);
        wg.done();
      });
    for (int i = 0; i < 8; i++) c.send(5);
    wg.wait();
    EXPECT_EQ(counter, 8);
  });
}

TEST(Segments, LockedToTheThreadAndOnTheHostsThread) {
  in_run(kMachines[1], [] {
    on_segments([] {
      lock_os_thread();
      const pid_t mine = thread_now();
      auto talk = [&] {
        for (int i = 0; i < 20; i++) {
          yield();
          sleep_for(10us);
          if (thread_now() != mine) return std::uint64_t{0};
        }
        return std::uint64_t{1};
      };
      EXPECT_EQ(deep(1500, talk), 1501u);
      unlock_os_thread();
      EXPECT_EQ(deep(1500, talk) > 0, true);
    });
  });
  Runtime rt{{.procs = 2}};
  ASSERT_FALSE(rt.start());
  std::uint64_t got = 0;
  rt.go({.stack = Stack::Segmented, .main_thread = true}, [&] {
    auto yields = [] {
      yield();
      return std::uint64_t{1};
    };
    got = deep(1500, yields);
  });
  eventually([&] {
    rt.run_main_pending();
    return num_goroutines() == 0;
  });
  EXPECT_EQ(got, 1501u);
  EXPECT_EQ(arch::guard_word(), 0u);
  auto one = [] { return std::uint64_t{1}; };
  EXPECT_EQ(deep(1000, one), 1001u) << "on the plain thread";
}

TEST(Segments, OverrunsInASegmentLoseTheirPAndComeBack) {
  in_run(kMachines[0], [] {
    std::atomic<bool> stop{false};
    auto done = make_chan<int>(2);
    for (int i = 0; i < 2; i++)
      go(kSegmented, [&] {
        auto hog = [&] {
          auto one = [] { return std::uint64_t{1}; };
          while (!stop.load(std::memory_order_relaxed))
            if (deep(400, one) != 401) return std::uint64_t{0};
          return std::uint64_t{1};
        };
        done.send(static_cast<int>(deep(700, hog) - 700));
      });
    for (int i = 0; i < 10; i++) sleep_for(1ms);
    stop = true;
    EXPECT_EQ(*done.recv(), 1);
    EXPECT_EQ(*done.recv(), 1);
  });
}

TEST(Segments, TryGoRestartAndTheirOwnErrors) {
  for (int i = 0; i < 3; i++)
    in_run(kMachines[1], [] {
      auto c = make_chan<std::uint64_t>();
      EXPECT_TRUE(try_go(kSegmented, [=] {
        auto one = [] { return std::uint64_t{1}; };
        c.send(deep(4000, one));
      }));
      EXPECT_EQ(*c.recv(), 4001u);
    });
  EXPECT_EQ(segments_now(), 0u);
  EXPECT_EQ(capabilities().segmented, "on");
}

}  // namespace
}  // namespace weft::test
