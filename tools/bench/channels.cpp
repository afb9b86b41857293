// Workloads of channels and select.
#include <atomic>
#include <optional>
#include <vector>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/select.hpp>
#include <weft/task.hpp>
#include <weft/wait_group.hpp>

#include "tools/bench/bench.hpp"
#include "tools/bench/workloads.hpp"

namespace bench {

// Two goroutines, two unbuffered channels. Op: there and back.
void ping_pong(Bench& b) {
  auto ping = weft::make_chan<Int>(), pong = weft::make_chan<Int>();
  weft::WaitGroup wg;
  wg.go([&] {
    for (Int v : ping) pong.send(v + 1);
  });
  Int wrong = 0;
  b.start();
  for (Int i = 0; i < b.n; i++) {
    ping.send(i);
    if (pong.recv_or() != i + 1) wrong++;
  }
  b.stop();
  ping.close();
  wg.wait();
  b.check(wrong == 0, "%lld of %lld answers wrong", as_ll(wrong), as_ll(b.n));
}

// The same as a scope's function and its child: both could be cancelled at each wait.
void scope_ping_pong(Bench& b) {
  Int wrong = 0;
  weft::scope([&](weft::Scope& s) {
    auto ping = weft::make_chan<Int>(), pong = weft::make_chan<Int>();
    s.spawn([=] {
      for (Int v : ping) pong.send(v + 1);
    });
    b.start();
    for (Int i = 0; i < b.n; i++) {
      ping.send(i);
      if (pong.recv_or() != i + 1) wrong++;
    }
    b.stop();
    ping.close();
  });
  b.check(wrong == 0, "%lld of %lld answers wrong", as_ll(wrong), as_ll(b.n));
}

namespace {

// One producer, one consumer. Op: one value.
void stream(Bench& b, int slots) {
  auto c = weft::make_chan<Int>(slots);
  b.start();
  weft::go([c, n = b.n] {
    for (Int i = 0; i < n; i++) c.send(i);
    c.close();
  });
  Int next = 0, wrong = 0;
  for (Int v : c) {
    if (v != next) wrong++;
    next++;
  }
  b.stop();
  b.check(next == b.n && wrong == 0, "%lld of %lld values, %lld out of order", as_ll(next),
          as_ll(b.n), as_ll(wrong));
}

}  // namespace

void stream0(Bench& b) { stream(b, 0); }
void stream128(Bench& b) { stream(b, 128); }

// Eight producers, eight consumers, 128 slots. Op: one value.
void mpmc(Bench& b) {
  auto c = weft::make_chan<Int>(128);
  weft::WaitGroup producers, consumers;
  std::atomic<Int> sum{0}, count{0};
  b.start();
  for (int i = 0; i < 8; i++) {
    producers.go([&, i] {
      for (Int v = 0, n = share(b.n, 8, i); v < n; v++) c.send(v);
    });
    consumers.go([&] {
      Int my_sum = 0, my_count = 0;
      for (Int v : c) {
        my_sum += v;
        my_count++;
      }
      sum += my_sum;
      count += my_count;
    });
  }
  producers.wait();
  c.close();
  consumers.wait();
  b.stop();
  Int want = 0;
  for (int i = 0; i < 8; i++) {
    Int s = share(b.n, 8, i);
    want += s * (s - 1) / 2;
  }
  b.check(count == b.n, "%lld values, want %lld", as_ll(count), as_ll(b.n));
  b.check(sum == want, "sum %lld, want %lld", as_ll(sum), as_ll(want));
}

// Four producers on unbuffered channels of their own, one consumer. Op: one select.
void select4(Bench& b) {
  weft::Chan<Int> c[4];
  for (auto& each : c) each = weft::make_chan<Int>();
  b.start();
  for (int i = 0; i < 4; i++) {
    weft::go([out = c[i], n = share(b.n, 4, i)] {
      for (Int v = 0; v < n; v++) out.send(v);
    });
  }
  Int next[4] = {};
  Int wrong = 0;
  for (Int k = 0; k < b.n; k++) {
    Int v = -1;
    int i = weft::select(weft::recv(c[0], v), weft::recv(c[1], v), weft::recv(c[2], v),
                         weft::recv(c[3], v));
    if (v != next[i]) wrong++;
    next[i]++;
  }
  b.stop();
  b.check(wrong == 0, "%lld values out of order", as_ll(wrong));
  for (int i = 0; i < 4; i++) {
    b.check(next[i] == share(b.n, 4, i), "%lld values from channel %d, want %lld", as_ll(next[i]),
            i, as_ll(share(b.n, 4, i)));
  }
}

// 503 goroutines pass a token round; it counts down. Op: one hop.
void ring(Bench& b) {
  constexpr int kSize = 503;
  std::vector<weft::Chan<Int>> c(kSize);
  for (auto& each : c) each = weft::make_chan<Int>();
  auto last = weft::make_chan<Int>();
  weft::WaitGroup wg;
  for (int i = 0; i < kSize; i++) {
    wg.go([&, i] {
      weft::Chan<Int>& to = c[static_cast<std::size_t>((i + 1) % kSize)];
      for (Int token : c[static_cast<std::size_t>(i)]) {
        if (token == 0) {
          last.send(i);
        } else {
          to.send(token - 1);
        }
      }
    });
  }
  b.start();
  c[0].send(b.n);
  Int at = last.recv_or();
  b.stop();
  for (auto& each : c) each.close();
  wg.wait();
  b.check(at == b.n % kSize, "the token ended at %lld, want %lld", as_ll(at), as_ll(b.n % kSize));
}

namespace {

weft::RecvChan<Int> numbers(Int limit) {
  auto out = weft::make_chan<Int>();
  weft::go([out, limit] {
    for (Int i = 2; i <= limit; i++) out.send(i);
    out.close();
  });
  return out;
}

weft::RecvChan<Int> filter(const weft::RecvChan<Int>& in, Int prime) {
  auto out = weft::make_chan<Int>();
  weft::go([in, out, prime] {
    for (Int i : in) {
      if (i % prime != 0) out.send(i);
    }
    out.close();
  });
  return out;
}

}  // namespace

// The prime sieve of Hoare's CSP paper: one goroutine per prime. Op: the first 2,000 primes.
void sieve(Bench& b) {
  constexpr Int kLimit = 17'389, kCount = 2'000;
  b.start();
  for (Int k = 0; k < b.n; k++) {
    weft::RecvChan<Int> in = numbers(kLimit);
    Int primes = 0, prime = 0;
    while (std::optional<Int> p = in.recv()) {
      primes++;
      prime = *p;
      in = filter(in, *p);
    }
    b.check(primes == kCount && prime == kLimit, "%lld primes up to %lld", as_ll(primes),
            as_ll(prime));
  }
  b.stop();
  b.report(
      std::chrono::duration<double, std::milli>(b.elapsed()).count() / static_cast<double>(b.n),
      "ms/op");
}

}  // namespace bench
