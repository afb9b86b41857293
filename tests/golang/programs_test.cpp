// Small programs made of goroutines and channels, each with a result that is known.
#include <array>
#include <functional>
#include <numeric>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

TEST(Programs, ManyConsumersKeepSumAndCount) {  // 22
  each_run([] {
    constexpr int kWorkers = 23;
    constexpr int64_t kItems = scaled(271828, 20000);
    const std::array<int, 9> primes{2, 3, 7, 11, 13, 17, 19, 23, 27};
    Chan<int64_t> todo = make_chan<int64_t>(kWorkers * 3);
    Chan<int64_t> done = make_chan<int64_t>(kWorkers * 3);
    WaitGroup workers;
    for (int w = 0; w < kWorkers; w++)
      workers.go([&, w] {
        for (int64_t v : todo) {
          // Keep the workers out of step.
          if (primes[static_cast<size_t>(w) % primes.size()] == static_cast<int>(v % 29)) yield();
          done.send(v);
        }
      });
    int64_t expected = 0;
    go([&] {
      for (int64_t i = 0; i < kItems; i++) {
        expected += i * 7 % 1001;
        todo.send(i * 7 % 1001);
      }
      todo.close();
      workers.wait();
      done.close();
    });
    int64_t n = 0, sum = 0;
    for (int64_t v : done) {
      n++;
      sum += v;
    }
    EXPECT_EQ(n, kItems);
    EXPECT_EQ(sum, expected);
  });
}

TEST(Programs, ChainOfTenThousandStartsAndStops) {  // 33
  each_run([] {
    constexpr int kLinks = scaled(10000, 1500);
    Chan<int> leftmost = make_chan<int>();
    Chan<int> right = leftmost;
    for (int i = 0; i < kLinks; i++) {
      Chan<int> left = right;
      right = make_chan<int>();
      go([left, right] { left.send(1 + right.recv_or()); });
    }
    go([right] { right.send(0); });
    EXPECT_EQ(leftmost.recv(), kLinks);
    EXPECT_TRUE(settle(1, 30s));
  });
}

TEST(Programs, SieveFindsThePrimesToAHundred) {  // 34
  for (int cap : {0, 1, 16})
    each_runtime([cap] {
      Chan<int> numbers = make_chan<int>(cap);
      go([=] {
        for (int i = 2;; i++) numbers.send(i);
      });
      std::vector<int> primes;
      Chan<int> in = numbers;
      for (;;) {
        const int prime = in.recv_or();
        if (prime > 100) break;
        primes.push_back(prime);
        Chan<int> out = make_chan<int>(cap);
        go([=] {
          for (int v : in)
            if (v % prime != 0) out.send(v);
        });
        in = out;
      }
      EXPECT_EQ(primes, (std::vector<int>{2,  3,  5,  7,  11, 13, 17, 19, 23, 29, 31, 37, 41,
                                          43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97}));
    });
}

// Power series whose coefficients are computed on demand, each stream a goroutine: a coefficient is
// sent only after it was asked for, and a stream with two readers is split by a goroutine that
// selects on both requests.
struct Rational {
  int64_t num = 0, den = 1;
  Rational() = default;
  Rational(int64_t n, int64_t d = 1) {
    const int64_t g = std::gcd(n, d);
    num = n / g;
    den = d / g;
    if (den < 0) {
      num = -num;
      den = -den;
    }
  }
  friend Rational operator+(Rational a, Rational b) {
    return {a.num * b.den + b.num * a.den, a.den * b.den};
  }
  friend Rational operator*(Rational a, Rational b) { return {a.num * b.num, a.den * b.den}; }
  bool operator==(const Rational&) const = default;
};

struct Series {
  Chan<void> ask = make_chan<void>();
  Chan<Rational> answer = make_chan<Rational>();
  // Null when the stream has been given up.
  std::optional<Rational> next() const {
    if (select(send(ask), recv(quit)) == 1) return std::nullopt;
    Rational r;
    if (select(recv(answer, r), recv(quit)) == 1) return std::nullopt;
    return r;
  }
  // Called by the producing side: waits to be asked, then answers. False when given up.
  bool put(Rational r) const {
    if (select(recv(ask), recv(quit)) == 1) return false;
    return select(send(answer, r), recv(quit)) == 0;
  }
  Chan<void> quit;
};

class Algebra {
 public:
  Series stream() const {
    Series s;
    s.quit = quit_;
    return s;
  }
  Series from(std::function<Rational(int)> coefficient) const {
    Series s = stream();
    go([s, coefficient] {
      for (int i = 0; s.put(coefficient(i)); i++) {
      }
    });
    return s;
  }
  // Two readers of one stream, either of which may run ahead.
  std::pair<Series, Series> split(Series in) const {
    const Series a = stream(), b = stream();
    go([=, quit = quit_] {
      std::vector<Rational> seen;
      size_t at[2] = {0, 0};
      for (;;) {
        const int who = select(recv(a.ask), recv(b.ask), recv(quit));
        if (who == 2) return;
        size_t& i = at[who];
        if (i == seen.size()) {
          const std::optional<Rational> r = in.next();
          if (!r) return;
          seen.push_back(*r);
        }
        if (select(send(who == 0 ? a.answer : b.answer, seen[i++]), recv(quit)) == 1) return;
      }
    });
    return {a, b};
  }
  Series add(Series x, Series y) const {
    Series s = stream();
    go([=] {
      for (;;) {
        const auto a = x.next(), b = y.next();
        if (!a || !b || !s.put(*a + *b)) return;
      }
    });
    return s;
  }
  // x * y by the convolution of what has been seen of both.
  Series multiply(Series x, Series y) const {
    Series s = stream();
    go([=] {
      std::vector<Rational> a, b;
      for (;;) {
        const auto p = x.next(), q = y.next();
        if (!p || !q) return;
        a.push_back(*p);
        b.push_back(*q);
        Rational sum;
        for (size_t i = 0; i < a.size(); i++) sum = sum + a[i] * b[a.size() - 1 - i];
        if (!s.put(sum)) return;
      }
    });
    return s;
  }
  Series integrate(Series x, Rational first) const {
    Series s = stream();
    go([=] {
      if (!s.put(first)) return;
      for (int i = 1;; i++) {
        const auto a = x.next();
        if (!a || !s.put(*a * Rational(1, i))) return;
      }
    });
    return s;
  }
  void give_up() const { quit_.close(); }

 private:
  Chan<void> quit_ = make_chan<void>();
};

TEST(Programs, DemandDrivenPowerSeries) {  // 34
  each_run([] {
    const Algebra alg;
    constexpr int kTerms = 10;
    // 1/(1-x)^2 = sum (i+1) x^i
    const Series ones = alg.from([](int) { return Rational(1); });
    const auto [u, v] = alg.split(ones);
    const Series square = alg.multiply(u, v);
    for (int i = 0; i < kTerms; i++) EXPECT_EQ(square.next(), Rational(i + 1));
    // The integral of 1/(1+x^2) is atan: x - x^3/3 + x^5/5 ...
    const Series atan = alg.integrate(
        alg.from([](int i) { return i % 2 ? Rational(0) : Rational(i % 4 ? -1 : 1); }),
        Rational(0));
    for (int i = 0; i < kTerms; i++)
      EXPECT_EQ(atan.next(), i % 2 == 0 ? Rational(0) : Rational(i % 4 == 1 ? 1 : -1, i)) << i;
    // sin^2 + cos^2 = 1
    auto factorial = [](int n) {
      int64_t f = 1;
      for (int i = 2; i <= n; i++) f *= i;
      return f;
    };
    const auto [s1, s2] = alg.split(alg.from(
        [=](int i) { return i % 2 ? Rational(i % 4 == 1 ? 1 : -1, factorial(i)) : Rational(0); }));
    const auto [c1, c2] = alg.split(alg.from(
        [=](int i) { return i % 2 ? Rational(0) : Rational(i % 4 == 0 ? 1 : -1, factorial(i)); }));
    const Series one = alg.add(alg.multiply(s1, s2), alg.multiply(c1, c2));
    for (int i = 0; i < 8; i++) EXPECT_EQ(one.next(), Rational(i == 0 ? 1 : 0)) << i;
    alg.give_up();
    EXPECT_TRUE(settle(1, 30s));
  });
}

TEST(Programs, RingPassesATokenAround) {
  each_run([] {
    constexpr int kNodes = 503;
    constexpr int kHops = scaled(100000, 10000);
    std::vector<Chan<int>> link;
    for (int i = 0; i < kNodes; i++) link.push_back(make_chan<int>());
    Chan<int> last = make_chan<int>();
    for (int i = 0; i < kNodes; i++)
      go([in = link[static_cast<size_t>(i)], out = link[static_cast<size_t>((i + 1) % kNodes)],
          last, i] {
        for (int left : in) {
          if (left == 0)
            last.send(i);
          else
            out.send(left - 1);
        }
      });
    link[0].send(kHops);
    EXPECT_EQ(last.recv(), kHops % kNodes);
    for (const Chan<int>& l : link) l.close();
    EXPECT_TRUE(settle(1, 30s));
  });
}

int64_t skynet(int64_t first, int64_t size) {
  if (size == 1) return first;
  Chan<int64_t> c = make_chan<int64_t>(10);
  for (int i = 0; i < 10; i++) go([=] { c.send(skynet(first + i * (size / 10), size / 10)); });
  int64_t sum = 0;
  for (int i = 0; i < 10; i++) sum += c.recv_or();
  return sum;
}

TEST(Programs, SkynetSumsItsLeaves) {
  each_run([] {
    constexpr int64_t kLeaves = scaled(100000, 1000);
    EXPECT_EQ(skynet(0, kLeaves), kLeaves * (kLeaves - 1) / 2);
  });
}

}  // namespace
}  // namespace weft::test
