// Timers: nothing fires early, a stopped one does not fire, and every start ends in one firing or
// one stop.
#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/select.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/stress/stress.hpp"

namespace stress {

namespace {

using namespace std::chrono_literals;

long long micros_early(weft::Time begin, std::chrono::nanoseconds wanted) {
  return static_cast<long long>((wanted - (weft::now() - begin)) / 1us);
}

/// Sleeps of all lengths, in goroutines and plain threads.
void sleeps(Context& c) {
  const int n = c.some_goroutines(2'000), times = c.times(1, 8);
  weft::WaitGroup done;
  std::vector<Thread> threads;
  done.add(n);
  for (int i = 0; i < n; i++) {
    auto body = [&, rng = c.rng.fork()]() mutable {
      for (int k = 0; k < times; k++) {
        std::chrono::nanoseconds nap = rng.micros(5'000);
        weft::Time begin = weft::now();
        if (rng.chance(50)) {
          weft::sleep_for(nap);
        } else {
          weft::sleep_until(begin + nap);
        }
        STRESS_CHECK(weft::now() - begin >= nap, "sleeps: woke %lld us early",
                     micros_early(begin, nap));
        beat();
      }
      done.done();
    };
    if (threads.size() < 8) {
      go_or_thread(c.rng, threads, body);
    } else {
      weft::go(body);
    }
  }
  done.wait();
}

/// after_func timers, stopped and reset from several goroutines while they fire. Each start (the
/// first and every reset) ends in a firing, or is ended by a stop or reset that says so.
void funcs(Context& c) {
  struct Shot {
    std::atomic<int> fired{0}, stopped{0}, started{1};
    weft::Timer timer;
  };
  const int n = c.some_goroutines(200), times = c.times(2, 40);
  std::vector<std::unique_ptr<Shot>> shots;
  for (int i = 0; i < n; i++) {
    auto shot = std::make_unique<Shot>();
    shot->timer = weft::after_func(c.rng.micros(300), [s = shot.get()] {
      s->fired++;
      beat();
    });
    shots.push_back(std::move(shot));
  }
  weft::WaitGroup done;
  for (int w = c.rng.between(1, 4); w > 0; w--) {
    done.go([&, rng = c.rng.fork()]() mutable {
      for (int k = 0; k < times * n / 4; k++) {
        Shot& shot = *shots[rng.below(shots.size())];
        if (rng.chance(50)) {
          if (shot.timer.stop()) shot.stopped++;
        } else {
          shot.started++;
          if (shot.timer.reset(rng.micros(300))) shot.stopped++;
        }
        if (rng.chance(20)) pause(rng);
        beat();
      }
    });
  }
  done.wait();
  for (auto& shot : shots) {
    if (shot->timer.stop()) shot->stopped++;
  }
  // A firing that has begun may still be on its way to its goroutine.
  weft::Time limit = weft::now() + 10s;
  for (auto& shot : shots) {
    while (shot->fired + shot->stopped < shot->started && weft::now() < limit)
      weft::sleep_for(100us);
    STRESS_CHECK(shot->fired + shot->stopped == shot->started,
                 "funcs: a timer was started %d times, fired %d times and was stopped %d times",
                 shot->started.load(), shot->fired.load(), shot->stopped.load());
  }
}

/// Channel timers: after stop and reset nothing older is received.
void channels(Context& c) {
  const int n = c.some_goroutines(300), times = c.times(2, 40);
  weft::WaitGroup done;
  for (int i = 0; i < n; i++) {
    done.go([=, rng = c.rng.fork()]() mutable {
      weft::Timer timer{rng.micros(300)};
      weft::RecvChan<weft::Time> fired = timer.chan();
      for (int k = 0; k < times; k++) {
        if (rng.chance(50)) pause(rng);
        if (rng.chance(30)) {
          timer.stop();
          STRESS_CHECK(!fired.try_recv(), "channels: a stopped timer fired");
          if (rng.chance(30)) {
            STRESS_CHECK(!fired.recv_for(rng.micros(400)), "channels: a stopped timer fired later");
          }
        }
        std::chrono::nanoseconds time = rng.micros(300);
        weft::Time reset_at = weft::now();
        timer.reset(time);
        switch (rng.below(3)) {
          case 0: {
            weft::Time at = fired.recv().value();
            STRESS_CHECK(at - reset_at >= time, "channels: a timer fired %lld us early",
                         static_cast<long long>((time - (at - reset_at)) / 1us));
            STRESS_CHECK(!fired.try_recv(), "channels: a timer fired twice");
            break;
          }
          case 1:
            if (weft::Recv<weft::Time> r = fired.recv_for(rng.micros(300))) {
              STRESS_CHECK(*r.value - reset_at >= time,
                           "channels: a value from before the reset came");
            }
            break;
          default: {
            weft::Time at{};
            if (weft::select(weft::recv(fired, at), weft::timeout(rng.micros(300))) == 0) {
              STRESS_CHECK(at - reset_at >= time, "channels: a value from before the reset came");
            }
          }
        }
        beat();
      }
    });
  }
  done.wait();
}

/// Tickers: not early, in order, and silent after stop.
void tickers(Context& c) {
  const int n = c.some_goroutines(50), times = c.times(2, 20);
  weft::WaitGroup done;
  for (int i = 0; i < n; i++) {
    done.go([=, rng = c.rng.fork()]() mutable {
      std::chrono::nanoseconds period = 50us + rng.micros(2'000);
      weft::Time begin = weft::now(), last = begin;
      weft::Ticker ticker{period};
      for (int k = 1; k <= times; k++) {
        weft::Time at = ticker.chan().recv().value();
        STRESS_CHECK(at - begin >= k * period, "tickers: tick %d came early", k);
        STRESS_CHECK(at > last, "tickers: a tick is older than the one before");
        last = at;
        if (rng.chance(20)) weft::sleep_for(rng.micros(3'000));
        beat();
      }
      if (rng.chance(50)) {
        period = 100us + rng.micros(1'000);
        begin = weft::now();
        ticker.reset(period);
        weft::Time at = ticker.chan().recv().value();
        STRESS_CHECK(at - begin >= period, "tickers: a tick from before the reset came");
      }
      ticker.stop();
      STRESS_CHECK(!ticker.chan().recv_for(rng.micros(1'000)), "tickers: a stopped one ticked");
    });
  }
  done.wait();
}

/// Timed waits that end by time: never before it.
void limits(Context& c) {
  const int n = c.some_goroutines(400), times = c.times(1, 12);
  auto silent = weft::make_chan<int>();
  weft::WaitGroup done;
  std::vector<Thread> threads;
  done.add(n);
  for (int i = 0; i < n; i++) {
    auto body = [&, rng = c.rng.fork()]() mutable {
      for (int k = 0; k < times; k++) {
        std::chrono::nanoseconds time = rng.micros(3'000);
        weft::Time begin = weft::now();
        switch (rng.below(4)) {
          case 0:
            STRESS_CHECK(silent.recv_for(time).status == weft::RecvStatus::Empty,
                         "limits: a value came");
            break;
          case 1: {
            weft::Selector s;
            int value = 0;
            STRESS_CHECK(s.recv(silent, value).wait_for(time) == -1, "limits: a value came");
            break;
          }
          case 2:
            STRESS_CHECK(weft::select(weft::recv(silent), weft::timeout(time)) == 1,
                         "limits: a value came");
            break;
          default:
            STRESS_CHECK(weft::after(time).recv().has_value(), "limits: after() was closed");
        }
        STRESS_CHECK(weft::now() - begin >= time, "limits: a wait ended %lld us early",
                     micros_early(begin, time));
        beat();
      }
      done.done();
    };
    if (threads.size() < 8) {
      go_or_thread(c.rng, threads, body);
    } else {
      weft::go(body);
    }
  }
  done.wait();
}

/// Timers made and dropped without ever being received from, beside one that must still come.
void dropped(Context& c) {
  const int n = c.times(100, 5'000);
  std::atomic<int> ran{0};
  weft::Timer last = weft::after_func(20ms, [&] { ran += 1'000'000; });
  for (int i = 0; i < n; i++) {
    switch (c.rng.below(3)) {
      case 0:
        (void)weft::after(c.rng.micros(2'000));
        break;
      case 1: {
        weft::Timer t{1h};
        if (c.rng.chance(50))
          STRESS_CHECK(t.stop(), "dropped: a timer of an hour could not be stopped");
        break;
      }
      default:
        weft::after_func(c.rng.micros(1'000), [&] { ran++; });
        ran--;  // each of these adds the one that is taken here
    }
    if (c.rng.chance(2)) pause(c.rng);
    if (i % 64 == 0) beat(64);
  }
  weft::Time limit = weft::now() + 10s;
  while (ran != 1'000'000 && weft::now() < limit) weft::sleep_for(200us);
  STRESS_CHECK(ran == 1'000'000, "dropped: of the functions of dropped timers %d are missing",
               1'000'000 - ran.load());
}

constexpr Scenario kScenarios[] = {
    {"sleeps", sleeps},   {"funcs", funcs},   {"channels", channels},
    {"tickers", tickers}, {"limits", limits}, {"dropped", dropped},
};

}  // namespace

std::span<const Scenario> timer_scenarios() { return kScenarios; }

}  // namespace stress
