// Workloads of starting, yielding, parking and ending goroutines, and of one lock between them.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <random>
#include <vector>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/mutex.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/bench/bench.hpp"
#include "tools/bench/workloads.hpp"

namespace bench {

// Two goroutines that only yield. Op: one yield.
void yield(Bench& b) {
  weft::WaitGroup wg;
  Int done[2] = {};
  b.start();
  for (int i = 0; i < 2; i++) {
    wg.go([&, i] {
      Int count = 0;
      for (Int k = share(b.n, 2, i); k > 0; k--) {
        weft::yield();
        count++;
      }
      done[i] = count;
    });
  }
  wg.wait();
  b.stop();
  b.check(done[0] + done[1] == b.n, "%lld yields, want %lld", as_ll(done[0] + done[1]), as_ll(b.n));
}

// All goroutines are started before the first is waited for. Op: one goroutine.
void spawn(Bench& b) {
  std::vector<unsigned char> ran(static_cast<std::size_t>(b.n));
  weft::WaitGroup wg;
  b.start();
  for (unsigned char& times : ran) wg.go([&times] { times++; });
  wg.wait();
  b.stop();
  for (std::size_t i = 0; i < ran.size(); i++)
    b.check(ran[i] == 1, "goroutine %zu ran %d times", i, ran[i]);
}

// One goroutine at a time. Op: start it and wait for its end.
void spawn_join(Bench& b) {
  Int ran = 0;
  weft::WaitGroup wg;
  b.start();
  for (Int i = 0; i < b.n; i++) {
    wg.go([&] { ran++; });
    wg.wait();
  }
  b.stop();
  b.check(ran == b.n, "%lld goroutines ran, want %lld", as_ll(ran), as_ll(b.n));
}

namespace {

void skynet_node(const weft::Chan<Int>& out, Int first, Int size) {
  if (size == 1) {
    out.send(first);
    return;
  }
  auto c = weft::make_chan<Int>();
  Int part = size / 10;
  for (Int i = 0; i < 10; i++) weft::go(skynet_node, c, first + i * part, part);
  Int sum = 0;
  for (int i = 0; i < 10; i++) sum += c.recv_or();
  out.send(sum);
}

Int fib(int n) {
  if (n < 2) return n;
  Int x = 0, y = 0;
  weft::WaitGroup wg;
  wg.go([&x, n] { x = fib(n - 1); });
  wg.go([&y, n] { y = fib(n - 2); });
  wg.wait();
  return x + y;
}

// Starts b.n goroutines that wait for a gate, times that, calls f while all of them wait, and lets
// them go.
template <class F>
void park_all(Bench& b, weft::Stack stack, F f) {
  auto gate = weft::make_chan<void>();
  weft::WaitGroup parked, done;
  std::atomic<Int> passed{0};
  parked.add(static_cast<int>(b.n));
  done.add(static_cast<int>(b.n));
  const weft::Spawn kind{.stack = stack};
  const bool plain = stack == weft::Stack::Growable;
  b.start();
  for (Int i = 0; i < b.n; i++) {
    auto body = [&] {
      parked.done();
      gate.recv();
      passed.fetch_add(1, std::memory_order_relaxed);
      done.done();
    };
    if (plain)
      weft::go(body);
    else
      weft::go(kind, body);
  }
  parked.wait();
  b.stop();
  f();
  b.check(passed == 0, "%lld goroutines passed a closed gate", as_ll(passed));
  gate.close();
  done.wait();
  b.check(passed == b.n, "%lld goroutines passed the gate, want %lld", as_ll(passed), as_ll(b.n));
}

}  // namespace

// A tree of goroutines, ten children each, that adds up its leaves' numbers. Op: one leaf.
void skynet(Bench& b) {
  auto c = weft::make_chan<Int>();
  b.start();
  weft::go(skynet_node, c, Int{0}, b.n);
  Int sum = c.recv_or();
  b.stop();
  Int want = b.n * (b.n - 1) / 2;
  b.check(sum == want, "sum %lld, want %lld", as_ll(sum), as_ll(want));
}

// fib(27), each call in a goroutine of its own. Op: one goroutine.
void fib27(Bench& b) {
  Int result = 0;
  weft::WaitGroup wg;
  b.start();
  wg.go([&] { result = fib(27); });
  wg.wait();
  b.stop();
  b.check(result == 196'418, "fib(27) = %lld", as_ll(result));
}

// 100,000 goroutines, all parked at once. Op: start one and let it park.
void start_park(Bench& b) {
  park_all(b, weft::Stack::Growable, [] {});
}

// A million parked goroutines and what they weigh. Op: start one and let it park.
namespace {

void parked_on(Bench& b, weft::Stack stack, std::chrono::seconds weighed_after = {}) {
  std::optional<Int> before = resident_bytes();
  park_all(b, stack, [&] {
    if (weighed_after.count() != 0) weft::sleep_for(weighed_after);
    std::optional<Int> after = resident_bytes();
    b.check(before && after, "/proc/self/status has no VmRSS or VmPTE");
    if (before && after)
      b.report(static_cast<double>(*after - *before) / static_cast<double>(b.n), "bytes/G");
  });
}

// A ring in an order that nothing predicts: each channel, descriptor and stack lies anywhere and is cold when its turn comes. Op: one hop.
void random_ring_on(Bench& b, weft::Stack stack) {
  constexpr std::size_t kSize = 100'000;
  std::vector<std::size_t> order(kSize);
  for (std::size_t i = 0; i < kSize; i++) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(b.seed));
  std::vector<weft::Chan<Int>> c(kSize);
  for (auto& each : c) each = weft::make_chan<Int>();
  auto last = weft::make_chan<Int>();
  weft::WaitGroup parked, done;
  parked.add(kSize);
  done.add(kSize);
  std::vector<std::size_t> next(kSize);
  for (std::size_t k = 0; k < kSize; k++) next[order[k]] = order[(k + 1) % kSize];
  for (std::size_t i = 0; i < kSize; i++)
    weft::go(weft::Spawn{.stack = stack}, [&parked, &done, last, from = c[i], to = c[next[i]]] {
      parked.done();
      for (Int token : from) {
        if (token == 0)
          last.send(0);
        else
          to.send(token - 1);
      }
      done.done();
    });
  parked.wait();
  b.start();
  c[order[0]].send(b.n);
  const Int at = last.recv_or(1);
  b.stop();
  for (auto& each : c) each.close();
  done.wait();
  b.check(at == 0, "the token was lost");
}

// 100,000 are parked, and woken in an order that nothing predicts, 64 at a time, each to park again. Op: one of them woken, resumed, parked.
void random_wake_on(Bench& b, weft::Stack stack) {
  constexpr std::size_t kSize = 100'000, kAtOnce = 64;
  std::vector<std::size_t> order(kSize);
  for (std::size_t i = 0; i < kSize; i++) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(b.seed));
  std::vector<weft::Chan<Int>> c(kSize);
  for (auto& each : c) each = weft::make_chan<Int>();
  std::vector<Int> got(kSize);
  weft::WaitGroup parked, done;
  parked.add(kSize);
  done.add(kSize);
  for (std::size_t i = 0; i < kSize; i++)
    weft::go(weft::Spawn{.stack = stack}, [&parked, &done, from = c[i], &mine = got[i]] {
      parked.done();
      for (Int x : from) mine += x;
      done.done();
    });
  parked.wait();
  b.start();
  for (Int sent = 0; sent < b.n;) {
    for (std::size_t k = 0; k < kAtOnce && sent < b.n; k++, sent++) c[order[static_cast<std::size_t>(sent) % kSize]].send(1);
    weft::yield();
  }
  b.stop();
  for (auto& each : c) each.close();
  done.wait();
  Int all = 0;
  for (Int n : got) all += n;
  b.check(all == b.n, "%lld values of %lld arrived", as_ll(all), as_ll(b.n));
}

// All sleep at once. Op: one sleeper; what the process took at most.
void sleepers_peak_on(Bench& b, weft::Stack stack) {
  weft::WaitGroup done;
  done.add(static_cast<int>(b.n));
  b.start();
  for (Int i = 0; i < b.n; i++)
    weft::go(weft::Spawn{.stack = stack}, [&done] {
      weft::sleep_for(std::chrono::seconds(10));
      done.done();
    });
  done.wait();
  b.stop();
  std::optional<Int> peak = peak_bytes();
  b.check(peak.has_value(), "/proc/self/status has no VmHWM");
  if (peak) b.report(static_cast<double>(*peak), "peak-bytes");
}

}  // namespace

void parked(Bench& b) { parked_on(b, weft::Stack::Growable); }
void parked_copyable(Bench& b) { parked_on(b, weft::Stack::Copyable); }
void parked_hibernated(Bench& b) { parked_on(b, weft::Stack::Growable, std::chrono::seconds(3)); }
void random_wake(Bench& b) { random_wake_on(b, weft::Stack::Growable); }
void random_wake_copyable(Bench& b) { random_wake_on(b, weft::Stack::Copyable); }
void random_ring(Bench& b) { random_ring_on(b, weft::Stack::Growable); }
void random_ring_copyable(Bench& b) { random_ring_on(b, weft::Stack::Copyable); }
void sleepers_peak_copyable(Bench& b) { sleepers_peak_on(b, weft::Stack::Copyable); }
void sleepers_peak_hibernated(Bench& b) { sleepers_peak_on(b, weft::Stack::Growable); }

// Eight goroutines and one mutex around an addition. Op: lock and unlock.
void mutex8(Bench& b) {
  weft::Mutex mu;
  weft::WaitGroup wg;
  Int count = 0;
  b.start();
  for (int i = 0; i < 8; i++) {
    wg.go([&, i] {
      for (Int k = share(b.n, 8, i); k > 0; k--) {
        std::lock_guard lock{mu};
        count++;
      }
    });
  }
  wg.wait();
  b.stop();
  b.check(count == b.n, "count %lld, want %lld", as_ll(count), as_ll(b.n));
}

}  // namespace bench
