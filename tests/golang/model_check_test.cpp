// Random operations on shared objects by goroutines and plain threads that work freely. Each object has a model that
// holds under any interleaving: who is inside, what was counted, what went in and came out, what has been seen once
// and must stay so. model_steps_test.cpp has the models that predict each step.
//
// Deadlock    None: a worker holds one object at a time. Bounded queues start with some elements, and a worker that
//             has put an element takes one next, and the other way round: where one waits for a place, others are
//             about to take, and where one waits for an element, others are about to put. So plain waits need no time
//             limit, and a lost wake-up is a test that hangs.
#include <array>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
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

constexpr int kWorkersMax = 12;

struct Item {
  int sender;
  int64_t seq;
};

struct MutexCell {
  Mutex mu;
  int owner = 0;
  int64_t plain = 0;
  std::atomic<int64_t> counted{0};
};

struct RwCell {
  RwMutex mu;
  std::atomic<int> readers{0}, writers{0};
  int64_t a = 0, b = 0;
  std::atomic<int64_t> counted{0};
};

struct SemaphoreCell {
  static constexpr int kPermits = 4;
  Semaphore sem{kPermits};
  std::atomic<int> held{0};
};

struct CondCell {
  static constexpr int kMax = 4, kStart = 2;
  Mutex mu;
  Cond not_full, not_empty;
  int items = kStart;
};

struct ChanCell {
  explicit ChanCell(int cap) : c(make_chan<Item>(cap)) {}
  Chan<Item> c;
  std::array<std::atomic<int64_t>, kWorkersMax + 1> sent{}, received{}, sum_received{};
};

struct Cause {
  int who;
};

struct ContextCell {
  struct Tree {
    CancelCauseContext root = with_cancel_cause(background());
    CancelContext child = with_timeout(root.ctx, 1h);
    CancelContext grandchild = with_cancel(child.ctx);
    std::atomic<uint32_t> tried{0};  // who has called cancel, or is about to
    std::atomic<int> cause{0};       // the first one that was seen
  };
  Mutex mu;  // of the pointer
  std::shared_ptr<Tree> tree = std::make_shared<Tree>();
  std::atomic<int64_t> registered{0}, stopped{0}, ran{0};
};

struct World {
  std::array<MutexCell, 2> mutexes;
  std::array<RwCell, 2> rw_mutexes;
  std::array<SemaphoreCell, 2> semaphores;
  std::array<CondCell, 2> conds;
  std::array<ChanCell, 3> chans{ChanCell(0), ChanCell(3), ChanCell(16)};
  std::array<ContextCell, 3> contexts;
  std::atomic<int64_t> ops{0};
};

class Worker {
 public:
  Worker(World& w, int id, uint64_t seed) : w_(w), id_(id), rng_(seed * 64 + static_cast<uint64_t>(id)) {}

  void work(int64_t ops) {
    while (n_ < ops) switch (rng_.below(7)) {
        case 0: on_mutex(pick(w_.mutexes)); break;
        case 1: on_rw_mutex(pick(w_.rw_mutexes)); break;
        case 2: on_semaphore(pick(w_.semaphores)); break;
        case 3: on_cond(pick(w_.conds)); break;
        case 4: on_chan(); break;
        case 5: on_context(pick(w_.contexts)); break;
        case 6: on_task(); break;
      }
    w_.ops += n_;
  }

 private:
  template <class C>
  typename C::value_type& pick(C& cells) {
    n_++;
    return cells[static_cast<size_t>(rng_.below(static_cast<int>(cells.size())))];
  }
  void dawdle() {
    if (rng_.one_in(3)) yield();
  }
  std::chrono::microseconds moment() { return std::chrono::microseconds(rng_.below(60)); }
  // One that others cancel, or one whose time runs out.
  CancelContext some_context(bool timed = false) {
    if (timed || rng_.one_in(2)) return with_timeout(background(), moment());
    return with_cancel(tree_of(w_.contexts[static_cast<size_t>(rng_.below(3))])->root.ctx);
  }
  static std::shared_ptr<ContextCell::Tree> tree_of(ContextCell& c) {
    std::lock_guard l(c.mu);
    return c.tree;
  }

  // Locks in one of the forms that the object has; false: it did not.
  template <class Plain, class Try, class For, class Ctx>
  bool acquired(Plain plain, Try attempt, For within, Ctx unless) {
    switch (rng_.below(6)) {
      case 0: return attempt();
      case 1: return within(moment());
      case 2: {
        const CancelContext c = some_context();
        const std::error_code e = unless(c.ctx);
        check(!e || e == c.ctx.err(), "a wait that a context ended gives the context's error");
        return !e;
      }
      default: plain(); return true;
    }
  }

  void on_mutex(MutexCell& m) {
    if (!acquired([&] { m.mu.lock(); }, [&] { return m.mu.try_lock(); }, [&](auto d) { return m.mu.try_lock_for(d); },
                  [&](const Context& c) { return m.mu.lock(c); }))
      return;
    check(m.owner == 0, "a mutex has one holder");
    m.owner = id_;
    m.plain++;
    dawdle();
    check(m.owner == id_, "a mutex has one holder");
    m.owner = 0;
    m.counted.fetch_add(1, std::memory_order_relaxed);
    m.mu.unlock();
    n_++;
  }

  void on_rw_mutex(RwCell& m) {
    if (rng_.one_in(3)) {
      if (!acquired([&] { m.mu.lock(); }, [&] { return m.mu.try_lock(); }, [&](auto d) { return m.mu.try_lock_for(d); },
                    [&](const Context& c) { return m.mu.lock(c); }))
        return;
      check(m.writers.fetch_add(1, std::memory_order_relaxed) == 0, "one writes");
      m.a++;
      dawdle();
      check(m.readers.load(std::memory_order_relaxed) == 0, "nobody reads while one writes");
      m.b++;
      m.counted.fetch_add(1, std::memory_order_relaxed);
      m.writers.fetch_sub(1, std::memory_order_relaxed);
      m.mu.unlock();
    } else {
      if (!acquired([&] { m.mu.lock_shared(); }, [&] { return m.mu.try_lock_shared(); },
                    [&](auto d) { return m.mu.try_lock_shared_for(d); },
                    [&](const Context& c) { return m.mu.lock_shared(c); }))
        return;
      m.readers.fetch_add(1, std::memory_order_relaxed);
      const int64_t before = m.a;
      check(m.writers.load(std::memory_order_relaxed) == 0 && before == m.b, "a reader sees whole writes");
      dawdle();
      check(before == m.a && before == m.b, "nobody writes while one reads");
      m.readers.fetch_sub(1, std::memory_order_relaxed);
      m.mu.unlock_shared();
    }
    n_++;
  }

  void on_semaphore(SemaphoreCell& s) {
    const int k = 1 + rng_.below(SemaphoreCell::kPermits);
    if (!acquired([&] { s.sem.acquire(k); }, [&] { return s.sem.try_acquire(k); },
                  [&](auto d) { return s.sem.try_acquire_for(k, d); },
                  [&](const Context& c) { return s.sem.acquire(c, k); }))
      return;
    const int held = s.held.fetch_add(k, std::memory_order_relaxed) + k;
    check(held <= SemaphoreCell::kPermits, "no more permits are held than there are");
    dawdle();
    s.held.fetch_sub(k, std::memory_order_relaxed);
    s.sem.release(k);
    n_++;
  }

  bool put_or_take(CondCell& c, bool put, bool must) {
    std::unique_lock u(c.mu);
    Cond& cv = put ? c.not_full : c.not_empty;
    auto can = [&] { return put ? c.items < CondCell::kMax : c.items > 0; };
    n_++;
    switch (must ? 0 : rng_.below(4)) {
      case 1:
        if (!cv.wait_for(u, moment(), can)) return false;
        break;
      case 2: {
        const CancelContext ctx = some_context();
        if (cv.wait(u, ctx.ctx, can)) return false;
        break;
      }
      default: cv.wait(u, can);
    }
    check(can(), "a wait ends with its predicate and the lock");
    c.items += put ? 1 : -1;
    if (rng_.one_in(4)) u.unlock();  // notifying works with and without the lock
    Cond& other = put ? c.not_empty : c.not_full;
    if (rng_.one_in(8))
      other.notify_all();
    else
      other.notify_one();
    return true;
  }
  void on_cond(CondCell& c) {
    const bool put = rng_.one_in(2);
    if (!put_or_take(c, put, false)) return;
    dawdle();
    put_or_take(c, !put, true);
  }

  bool put(size_t which, bool must) {
    ChanCell& cell = w_.chans[which];
    const Item item{id_, next_seq_[which]};
    bool sent = false;
    n_++;
    do {
      switch (rng_.below(6)) {
        case 0: sent = cell.c.try_send(item); break;
        case 1: sent = cell.c.send_for(item, moment()); break;
        case 2: {
          const CancelContext c = some_context(which == 0);
          sent = !cell.c.send(c.ctx, item);
          break;
        }
        case 3: sent = select(send(cell.c, item), timeout(moment())) == 0; break;
        case 4: sent = select(send(cell.c, item), otherwise()) == 0; break;
        default:
          if (which == 0) break;  // unbuffered: a partner need not come
          cell.c.send(item);
          sent = true;
      }
      if (must && !sent) yield();
    } while (must && !sent);
    if (!sent) return false;
    next_seq_[which]++;
    cell.sent[static_cast<size_t>(id_)].fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  bool take(size_t which, bool must) {
    ChanCell& cell = w_.chans[which];
    std::optional<Item> got;
    n_++;
    do {
      switch (rng_.below(6)) {
        case 0: got = cell.c.try_recv().value; break;
        case 1: got = cell.c.recv_for(moment()).value; break;
        case 2: {
          const CancelContext c = some_context(which == 0);
          got = cell.c.recv(c.ctx).value;
          break;
        }
        case 3: select(recv(cell.c, got), timeout(moment())); break;
        case 4: select(recv(cell.c, got), otherwise()); break;
        default:
          if (which != 0) got = cell.c.recv();
      }
      if (must && !got) yield();
    } while (must && !got);
    if (!got) return false;
    const size_t from = static_cast<size_t>(got->sender);
    check(got->seq > last_[which][from], "what one sends, another receives in order");
    last_[which][from] = got->seq;
    cell.received[from].fetch_add(1, std::memory_order_relaxed);
    cell.sum_received[from].fetch_add(got->seq, std::memory_order_relaxed);
    return true;
  }
  void on_chan() {
    const size_t which = static_cast<size_t>(rng_.below(3));
    const bool first_put = rng_.one_in(2);
    if (which == 0) {  // each half by itself
      first_put ? put(0, false) : take(0, false);
    } else if (first_put ? put(which, false) : take(which, false)) {
      dawdle();
      first_put ? take(which, true) : put(which, true);
    }
  }

  static int cause_of(const Context& c) {
    try {
      if (std::exception_ptr e = c.cause()) std::rethrow_exception(e);
    } catch (const Cause& cause) {
      return cause.who;
    } catch (...) {
      return -1;
    }
    return 0;
  }
  static bool closed(const Context& c) { return c.done().try_recv().status == RecvStatus::Closed; }

  void look(ContextCell::Tree& t) {
    // The grandchild first: parents are done before their children.
    for (const Context* c : {static_cast<const Context*>(&t.grandchild.ctx), static_cast<const Context*>(&t.child.ctx),
                             static_cast<const Context*>(&t.root.ctx)}) {
      const bool was_closed = closed(*c);
      const std::error_code err = c->err();
      if (was_closed) check(err == Errc::canceled, "a closed done() comes with an error");
      if (!err) continue;
      check(closed(*c), "an error comes with a closed done()");
      check(t.root.ctx.err() == Errc::canceled, "a parent is done before its children");
      const int who = cause_of(*c);
      int first = 0;
      check(who > 0 && (t.tried.load() >> who & 1), "the cause is that of a cancel");
      check(t.cause.compare_exchange_strong(first, who) || first == who, "the first cause stays, for all of the tree");
    }
  }
  void on_context(ContextCell& cell) {
    const std::shared_ptr<ContextCell::Tree> t = tree_of(cell);
    look(*t);
    switch (rng_.below(5)) {
      case 0:
        t->tried.fetch_or(1u << id_);
        t->root.cancel(Cause{id_});
        check(static_cast<bool>(t->root.ctx.err()), "a context is done when its cancel returns");
        n_++;
        break;
      case 1: {
        auto fresh = std::make_shared<ContextCell::Tree>();
        const bool over = static_cast<bool>(t->root.ctx.err());
        std::lock_guard l(cell.mu);
        if (over) cell.tree = std::move(fresh);
        break;
      }
      case 2: {
        cell.registered.fetch_add(1, std::memory_order_relaxed);
        const auto stop = after_func(t->grandchild.ctx, [&cell] { cell.ran.fetch_add(1, std::memory_order_relaxed); });
        dawdle();
        if (stop()) cell.stopped.fetch_add(1, std::memory_order_relaxed);
        n_++;
        break;
      }
      case 3: {
        const std::error_code e = sleep_for(t->child.ctx, moment());
        check(!e || e == t->child.ctx.err(), "a sleep that a context ended gives the context's error");
        break;
      }
      default: {
        const auto [late, cancel] = with_cancel(t->grandchild.ctx);
        if (t->grandchild.ctx.err()) check(late.err() == Errc::canceled, "a child of one that is done is done");
      }
    }
    look(*t);
  }

  void on_task() {
    n_ += 2;
    const int x = rng_.below(1000);
    switch (rng_.below(6)) {
      case 0: {
        Task<int> t = spawn([x] {
          if (x % 2) yield();
          return x * 3;
        });
        dawdle();
        check(t.get() == x * 3, "a task gives what its function returned");
        break;
      }
      case 1: {
        Task<int> t = spawn([x]() -> int { throw Cause{x}; });
        try {
          (void)t.get();
          check(false, "a task that failed has no result");
        } catch (const Cause& c) {
          check(c.who == x, "a task rethrows what its function threw");
        }
        break;
      }
      case 2: {  // the result or the cancel, never both, never neither
        Task<int> t = spawn([x] {
          yield();
          sleep_for(std::chrono::microseconds(x % 20));
          return x;
        });
        dawdle();
        t.cancel();
        try {
          check(t.get() == x, "a task that was cancelled too late keeps its result");
        } catch (const Canceled&) {
        }
        check(t.done(), "a task that was asked for has ended");
        break;
      }
      case 3: {
        std::atomic<int> begun{0}, ended{0};
        {
          const Task<void> t = spawn([&] {
            begun++;
            const Defer end{[&] { ended++; }};
            Chan<int>().recv();
          });
          dawdle();
        }
        check(begun == ended, "a task has ended when its handle is gone");
        break;
      }
      case 4: {
        std::atomic<int> alive{0};
        int sum = 0;
        scope([&](Scope& s) {
          auto child = [&alive, x] {
            alive++;
            yield();
            alive--;
            return x;
          };
          auto a = s.spawn(child), b = s.spawn(child);
          s.spawn(child);
          sum = a.get() + b.get();
        });
        check(sum == 2 * x && alive == 0, "a scope ends after its children");
        break;
      }
      default: {
        try {
          scope([&](Scope& s) {
            s.spawn([] { sleep_for(1h); });
            s.spawn([x] { throw Cause{x}; });
            if (goid() != 0) Chan<int>().recv();  // a plain thread's waits are not cancelled
          });
          check(false, "a failed child fails its scope");
        } catch (const Cause& c) {
          check(c.who == x, "a scope rethrows its first failure");
        }
      }
    }
  }

  World& w_;
  const int id_;
  Rng rng_;
  int64_t n_ = 0;
  int64_t next_seq_[3] = {1, 1, 1};
  int64_t last_[3][kWorkersMax + 1] = {};
};

// The preloaded elements of the buffered channels come from sender 0.
void preload(World& w) {
  for (size_t which : {1u, 2u}) {
    w.chans[which].c.send({0, 1});
    w.chans[which].c.send({0, 2});
    w.chans[which].sent[0] = 2;
  }
}

void check_end(World& w) {
  for (MutexCell& m : w.mutexes) EXPECT_EQ(m.plain, m.counted);
  for (RwCell& m : w.rw_mutexes) {
    EXPECT_EQ(m.a, m.counted);
    EXPECT_EQ(m.b, m.counted);
    EXPECT_TRUE(m.mu.try_lock());
    m.mu.unlock();
  }
  for (SemaphoreCell& s : w.semaphores) {
    EXPECT_EQ(s.held, 0);
    EXPECT_TRUE(s.sem.try_acquire(SemaphoreCell::kPermits)) << "a permit was lost";
  }
  for (CondCell& c : w.conds) EXPECT_EQ(c.items, CondCell::kStart);
  for (ChanCell& cell : w.chans) {
    while (Recv<Item> r = cell.c.try_recv()) {
      cell.received[static_cast<size_t>(r.value->sender)]++;
      cell.sum_received[static_cast<size_t>(r.value->sender)] += r.value->seq;
    }
    for (size_t s = 0; s < cell.sent.size(); s++) {
      const int64_t n = cell.sent[s];
      EXPECT_EQ(cell.received[s], n) << "sender " << s;
      EXPECT_EQ(cell.sum_received[s], n * (n + 1) / 2) << "sender " << s;
    }
  }
  for (ContextCell& c : w.contexts) {
    if (c.tree->root.ctx.err()) {
      EXPECT_EQ(c.tree->child.ctx.err(), Errc::canceled);
      EXPECT_EQ(c.tree->grandchild.ctx.err(), Errc::canceled);
    }
    c.tree->root.cancel(Cause{0});
    c.tree->grandchild.ctx.done().recv();
  }
}

// `ops` operations by ten workers, two of them plain threads.
void storm(int64_t ops, const Machine& m) {
  SCOPED_TRACE("procs " + std::to_string(m.procs) + ", seed " + std::to_string(m.seed));
  in_run(m, [&] {
    World w;
    constexpr int kGoroutines = 8, kThreads = 2;
    preload(w);
    std::vector<std::thread> threads;
    WaitGroup workers;
    auto work = [&](int id) { Worker(w, id, m.seed).work(ops / (kGoroutines + kThreads)); };
    for (int i = 1; i <= kGoroutines; i++) workers.go(work, i);
    for (int i = 1; i <= kThreads; i++) threads.emplace_back(work, kGoroutines + i);
    workers.wait();
    blocking([&] {
      for (std::thread& t : threads) t.join();
    });
    check_end(w);
    EXPECT_TRUE(settle(1, kPatience));
    for (ContextCell& c : w.contexts)
      EXPECT_EQ(c.ran + c.stopped, c.registered) << "after_func runs once or is taken back";
    EXPECT_GE(w.ops, ops / 10 * 10);
  });
}

TEST(ModelCheck, TwoHundredThousandOperationsKeepTheirModels) {
  wrong = 0;
  for (const Machine& m : kMachines) storm(scaled<int64_t>(66670, 7000), m);
}

// Ten seeds per machine.
TEST(ModelCheck, DISABLED_TwoMillionOperationsKeepTheirModels) {
  wrong = 0;
  for (uint64_t seed = 10; seed < 20; seed++)
    for (const Machine& m : kMachines) storm(70000, {m.procs, seed * 10 + m.seed});
}

}  // namespace
}  // namespace weft::test
