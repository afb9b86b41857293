// Channels: every value arrives once, values of one sender in order, and a close takes nothing
// away. Mutexes and wait groups with them.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <weft/chan.hpp>
#include <weft/go.hpp>
#include <weft/mutex.hpp>
#include <weft/panic.hpp>
#include <weft/select.hpp>
#include <weft/time.hpp>
#include <weft/wait_group.hpp>

#include "tools/stress/stress.hpp"

namespace stress {

namespace {

using namespace std::chrono_literals;

int random_capacity(Rng& rng) {
  constexpr int kCapacities[] = {0, 0, 0, 1, 1, 2, 7, 128, 1'000};
  return kCapacities[rng.below(std::size(kCapacities))];
}

/// Elements of all kinds carry a number. Each kind checks that it has arrived whole.
struct Small {
  std::uint64_t number;
  static Small make(std::uint64_t n) { return {n}; }
  std::uint64_t get() const { return number; }
};
struct Owned {  // moves only
  std::unique_ptr<std::uint64_t> number;
  static Owned make(std::uint64_t n) { return {std::make_unique<std::uint64_t>(n)}; }
  std::uint64_t get() const { return number ? *number : ~0ull; }
};
struct Text {  // is not relocatable: points into itself
  std::string text;
  static Text make(std::uint64_t n) { return {std::to_string(n)}; }
  // Not inlined: stoull looks at errno, and a function that also uses channels would keep its address across them.
  [[gnu::noinline]] std::uint64_t get() const { return text.empty() ? ~0ull : std::stoull(text); }
};
struct Large {
  std::array<std::uint64_t, 640> numbers;  // 5 KiB: travels in a box
  static Large make(std::uint64_t n) {
    Large large;
    large.numbers.fill(n);
    return large;
  }
  std::uint64_t get() const {
    auto all = [&](std::uint64_t v) { return v == numbers[0]; };
    return std::all_of(numbers.begin(), numbers.end(), all) ? numbers[0] : ~0ull;
  }
};
struct alignas(128) Aligned {  // not trivially copyable, but declared relocatable: no box
  std::uint64_t number;
  explicit Aligned(std::uint64_t n) : number(n) {}
  Aligned(const Aligned& o) : number(o.number) {}
  Aligned& operator=(const Aligned& o) = default;
  ~Aligned() { number = ~0ull; }
  static Aligned make(std::uint64_t n) { return Aligned(n); }
  std::uint64_t get() const {
    return reinterpret_cast<std::uintptr_t>(this) % 128 == 0 ? number : ~0ull;
  }
};

}  // namespace

}  // namespace stress

template <>
struct weft::is_relocatable<stress::Aligned> : std::true_type {};

namespace stress {

namespace {

/// Sends by one of the ways there are. The ways that may fail are repeated until they do not.
template <class T>
void send_somehow(Rng& rng, const weft::Chan<T>& c, std::uint64_t number) {
  T value = T::make(number);
  switch (rng.below(6)) {
    case 0:
      // Not for ever: where both sides only try, they never meet.
      for (int tries = rng.between(1, 20); tries > 0; tries--) {
        if (c.try_send(std::move(value))) return;
        STRESS_CHECK(value.get() == number, "a failed try_send changed its argument");
        weft::yield();
      }
      c.send(std::move(value));
      break;
    case 1:
      while (!c.send_for(std::move(value), rng.micros(100))) {
        STRESS_CHECK(value.get() == number, "a failed send_for changed its argument");
      }
      break;
    case 2:
      while (weft::select(weft::send(c, std::move(value)), weft::timeout(rng.micros(100))) != 0) {
        STRESS_CHECK(value.get() == number,
                     "a send that select did not choose changed its argument");
      }
      break;
    default:
      c.send(std::move(value));
  }
}

/// Receives by one of the ways there are; nullopt: closed and drained.
template <class T>
std::optional<T> recv_somehow(Rng& rng, const weft::Chan<T>& c) {
  switch (rng.below(6)) {
    case 0:
      for (int tries = rng.between(1, 20); tries > 0; tries--) {
        weft::Recv<T> r = c.try_recv();
        if (r.status == weft::RecvStatus::Ok) return std::move(r.value);
        if (r.status == weft::RecvStatus::Closed) return std::nullopt;
        weft::yield();
      }
      return c.recv();
    case 1:
      for (;;) {
        weft::Recv<T> r = c.recv_for(rng.micros(100));
        if (r.status == weft::RecvStatus::Ok) return std::move(r.value);
        if (r.status == weft::RecvStatus::Closed) return std::nullopt;
      }
    case 2:
      for (std::optional<T> value;;) {
        if (weft::select(weft::recv(c, value), weft::timeout(rng.micros(100))) == 0) return value;
      }
    default:
      return c.recv();
  }
}

/// Many senders, many receivers, goroutines and plain threads, all ways to send and to receive.
template <class T>
void many_to_many(Context& c, const char* what) {
  const int senders = c.some_goroutines(12), receivers = c.some_goroutines(12);
  const int each = c.times(10, 600);
  auto values = weft::make_chan<T>(random_capacity(c.rng));
  Marks marks(static_cast<std::size_t>(senders) * static_cast<std::size_t>(each));
  weft::WaitGroup sent, received;
  std::vector<Thread> threads;
  sent.add(senders);
  received.add(receivers);
  for (int s = 0; s < senders; s++) {
    go_or_thread(c.rng, threads, [&, s, rng = c.rng.fork()]() mutable {
      for (int i = 0; i < each; i++) {
        send_somehow(rng, values,
                     static_cast<std::uint64_t>(s) * static_cast<std::uint64_t>(each) +
                         static_cast<std::uint64_t>(i));
        if (rng.chance(3)) pause(rng);
      }
      sent.done();
    });
  }
  for (int r = 0; r < receivers; r++) {
    go_or_thread(c.rng, threads, [&, rng = c.rng.fork()]() mutable {
      std::vector<long> last(static_cast<std::size_t>(senders), -1);
      while (std::optional<T> value = recv_somehow(rng, values)) {
        std::uint64_t number = value->get();
        marks.mark(number, what);
        auto sender = number / static_cast<std::uint64_t>(each);
        auto index = static_cast<long>(number % static_cast<std::uint64_t>(each));
        STRESS_CHECK(index > last[sender], "%s: value %ld of a sender came after its value %ld",
                     what, index, last[sender]);
        last[sender] = index;
        beat();
        if (rng.chance(3)) pause(rng);
      }
      received.done();
    });
  }
  sent.wait();
  values.close();
  received.wait();
  threads.clear();
  marks.all_marked(what);
  STRESS_CHECK(values.len() == 0, "%s: %zu values in a drained channel", what, values.len());
}

void many_small(Context& c) { many_to_many<Small>(c, "many_small"); }
void many_owned(Context& c) { many_to_many<Owned>(c, "many_owned"); }
void many_text(Context& c) { many_to_many<Text>(c, "many_text"); }
void many_large(Context& c) { many_to_many<Large>(c, "many_large"); }
void many_aligned(Context& c) { many_to_many<Aligned>(c, "many_aligned"); }

/// A channel of nothing counts.
void signals(Context& c) {
  const int senders = c.some_goroutines(8), receivers = c.some_goroutines(8),
            each = c.times(10, 1'000);
  auto signal = weft::make_chan<void>(random_capacity(c.rng));
  std::atomic<int> count{0};
  weft::WaitGroup sent, received;
  for (int s = 0; s < senders; s++) {
    sent.go([&] {
      for (int i = 0; i < each; i++) signal.send();
    });
  }
  for (int r = 0; r < receivers; r++) {
    received.go([&] {
      for (weft::Unit _ : signal) {
        count++;
        beat();
      }
    });
  }
  sent.wait();
  signal.close();
  received.wait();
  STRESS_CHECK(count == senders * each, "signals: %d of %d came", count.load(), senders * each);
}

/// A close in the middle: what a send reports as sent is received, what it panics about is not.
void close_race(Context& c) {
  const int senders = c.some_goroutines(10), receivers = c.some_goroutines(10);
  auto values = weft::make_chan<Owned>(random_capacity(c.rng));
  constexpr std::uint64_t kEach = 1'000'000;
  std::vector<std::uint64_t> sent(static_cast<std::size_t>(senders), 0);
  std::vector<std::atomic<std::uint64_t>> got(static_cast<std::size_t>(senders));
  std::atomic<int> closed{0}, refused{0};
  weft::WaitGroup all;
  for (int s = 0; s < senders; s++) {
    all.go([&, s, rng = c.rng.fork()]() mutable {
      auto& mine = sent[static_cast<std::size_t>(s)];
      try {
        for (;; mine++) {
          send_somehow(rng, values, static_cast<std::uint64_t>(s) * kEach + mine);
          beat();
        }
      } catch (const weft::Panic& p) {
        STRESS_CHECK(std::strcmp(p.what(), "send on closed channel") == 0 && p.is_runtime_error(),
                     "close_race: a send panicked with \"%s\"", p.what());
      }
    });
  }
  for (int r = 0; r < receivers; r++) {
    all.go([&, rng = c.rng.fork()]() mutable {
      while (std::optional<Owned> value = recv_somehow(rng, values)) {
        got[value->get() / kEach].fetch_add(value->get() % kEach + 1, std::memory_order_relaxed);
      }
    });
  }
  weft::sleep_for(c.rng.micros(c.small ? 20'000 : 2'000));
  for (int i = 0; i < 2; i++) {
    all.go([&] {
      try {
        values.close();
        closed++;
      } catch (const weft::Panic& p) {
        STRESS_CHECK(std::strcmp(p.what(), "close of closed channel") == 0,
                     "close_race: a close panicked with \"%s\"", p.what());
        refused++;
      }
    });
  }
  all.wait();
  STRESS_CHECK(closed == 1 && refused == 1, "close_race: %d of 2 closes succeeded", closed.load());
  for (std::size_t s = 0; s < sent.size(); s++) {
    std::uint64_t expected = sent[s] * (sent[s] + 1) / 2;  // 1 + 2 + ... as values count from 0
    STRESS_CHECK(got[s] == expected,
                 "close_race: of %llu values sent the sum is %llu instead of %llu",
                 static_cast<unsigned long long>(sent[s]), static_cast<unsigned long long>(got[s]),
                 static_cast<unsigned long long>(expected));
  }
}

/// Goroutines in a row, each passing on what it gets plus one.
void chain(Context& c) {
  const int links = c.some_goroutines(1'000), values = c.times(5, 100);
  auto first = weft::make_chan<Owned>(random_capacity(c.rng));
  auto last = first;
  for (int i = 0; i < links; i++) {
    auto next = weft::make_chan<Owned>(random_capacity(c.rng) % 8);
    weft::go([in = last, next] {
      for (Owned&& value : in) {
        ++*value.number;
        next.send(std::move(value));
        beat();
      }
      next.close();
    });
    last = next;
  }
  weft::go([first, values] {  // by value: the handle must outlive the close
    for (int i = 0; i < values; i++) first.send(Owned::make(static_cast<std::uint64_t>(i)));
    first.close();
  });
  auto expected = static_cast<std::uint64_t>(links);
  for (Owned&& value : last) {
    STRESS_CHECK(value.get() == expected, "chain: %llu came instead of %llu",
                 static_cast<unsigned long long>(value.get()),
                 static_cast<unsigned long long>(expected));
    expected++;
  }
  STRESS_CHECK(expected == static_cast<std::uint64_t>(links + values), "chain: values are lost");
}

/// A goroutine and a plain thread, each waiting for the other.
void ping_pong(Context& c) {
  const int trips = c.times(10, 500);
  auto ping = weft::make_chan<int>(random_capacity(c.rng) % 2);
  auto pong = weft::make_chan<int>();
  std::vector<Thread> threads;
  auto answer = [=] {
    for (int i : ping) pong.send(i + 1);
    pong.close();
  };
  if (c.rng.chance(70)) {
    threads.emplace_back(answer);
  } else {
    weft::go(answer);
  }
  for (int i = 0; i < trips; i++) {
    ping.send(i);
    int back = pong.recv_or();
    STRESS_CHECK(back == i + 1, "ping_pong: %d came back for %d", back, i);
    beat();
  }
  ping.close();
  STRESS_CHECK(!pong.recv(), "ping_pong: one more came back");
}

/// One at a time, in goroutines and plain threads.
void mutual_exclusion(Context& c) {
  const int n = c.some_goroutines(40), times = c.times(10, 400);
  weft::Mutex mutex;
  long counter = 0, expected = 0;  // guarded by mutex; the second is summed up apart
  bool inside = false;
  std::atomic<long> entered{0};
  weft::WaitGroup done;
  std::vector<Thread> threads;
  done.add(n);
  for (int i = 0; i < n; i++) {
    go_or_thread(c.rng, threads, [&, rng = c.rng.fork()]() mutable {
      for (int k = 0; k < times; k++) {
        bool locked = true;
        switch (rng.below(4)) {
          case 0:
            locked = mutex.try_lock();
            break;
          case 1:
            locked = mutex.try_lock_for(rng.micros(300));
            break;
          default:
            mutex.lock();
        }
        beat();
        if (!locked) continue;
        std::unique_lock unlock(mutex, std::adopt_lock);
        STRESS_CHECK(!inside, "mutex: two hold it");
        inside = true;
        if (rng.chance(5)) pause(rng);
        counter++;
        entered.fetch_add(1, std::memory_order_relaxed);
        inside = false;
      }
      done.done();
    });
  }
  done.wait();
  threads.clear();
  std::lock_guard last(mutex);
  expected = entered;
  STRESS_CHECK(counter == expected, "mutex: counted %ld of %ld", counter, expected);
}

/// Wait groups with several waiters, used again and again.
void wait_groups(Context& c) {
  const int workers = c.some_goroutines(30), waiters = c.some_goroutines(5), times = c.times(2, 40);
  weft::WaitGroup group;
  for (int k = 0; k < times; k++) {
    std::atomic<int> working{0}, passed{0};
    weft::WaitGroup waiting;
    group.add(workers);
    for (int i = 0; i < waiters; i++) {
      waiting.go([&] {
        group.wait();
        STRESS_CHECK(working == workers, "wait_group: wait() returned after %d of %d",
                     working.load(), workers);
        passed++;
      });
    }
    for (int i = 0; i < workers; i++) {
      weft::go([&, rng = c.rng.fork()]() mutable {
        if (rng.chance(50)) pause(rng);
        working++;
        group.done();
        beat();
      });
    }
    group.wait();
    waiting.wait();
    STRESS_CHECK(passed == waiters, "wait_group: %d of %d waiters passed", passed.load(), waiters);
  }
}

constexpr Scenario kScenarios[] = {
    {"many_small", many_small},     {"many_owned", many_owned},
    {"many_text", many_text},       {"many_large", many_large},
    {"many_aligned", many_aligned}, {"signals", signals},
    {"close_race", close_race},     {"chain", chain},
    {"ping_pong", ping_pong},       {"mutex", mutual_exclusion},
    {"wait_group", wait_groups},
};

}  // namespace

std::span<const Scenario> chan_scenarios() { return kScenarios; }

}  // namespace stress
