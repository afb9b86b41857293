// Workloads of what blocks or hogs a thread: system calls, code without safepoints, stopping the world.
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include <weft/blocking.hpp>
#include <weft/chan.hpp>
#include <weft/gc_hook.hpp>
#include <weft/go.hpp>
#include <weft/runtime.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/bench/bench.hpp"
#include "tools/bench/workloads.hpp"

namespace bench {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using std::chrono::steady_clock;

namespace {

// The value below which `part` of them lie.
double quantile(std::vector<nanoseconds>& values, double part) {
  std::sort(values.begin(), values.end());
  const auto at = static_cast<std::size_t>(part * static_cast<double>(values.size()));
  return static_cast<double>(values[std::min(at, values.size() - 1)].count());
}

}  // namespace

// A system call that does nothing, through the runtime's enter and exit. Op: one call. The same calls without the runtime are
// timed in between: what is over them, in the median block, is what the runtime takes.
void syscall_region(Bench& b) {
  constexpr Int kBlock = 500;
  nanoseconds with{0};
  std::vector<nanoseconds> over;  // of a whole block
  Int wrong = 0;
  const long pid = ::getpid();
  for (Int done = 0; done < b.n; done += kBlock) {
    const Int some = std::min(kBlock, b.n - done);
    const auto t0 = steady_clock::now();
    for (Int i = 0; i < some; i++) wrong += ::syscall(SYS_getpid) != pid;
    const auto t1 = steady_clock::now();
    for (Int i = 0; i < some; i++) {
      weft::SyscallRegion r;
      wrong += ::syscall(SYS_getpid) != pid;
    }
    const auto t2 = steady_clock::now();
    with += t2 - t1;
    if (some == kBlock) over.push_back((t2 - t1) - (t1 - t0));
  }
  b.set_elapsed(with);
  if (!over.empty()) b.report(quantile(over, 0.5) / kBlock, "over-ns/op");
  b.check(wrong == 0, "%lld calls told another pid", as_ll(wrong));
}

namespace {

// 16 goroutines in calls that block for `length`, as a disk or a foreign library would. Op: one call.
void block(Bench& b, nanoseconds length) {
  constexpr Int kCallers = 16;
  weft::WaitGroup wg;
  std::atomic<Int> done{0}, failed{0};
  b.start();
  for (Int g = 0; g < kCallers; g++)
    wg.go([&, calls = share(b.n, kCallers, g)] {
      for (Int i = 0; i < calls; i++) {
        timespec t{0, static_cast<long>(length.count())};
        weft::SyscallRegion r;
        int e;
        while ((e = ::nanosleep(&t, &t)) != 0 && errno == EINTR) {  // a runtime may signal its threads
        }
        if (e == 0)
          done.fetch_add(1, std::memory_order_relaxed);
        else
          failed.fetch_add(1, std::memory_order_relaxed);
      }
    });
  wg.wait();
  b.stop();
  b.report(static_cast<double>(b.n) * 1e9 / static_cast<double>(b.elapsed().count()), "calls/s");
  b.check(done == b.n && failed == 0, "%lld calls, want %lld", as_ll(done), as_ll(b.n));
}

// What the thread has computed so far.
nanoseconds thread_cpu() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + nanoseconds(t.tv_nsec);
}

}  // namespace

// Eight that compute, with a safepoint every 100 us or so, beside eight in calls of 100 us. Op: a microsecond of computing, as if the
// Ps had done nothing else: 1,000 ns are perfect. call-ns: what a call takes from one to the next, for the slowest of the eight.
void block_beside(Bench& b) {
  constexpr Int kEach = 8;
  constexpr auto kWork = 300ms;  // CPU time of each that computes
  constexpr auto kChunk = 100us;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> sum{0};
  std::atomic<Int> computed{0};
  std::vector<Int> calls(kEach);
  weft::WaitGroup computing, blocking;
  b.start();
  const auto began = steady_clock::now();
  for (Int g = 0; g < kEach; g++) {
    blocking.go([&, g] {
      while (!stop.load(std::memory_order_relaxed)) {
        timespec t{0, 100'000};
        weft::SyscallRegion r;
        ::nanosleep(&t, nullptr);
        calls[static_cast<std::size_t>(g)]++;
      }
    });
    computing.go([&] {
      std::uint64_t x = 1;
      for (nanoseconds mine{0}; mine < kWork;) {
        const nanoseconds from = thread_cpu();
        nanoseconds chunk{0};
        while (chunk < kChunk) {
          for (int i = 0; i < 10'000; i++) x = x * 6364136223846793005u + 1442695040888963407u;
          chunk = thread_cpu() - from;
        }
        mine += chunk;
        computed.fetch_add(chunk.count(), std::memory_order_relaxed);
        weft::safepoint();
      }
      sum += x;
    });
  }
  computing.wait();
  const nanoseconds wall = steady_clock::now() - began;
  stop = true;
  blocking.wait();
  b.stop();
  const Int least = *std::min_element(calls.begin(), calls.end());
  const int cpus = std::min<int>(weft::procs(), static_cast<int>(std::thread::hardware_concurrency()));
  b.set_elapsed(nanoseconds(wall.count() * cpus * 1000 / computed.load() * b.n));
  b.report(static_cast<double>(wall.count()) / static_cast<double>(std::max<Int>(least, 1)), "call-ns");
  b.check(least > 0, "one that blocks made no call");
  b.check(sum != 0, "nothing was computed");
}

namespace {

// ---- hogs ----------------------------------------------------------------------------------------------------------

// A hog ends when it is told to, and when it has kept the sleeper from waking for this long: then nobody may ever tell it.
constexpr nanoseconds kHogLimit = 2s;

struct Hogs {
  std::atomic<bool> stop{false};
  std::atomic<bool> gave_up{false};
  std::atomic<steady_clock::time_point> woke{steady_clock::now()};
  std::atomic<std::uint64_t> sum{0};
  bool over() {
    if (stop.load(std::memory_order_relaxed)) return true;
    if (steady_clock::now() - woke.load(std::memory_order_relaxed) < kHogLimit) return false;
    gave_up = true;
    return true;
  }
};

// About a millisecond each between two looks at the flag, without a call of the runtime.
void loop_hog(Hogs& h) {
  std::uint64_t x = 1;
  while (!h.over())
    for (int i = 0; i < 1'000'000; i++) x = x * 6364136223846793005u + 1442695040888963407u;
  h.sum += x;
}

void strlen_hog(Hogs& h) {
  const std::string text(16 << 20, 'x');
  while (!h.over()) h.sum += std::strlen(text.c_str());
}

void malloc_hog(Hogs& h) {
  while (!h.over())
    for (std::size_t i = 0; i < 20'000; i++) {
      void* volatile p = std::malloc(16 + i % 1000);
      h.sum.fetch_add(p != nullptr, std::memory_order_relaxed);
      std::free(p);
    }
}

void regex_hog(Hogs& h) {
  const std::regex re("([a-z]+)([0-9]+)-(x|y)*z");
  const std::string text(500, 'q');
  while (!h.over())
    for (int i = 0; i < 4; i++) h.sum += std::regex_search(text, re) ? 1 : 0;
}

// Somebody who sleeps for 1 ms again and again beside `k` who never pass a safepoint. ns/op: how late half of the sleeps are at most.
void hogs(Bench& b, int k, void (*hog)(Hogs&)) {
  Hogs h;
  weft::WaitGroup wg;
  for (int i = 0; i < k; i++) wg.go([&h, hog] { hog(h); });
  std::vector<nanoseconds> late;
  Int early = 0;
  for (Int i = 0; i < b.n; i++) {
    const auto before = steady_clock::now();
    weft::sleep_for(1ms);
    h.woke = steady_clock::now();
    late.push_back(h.woke.load() - before - 1ms);
    if (late.back() < 0ns) early++;
  }
  h.stop = true;
  wg.wait();
  const double first = static_cast<double>(late.front().count());
  if (h.gave_up) late.assign(late.size(), kHogLimit);  // what came after it was beside nobody
  const double p50 = quantile(late, 0.50);
  b.set_elapsed(nanoseconds(static_cast<Int>(p50) * b.n));
  b.report(quantile(late, 0.99), "p99-ns");
  b.report(first, "first-ns");
  b.check(early == 0, "%lld sleeps were short", as_ll(early));
  b.check(h.sum != 0 || hog == regex_hog, "a hog did nothing");
}

}  // namespace

void block_50us(Bench& b) { block(b, 50us); }
void block_200us(Bench& b) { block(b, 200us); }
void block_900us(Bench& b) { block(b, 900us); }

void hogs_loop_1(Bench& b) { hogs(b, 1, loop_hog); }
void hogs_loop_8(Bench& b) { hogs(b, 8, loop_hog); }
void hogs_strlen_1(Bench& b) { hogs(b, 1, strlen_hog); }
void hogs_strlen_8(Bench& b) { hogs(b, 8, strlen_hog); }
void hogs_malloc_1(Bench& b) { hogs(b, 1, malloc_hog); }
void hogs_malloc_8(Bench& b) { hogs(b, 8, malloc_hog); }
void hogs_regex_1(Bench& b) { hogs(b, 1, regex_hog); }
void hogs_regex_8(Bench& b) { hogs(b, 8, regex_hog); }

// The number of Ps changes, for which all of them have to stop, while 10,000 goroutines are parked and as many as there are Ps
// compute, with a safepoint every few microseconds. ns/op: what half of the changes take at most.
// The world frozen at any instruction, by a goroutine, beside 10,000 parked ones and hogs that are nearly always inside malloc.
void freeze_world(Bench& b) {
  constexpr int kParked = 10'000;
  constexpr int kHogs = 4;
  auto gate = weft::make_chan<void>();
  std::atomic<bool> stop{false};
  weft::WaitGroup parked, all;
  parked.add(kParked);
  for (int i = 0; i < kParked; i++)
    all.go([&parked, gate] {
      parked.done();
      (void)gate.recv();
    });
  parked.wait();
  for (int i = 0; i < kHogs; i++)
    all.go([&stop, i] {
      while (!stop.load(std::memory_order_relaxed)) std::free(std::malloc(static_cast<std::size_t>(16 + 100 * i)));
    });
  std::vector<nanoseconds> took;
  Int refused = 0;
  weft::sleep_for(std::chrono::milliseconds(30));  // until the hogs have lost their Ps
  for (Int i = 0; i < b.n; i++) {
    const auto before = steady_clock::now();
    refused += !weft::gc::freeze_world();
    const auto after = steady_clock::now();
    if (weft::gc::frozen_by_caller()) weft::gc::thaw_world();
    took.push_back(after - before);
    weft::sleep_for(std::chrono::microseconds(500));
  }
  stop = true;
  gate.close();
  all.wait();
  b.set_elapsed(nanoseconds(static_cast<Int>(quantile(took, 0.50)) * b.n));
  b.report(quantile(took, 0.99), "p99-ns");
  b.check(refused == 0, "%lld freezes were refused", as_ll(refused));
}

void stop_world(Bench& b) {
  constexpr int kParked = 10'000;
  const int usual = weft::procs();
  auto gate = weft::make_chan<void>();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> sum{0};
  weft::WaitGroup parked, all;
  parked.add(kParked);
  for (int i = 0; i < kParked; i++)
    all.go([&parked, gate] {
      parked.done();
      (void)gate.recv();
    });
  parked.wait();
  for (int i = 0; i < usual; i++)
    all.go([&] {
      std::uint64_t x = 1;
      while (!stop.load(std::memory_order_relaxed)) {
        for (int j = 0; j < 5'000; j++) x = x * 6364136223846793005u + 1442695040888963407u;
        weft::safepoint();
      }
      sum += x;
    });
  std::vector<nanoseconds> took;
  Int wrong = 0;
  for (Int i = 0; i < b.n; i++) {
    const int from = usual + static_cast<int>(i % 2), to = usual + static_cast<int>((i + 1) % 2);
    const auto before = steady_clock::now();
    wrong += weft::set_procs(to) != from;
    took.push_back(steady_clock::now() - before);
    weft::yield();
  }
  weft::set_procs(usual);
  stop = true;
  gate.close();
  all.wait();
  b.set_elapsed(nanoseconds(static_cast<Int>(quantile(took, 0.50)) * b.n));
  b.report(quantile(took, 0.99), "p99-ns");
  b.check(wrong == 0, "%lld changes told another number than the one before set", as_ll(wrong));
}

}  // namespace bench
