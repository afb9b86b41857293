// Workloads of the sync types and of contexts.
#include <mutex>
#include <shared_mutex>
#include <vector>

#include <weft/cond.hpp>
#include <weft/context.hpp>
#include <weft/err_group.hpp>
#include <weft/mutex.hpp>
#include <weft/once.hpp>
#include <weft/rw_mutex.hpp>
#include <weft/semaphore.hpp>
#include <weft/wait_group.hpp>

#include "tools/bench/bench.hpp"
#include "tools/bench/workloads.hpp"

namespace bench {

// Nobody else wants the lock. Op: lock and unlock.
void mutex1(Bench& b) {
  weft::Mutex mu;
  Int count = 0;
  b.start();
  for (Int k = b.n; k > 0; k--) {
    std::lock_guard lock{mu};
    asm volatile("" : "+r"(count));
    count++;
  }
  b.stop();
  b.check(count == b.n, "count %lld, want %lld", as_ll(count), as_ll(b.n));
}

// Eight readers of one lock. Op: read lock and unlock.
void rw_read(Bench& b) {
  weft::RwMutex mu;
  weft::WaitGroup wg;
  Int shared = 1, sum[8] = {};
  b.start();
  for (int i = 0; i < 8; i++) {
    wg.go([&, i] {
      Int mine = 0;
      for (Int k = share(b.n, 8, i); k > 0; k--) {
        std::shared_lock lock{mu};
        mine += *static_cast<volatile Int*>(&shared);
      }
      sum[i] = mine;
    });
  }
  wg.wait();
  b.stop();
  Int all = 0;
  for (Int s : sum) all += s;
  b.check(all == b.n, "%lld reads, want %lld", as_ll(all), as_ll(b.n));
}

// Two goroutines that take turns under one Cond. Op: there and back.
void cond_ping_pong(Bench& b) {
  weft::Mutex mu;
  weft::Cond cv;
  weft::WaitGroup wg;
  Int turn = 0;
  b.start();
  for (int me = 0; me < 2; me++) {
    wg.go([&, me] {
      std::unique_lock lock{mu};
      for (Int k = b.n; k > 0; k--) {
        while (turn % 2 != me) cv.wait(lock);
        turn++;
        cv.notify_one();
      }
    });
  }
  wg.wait();
  b.stop();
  b.check(turn == 2 * b.n, "%lld turns, want %lld", as_ll(turn), as_ll(2 * b.n));
}

// A thousand goroutines, started and waited for. Op: all of them.
void fork_join(Bench& b) {
  constexpr int kWidth = 1000;
  std::vector<Int> ran(kWidth);
  b.start();
  for (Int k = b.n; k > 0; k--) {
    weft::WaitGroup wg;
    for (Int& times : ran) wg.go([&times] { times++; });
    wg.wait();
  }
  b.stop();
  for (Int times : ran) b.check(times == b.n, "a goroutine ran %lld times, want %lld", as_ll(times), as_ll(b.n));
}

// A Once that is done. Op: one call.
void once_fast(Bench& b) {
  weft::Once once;
  Int ran = 0;
  const auto f = [&] { ran++; };
  once.call(f);
  b.start();
  for (Int k = b.n; k > 0; k--) {
    once.call(f);
    asm volatile("" ::: "memory");
  }
  b.stop();
  b.check(ran == 1, "the function ran %lld times", as_ll(ran));
}

// Children of one context, made and then ended by its cancel. Op: one child.
void context_cancel(Bench& b) {
  std::vector<weft::CancelContext> children;
  children.reserve(static_cast<std::size_t>(b.n));
  b.start();
  auto [root, cancel] = weft::with_cancel(weft::background());
  for (Int i = 0; i < b.n; i++) children.push_back(weft::with_cancel(root));
  cancel();
  b.stop();
  for (auto& c : children) b.check(c.ctx.err() == weft::Errc::canceled, "a child is not done");
}

// Functions of one ErrGroup. Op: one function.
void err_group(Bench& b) {
  std::vector<unsigned char> ran(static_cast<std::size_t>(b.n));
  b.start();
  weft::ErrGroup g{weft::background()};
  for (unsigned char& times : ran) {
    g.go([&times]() -> std::error_code {
      times++;
      return {};
    });
  }
  const std::error_code e = g.wait();
  b.stop();
  b.check(!e, "an error came from nowhere");
  for (unsigned char times : ran) b.check(times == 1, "a function ran %d times", times);
}

// Eight goroutines, four permits. Op: acquire and release one.
void semaphore8(Bench& b) {
  weft::Semaphore sem{4};
  weft::WaitGroup wg;
  Int done[8] = {};
  b.start();
  for (int i = 0; i < 8; i++) {
    wg.go([&, i] {
      Int count = 0;
      for (Int k = share(b.n, 8, i); k > 0; k--) {
        (void)sem.acquire(weft::background(), 1);
        count++;
        sem.release(1);
      }
      done[i] = count;
    });
  }
  wg.wait();
  b.stop();
  Int all = 0;
  for (Int d : done) all += d;
  b.check(all == b.n && sem.try_acquire(4), "%lld turns, want %lld", as_ll(all), as_ll(b.n));
}

}  // namespace bench
