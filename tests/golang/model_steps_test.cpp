// Random operations on one object at a time. The test predicts from a sequential model which of the waiters each
// operation completes, and with what. All others stay parked: a completion that was not predicted turns up in the
// next step.
#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

class Rng {
 public:
  explicit Rng(uint64_t seed) : engine_(static_cast<uint32_t>(seed * 7919 + 17)) {}
  int below(int n) { return static_cast<int>(engine_() % static_cast<uint32_t>(n)); }
  bool one_in(int n) { return below(n) == 0; }

 private:
  std::mt19937 engine_;
};

std::atomic<int> wrong{0};

void check(bool holds, const char* claim) {
  if (!holds && wrong.fetch_add(1) < 10) ADD_FAILURE() << claim;
}

// The waiters of one object, each a goroutine whose wait ends with an outcome. What is not expected must not happen.
class Waiters {
 public:
  struct End {
    int id;
    int outcome;
    bool operator<(const End& o) const { return std::pair(id, outcome) < std::pair(o.id, o.outcome); }
    bool operator==(const End&) const = default;
  };
  static constexpr int kOk = -1, kCanceled = -2;

  ~Waiters() { check(cancels_.empty() && ended_.len() == 0, "nobody is left waiting"); }

  /// Starts `wait(ctx, id)`, which has to park, and to give an outcome later.
  template <class F>
  int park(F wait) {
    const int id = next_++;
    CancelContext c = with_cancel(background());
    go_parked("", [this, id, ctx = c.ctx, wait] { ended_.send({id, wait(ctx)}); });
    cancels_[id] = c.cancel;
    return id;
  }
  void cancel(int id) { cancels_.at(id)(); }
  /// Waits until these, and no others, have ended.
  void expect(std::vector<End> predicted) {
    std::vector<End> got;
    for (size_t i = 0; i < predicted.size(); i++) got.push_back(*ended_.recv());
    std::sort(predicted.begin(), predicted.end());
    std::sort(got.begin(), got.end());
    check(got == predicted, "the operation completes the waiters that the model predicts");
    check(ended_.len() == 0, "the operation completes no other waiter");
    for (const End& e : got) cancels_.erase(e.id);
  }
  /// One of them, with kOk: which the object may choose.
  int expect_one_of(const std::vector<int>& waiting) {
    const End e = *ended_.recv();
    const bool one = std::count(waiting.begin(), waiting.end(), e.id) == 1;
    check(e.outcome == kOk && one, "the operation completes one of the waiters");
    cancels_.erase(e.id);
    return e.id;
  }

 private:
  const Chan<End> ended_ = make_chan<End>(64);
  std::map<int, CancelFunc> cancels_;
  int next_ = 0;
};

constexpr int kOk = Waiters::kOk, kCanceled = Waiters::kCanceled;
constexpr int kClosed = -3, kPanic = -4;
constexpr size_t kQueue = 6;  // waiters at most

int outcome_of(std::error_code e) { return e ? kCanceled : kOk; }

int64_t step_semaphore(int64_t ops, Rng& rng) {
  constexpr int kPermits = 5;
  struct Want {
    int id, k;
  };
  Semaphore sem(kPermits);
  Waiters waiters;
  std::deque<Want> queue;
  int free = kPermits;
  auto grant = [&](std::vector<Waiters::End> also = {}) {
    while (!queue.empty() && queue.front().k <= free) {
      free -= queue.front().k;
      also.push_back({queue.front().id, kOk});
      queue.pop_front();
    }
    waiters.expect(also);
  };
  auto cancel = [&](size_t i) {
    const int id = queue[i].id;
    queue.erase(queue.begin() + static_cast<ptrdiff_t>(i));
    waiters.cancel(id);
    grant({{id, kCanceled}});
  };
  for (int64_t n = 0; n < ops; n++) {
    const int k = 1 + rng.below(kPermits);
    const bool at_once = queue.empty() && k <= free;
    switch (rng.below(4)) {
      case 0:
        if (at_once) {
          sem.acquire(k);
          free -= k;
        } else if (queue.size() < kQueue) {
          queue.push_back({waiters.park([&sem, k](const Context& c) { return outcome_of(sem.acquire(c, k)); }), k});
        }
        break;
      case 1:
        check(sem.try_acquire(k) == at_once, "try_acquire overtakes nobody and takes what is free");
        if (at_once) free -= k;
        break;
      case 2:
        if (k > kPermits - free) break;
        free += k;
        sem.release(k);
        grant();
        break;
      case 3:
        if (!queue.empty()) cancel(static_cast<size_t>(rng.below(static_cast<int>(queue.size()))));
    }
  }
  while (!queue.empty()) cancel(queue.size() - 1);
  return ops;
}

int64_t step_cond(int64_t ops, Rng& rng) {
  Mutex mu;
  Cond cv;
  Waiters waiters;
  std::deque<int> queue;
  auto cancel = [&](size_t i) {
    const int id = queue[i];
    queue.erase(queue.begin() + static_cast<ptrdiff_t>(i));
    waiters.cancel(id);
    waiters.expect({{id, kCanceled}});
  };
  auto all = [&] {
    std::vector<Waiters::End> woken;
    for (int id : queue) woken.push_back({id, kOk});
    queue.clear();
    cv.notify_all();
    waiters.expect(woken);
  };
  for (int64_t n = 0; n < ops; n++) switch (rng.below(5)) {
      case 0:
      case 1:
        if (queue.size() < kQueue)
          queue.push_back(waiters.park([&](const Context& c) {
            std::unique_lock u(mu);
            const std::error_code e = cv.wait(u, c);
            check(u.owns_lock() && !mu.try_lock(), "a wait ends with the lock");
            return outcome_of(e);
          }));
        break;
      case 2: {
        std::vector<Waiters::End> woken;
        if (!queue.empty()) {
          woken.push_back({queue.front(), kOk});
          queue.pop_front();
        }
        cv.notify_one();
        waiters.expect(woken);
        break;
      }
      case 3:
        if (rng.one_in(3)) all();
        break;
      case 4:
        if (!queue.empty()) cancel(static_cast<size_t>(rng.below(static_cast<int>(queue.size()))));
    }
  all();
  return ops;
}

int64_t step_mutex(int64_t ops, Rng& rng) {
  Mutex mu;
  Waiters waiters;
  std::vector<int> queue;
  bool locked = false;
  auto unlock = [&] {
    mu.unlock();
    locked = !queue.empty();
    if (locked) std::erase(queue, waiters.expect_one_of(queue));
  };
  for (int64_t n = 0; n < ops; n++) switch (rng.below(4)) {
      case 0:
        if (!locked) {
          mu.lock();
          locked = true;
        } else if (queue.size() < kQueue) {
          queue.push_back(waiters.park([&mu](const Context& c) { return outcome_of(mu.lock(c)); }));
        }
        break;
      case 1:
        check(mu.try_lock() == !locked, "try_lock locks what is free");
        locked = true;
        break;
      case 2:
        if (locked) unlock();
        break;
      case 3:
        if (!queue.empty()) {
          const size_t i = static_cast<size_t>(rng.below(static_cast<int>(queue.size())));
          const int id = queue[i];
          queue.erase(queue.begin() + static_cast<ptrdiff_t>(i));
          waiters.cancel(id);
          waiters.expect({{id, kCanceled}});
        }
    }
  while (locked) unlock();
  return ops;
}

int64_t step_rw_mutex(int64_t ops, Rng& rng) {
  RwMutex mu;
  Waiters waiters;
  std::deque<int> writers;
  std::vector<int> readers;
  int reading = 0;
  bool writing = false;
  // Who gets in, once something has changed.
  auto let_in = [&](std::vector<Waiters::End> also, bool after_writer) {
    if (!writing && (after_writer || writers.empty()) && !readers.empty()) {
      for (int id : readers) also.push_back({id, kOk});
      reading += static_cast<int>(readers.size());
      readers.clear();
    }
    if (!writing && reading == 0 && !writers.empty()) {
      also.push_back({writers.front(), kOk});
      writers.pop_front();
      writing = true;
    }
    waiters.expect(also);
  };
  auto leave = [&] {
    if (writing) {
      writing = false;
      mu.unlock();
      let_in({}, true);
    } else if (reading > 0) {
      reading--;
      mu.unlock_shared();
      let_in({}, false);
    }
  };
  for (int64_t n = 0; n < ops; n++) {
    const bool may_read = !writing && writers.empty();
    const bool may_write = !writing && reading == 0;
    const bool room = readers.size() + writers.size() < kQueue;
    switch (rng.below(8)) {
      case 0:
        if (may_read) {
          mu.lock_shared();
          reading++;
        } else if (room) {
          readers.push_back(waiters.park([&mu](const Context& c) { return outcome_of(mu.lock_shared(c)); }));
        }
        break;
      case 1:
        if (may_write) {
          mu.lock();
          writing = true;
        } else if (room) {
          writers.push_back(waiters.park([&mu](const Context& c) { return outcome_of(mu.lock(c)); }));
        }
        break;
      case 2:
        check(mu.try_lock_shared() == may_read, "a reader gets in unless one writes or waits to");
        reading += may_read;
        break;
      case 3:
        check(mu.try_lock() == may_write, "a writer gets in if nobody is");
        writing = writing || may_write;
        break;
      case 4:
        if (!readers.empty()) {
          const int id = readers.back();
          readers.pop_back();
          waiters.cancel(id);
          waiters.expect({{id, kCanceled}});
        }
        break;
      case 5:
        if (!writers.empty()) {
          const size_t i = static_cast<size_t>(rng.below(static_cast<int>(writers.size())));
          const int id = writers[i];
          writers.erase(writers.begin() + static_cast<ptrdiff_t>(i));
          waiters.cancel(id);
          let_in({{id, kCanceled}}, false);
        }
        break;
      default: leave();
    }
  }
  while (writing || reading > 0) leave();
  return ops;
}

int64_t step_chan(int64_t ops, Rng& rng) {
    struct Sender {
    int id, value;
  };
  const size_t cap = static_cast<size_t>(rng.below(4));
  const Chan<int> c = make_chan<int>(cap);
  Waiters waiters;
  std::deque<int> buffer, receivers;
  std::deque<Sender> senders;
  int next = 0;
  // The value that a receive gives now; a sender that waited goes on.
  auto receive = [&]() -> std::pair<int, std::vector<Waiters::End>> {
    std::vector<Waiters::End> ended;
    if (!senders.empty()) {
      buffer.push_back(senders.front().value);
      ended.push_back({senders.front().id, kOk});
      senders.pop_front();
    }
    const int v = buffer.front();
    buffer.pop_front();
    return {v, ended};
  };
  auto cancel = [&](auto& queue, auto id_of) {
    if (queue.empty()) return;
    const size_t i = static_cast<size_t>(rng.below(static_cast<int>(queue.size())));
    const int id = id_of(queue[i]);
    queue.erase(queue.begin() + static_cast<ptrdiff_t>(i));
    waiters.cancel(id);
    waiters.expect({{id, kCanceled}});
  };
  for (int64_t n = 0; n < ops; n++) {
    const bool has = !buffer.empty() || !senders.empty();
    const bool takes = !receivers.empty() || buffer.size() < cap;
    check(c.len() == buffer.size(), "len() is what is buffered");
    const int form = rng.below(3);
    switch (rng.below(6)) {
      case 0:
      case 1: {
        const int v = next;
        if (takes) {
          if (form == 0)
            c.send(v);
          else if (form == 1)
            check(c.try_send(v), "a send with a place does not block");
          else
            check(select(send(c, v), otherwise()) == 0, "a send with a place is ready in select");
          next++;
          if (receivers.empty()) {
            buffer.push_back(v);
            waiters.expect({});
          } else {
            const int id = receivers.front();
            receivers.pop_front();
            waiters.expect({{id, v}});
          }
        } else if (form == 0) {
          check(!c.try_send(v), "a send without a place would block");
        } else if (senders.size() < kQueue) {
          next++;
          senders.push_back({waiters.park([c, v, form](const Context& ctx) {
                               try {
                                 if (form == 1) return outcome_of(c.send(ctx, v));
                                 return select(send(c, v), recv(ctx.done())) == 0 ? kOk : kCanceled;
                               } catch (const Panic&) {
                                 return kPanic;
                               }
                             }),
                             v});
        }
        break;
      }
      case 2:
      case 3:
        if (has) {
          const auto [v, ended] = receive();
          int got = -1;
          if (form == 0)
            got = c.recv_or(-1);
          else if (form == 1)
            got = c.try_recv().value.value_or(-1);
          else
            select(recv(c, got), otherwise());
          check(got == v, "a receive gives the oldest element");
          waiters.expect(ended);
        } else if (form == 0) {
          check(c.try_recv().status == RecvStatus::Empty, "a receive without an element would block");
        } else if (receivers.size() < kQueue) {
          receivers.push_back(waiters.park([c, form](const Context& ctx) {
            if (form == 1) {
              const Recv<int> r = c.recv(ctx);
              return r ? *r.value : r.status == RecvStatus::Closed ? kClosed : kCanceled;
            }
            std::optional<int> v;
            return select(recv(c, v), recv(ctx.done())) == 1 ? kCanceled : v.value_or(int{kClosed});
          }));
        }
        break;
      case 4: cancel(senders, [](const Sender& s) { return s.id; }); break;
      case 5: cancel(receivers, [](int id) { return id; }); break;
    }
  }
  std::vector<Waiters::End> ended;
  for (const Sender& s : senders) ended.push_back({s.id, kPanic});
  for (int id : receivers) ended.push_back({id, kClosed});
  c.close();
  waiters.expect(ended);
  for (int v : buffer) check(c.recv() == v, "a closed channel drains");
  check(!c.recv(), "a drained channel is closed");
  return ops;
}

void steps(int64_t ops, const Machine& m) {
  SCOPED_TRACE("procs " + std::to_string(m.procs) + ", seed " + std::to_string(m.seed));
  in_run(m, [&] {
    Rng rng(m.seed);
    for (int64_t n = 0; n < ops;) {
      n += step_semaphore(500, rng);
      n += step_cond(500, rng);
      n += step_mutex(500, rng);
      n += step_rw_mutex(500, rng);
      n += step_chan(500, rng);
    }
  });
}

TEST(ModelSteps, EachOfFiftyThousandStepsCompletesTheWaitersThatTheModelPredicts) {
  wrong = 0;
  for (const Machine& m : kMachines) steps(scaled<int64_t>(16667, 2500), m);
}

TEST(ModelSteps, DISABLED_EachOfAMillionStepsCompletesTheWaitersThatTheModelPredicts) {
  wrong = 0;
  for (uint64_t seed = 10; seed < 20; seed++)
    for (const Machine& m : kMachines) steps(33334, {m.procs, seed * 10 + m.seed});
}

}  // namespace
}  // namespace weft::test
