// Workloads of timers and timeouts.
#include <atomic>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/select.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/bench/bench.hpp"
#include "tools/bench/workloads.hpp"

namespace bench {

using namespace std::chrono_literals;

// PingPong while a timer is pending, as in a program with timeouts. Op: there and back.
void ping_pong_timer(Bench& b) {
  std::atomic<bool> fired{false};
  weft::Timer t = weft::after_func(1h, [&] { fired = true; });
  ping_pong(b);
  b.check(t.stop() && !fired, "the pending timer was lost");
}

// A request whose answer is awaited with a timeout that never passes. Op: request, arm, answer,
// disarm.
void select_timeout(Bench& b) {
  auto ask = weft::make_chan<Int>(), answer = weft::make_chan<Int>();
  weft::WaitGroup wg;
  wg.go([&] {
    for (Int v : ask) answer.send(v + 1);
  });
  Int wrong = 0, late = 0;
  b.start();
  for (Int i = 0; i < b.n; i++) {
    ask.send(i);
    Int v = 0;
    if (weft::select(weft::recv(answer, v), weft::timeout(1h)) == 1) {
      late++;
    } else if (v != i + 1) {
      wrong++;
    }
  }
  b.stop();
  ask.close();
  wg.wait();
  b.check(wrong == 0 && late == 0, "%lld wrong answers, %lld timeouts", as_ll(wrong), as_ll(late));
}

// Goroutines that each sleep 1-10 ms once. Op: one sleeper. Every 16th checks its watch.
void sleepers(Bench& b) {
  weft::WaitGroup wg;
  std::atomic<Int> awake{0}, early{0};
  Random random(b.seed);
  b.start();
  for (Int i = 0; i < b.n; i++) {
    auto d = 1ms + std::chrono::nanoseconds(random.next() % 9'000'000);
    if (i % 16 != 0) {
      wg.go([&, d] {
        weft::sleep_for(d);
        awake.fetch_add(1, std::memory_order_relaxed);
      });
      continue;
    }
    wg.go([&, d] {
      auto began = std::chrono::steady_clock::now();
      weft::sleep_for(d);
      if (std::chrono::steady_clock::now() - began < d)
        early.fetch_add(1, std::memory_order_relaxed);
      awake.fetch_add(1, std::memory_order_relaxed);
    });
  }
  wg.wait();
  b.stop();
  b.check(awake == b.n, "%lld woke up, want %lld", as_ll(awake), as_ll(b.n));
  b.check(early == 0, "%lld woke up early", as_ll(early));
}

// A timer that is stopped before it fires. Op: start and stop.
void timer_stop(Bench& b) {
  Int stopped = 0;
  b.start();
  for (Int i = 0; i < b.n; i++) {
    weft::Timer t{1h};
    if (t.stop()) stopped++;
  }
  b.stop();
  b.check(stopped == b.n, "%lld timers stopped, want %lld", as_ll(stopped), as_ll(b.n));
}

}  // namespace bench
