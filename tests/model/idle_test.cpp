// Who sleeps, who searches, who wakes whom (sched/idle.cpp): no task stays runnable while a P is
// idle and every M sleeps or is busy.
//
// Functions mirror those of the same name in sched/idle.cpp, sched/steal.cpp and sched/park.cpp
// line by line, without the poller, the stop of the world and lone_skip; the ring is the runtime's
// own. An M that gets a task keeps at it: the rest has to be found by others. A thread that the
// runtime would start (start_m) runs where the one that asks for it ends.
#include <utility>

#include "tests/model/idle_ps.hpp"
#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

struct Task {};

struct P {
  rt::RunQueue<Task, 4, Atomic> ring{UINT32_MAX - 2};
  Atomic<Task*> runnext{nullptr};
  P* idle_link = nullptr;

  bool has_local_work() const {
    return ring.size() || runnext.load(memory_order_seq_cst) != nullptr;
  }
};

struct M {
  P* p = nullptr;
  bool searching = false;
  Plain<P*> next_p;
  bool next_searching = false;
  M* idle_link = nullptr;
  Atomic<std::uint32_t> note{0};
  bool busy = false;
};

enum class Step {
  Real,
  NoFence,             // of the producer, between its push and its look
  NoLastLook,          // the M sleeps right after it has given its P back
  LookBeforeGiving,    // the last look comes before the P is idle
  LookBeforeStopping,  // ... before the M stops counting as searcher
  NoHandOn,            // a searcher that finds work wakes no other
  DecrementUnlocked,   // wake_one() gives up after it has released the lock
};

class Idle : public Stepped<Step>, protected IdlePs<P> {
 public:
  using Stepped::Stepped;

  void after(bool) override {
    if (idle_in_the_end() == 0) return;
    check(global_size_.final() == 0, "a task in the global queue, an idle P and nobody awake");
    for (int i = 0; i < procs_; i++) {
      check(p_[i].runnext.final() == nullptr, "a runnext, an idle P and nobody awake");
      check(p_[i].ring.pop(true) == nullptr, "a task in a ring, an idle P and nobody awake");
    }
  }

 protected:
  static constexpr int kPs = 3;
  static constexpr int kMs = 3;
  static constexpr int kSpares = 4;

  // --- set-up ---

  void running(int m, int p, bool searching) {
    m_[m].p = &p_[p];
    m_[m].searching = searching;
    if (searching) searching_.fetch_add(1, memory_order_seq_cst);
  }
  void idle(int p) { push_idle_p(&p_[p]); }
  void procs(int n) { procs_ = n; }

  // --- what a thread does ---

  /// The M's loop, until it is busy or sleeps for ever; then those that it has started.
  void loop(M* mp) {
    find_work(mp);
    run_started();
  }
  void run_started() {
    const int self = Explorer::now().self();
    while (M* mp = started_[self]) {
      started_[self] = std::exchange(mp->idle_link, nullptr);
      find_work(mp);
    }
  }

  /// As ready_list() and commit_yield(): pushes, fences, looks.
  void publish_ring(P* pp, int n) {
    for (int i = 0; i < n; i++) check(pp->ring.push(&task_), "there was room");
    if (step_ != Step::NoFence) publish_fence();
    wake_one();
  }
  /// As put_next(), of a lone G.
  void publish_runnext(P* pp) {
    pp->runnext.exchange(&task_, memory_order_seq_cst);
    if (idle_ps_count_.load(memory_order_seq_cst) != 0) wake_one();
  }
  /// As put_global().
  void publish_global() {
    mu_.lock();
    global_size_.fetch_add(1, memory_order_seq_cst);
    mu_.unlock();
    wake_one();
  }

  P* acquire_idle_p(M* mp) {
    mu_.lock();
    P* pp = pop_idle_p();
    mu_.unlock();
    if (pp) mp->p = pp;
    return pp;
  }

  void wake_one() {
    if (!claim_search()) return;
    mu_.lock();
    P* pp = pop_idle_p();
    if (!pp) {
      if (step_ == Step::DecrementUnlocked) {
        mu_.unlock();
        searching_.fetch_sub(1, memory_order_seq_cst);
        return;
      }
      searching_.fetch_sub(1, memory_order_seq_cst);
      mu_.unlock();
      return;
    }
    give_p_locked(pp, true);
  }

  P p_[kPs];
  M m_[kMs];

 private:
  void give_p_locked(P* pp, bool searching) {
    if (M* mp = idle_ms_) {
      idle_ms_ = mp->idle_link;
      mp->next_p.set(pp);
      mp->next_searching = searching;
      mu_.unlock();
      mp->note.exchange(1, memory_order_release);
      return;
    }
    mu_.unlock();
    M* mp = &spare_[spares_++];  // start_m()
    mp->p = pp;
    mp->searching = searching;
    M*& mine = started_[Explorer::now().self()];
    mp->idle_link = std::exchange(mine, mp);
  }

  void stop_searching(M* mp) {
    if (!mp->searching) return;
    mp->searching = false;
    if (searching_.fetch_sub(1, memory_order_seq_cst) == 1 && step_ != Step::NoHandOn) wake_one();
  }

  bool anything_runnable() {
    if (global_size_.load(memory_order_seq_cst) != 0) return true;
    for (int i = 0; i < procs_; i++)
      if (p_[i].has_local_work()) return true;
    return false;
  }

  bool take_global() {
    if (peek(global_size_) == 0) return false;
    mu_.lock();
    const bool got = peek(global_size_) != 0;
    if (got) global_size_.fetch_sub(1, memory_order_relaxed);
    mu_.unlock();
    return got;
  }

  bool steal_work(M* mp) {
    if (!mp->searching) {
      const std::uint32_t busy = procs_ - peek(idle_ps_count_);
      if (2 * peek(searching_) >= busy) return false;
      mp->searching = true;
      searching_.fetch_add(1, memory_order_seq_cst);
    }
    for (int i = 0; i < procs_; i++) {
      P* victim = &p_[i];
      if (victim == mp->p) continue;
      Task* got[2];
      const std::uint32_t n = victim->ring.empty() ? 0 : victim->ring.steal(got);
      for (std::uint32_t k = 0; k + 1 < n; k++) mp->p->ring.push(got[k]);
      if (n != 0) return true;
      Task* next = peek(victim->runnext);
      if (next && victim->runnext.compare_exchange_strong(next, nullptr, memory_order_acq_rel,
                                                          memory_order_relaxed))
        return true;
    }
    return take_global();
  }

  void find_work(M* mp) {
    for (;;) {
      if (mp->p) {
        bool got = mp->p->ring.pop(false) != nullptr;
        if (!got) got = take_global();
        if (!got) got = steal_work(mp);
        if (got) {
          stop_searching(mp);
          mp->busy = true;
          return;
        }
      }
      if (sleep_until_work(mp)) {
        stop_searching(mp);
        mp->busy = true;
        return;
      }
    }
  }

  /// True: it found a task in the global queue.
  bool sleep_until_work(M* mp) {
    P* pp = mp->p;
    bool early = false;
    if (step_ == Step::LookBeforeGiving && pp) early = anything_runnable();
    mu_.lock();
    if (pp) {
      if (peek(global_size_) != 0) {
        mu_.unlock();
        return take_global();
      }
      mp->p = nullptr;
      push_idle_p(pp);
    }
    mu_.unlock();
    if (step_ == Step::LookBeforeStopping) early = anything_runnable();
    if (mp->searching) {
      mp->searching = false;
      searching_.fetch_sub(1, memory_order_seq_cst);
    }
    const bool look_is_early = step_ == Step::LookBeforeGiving || step_ == Step::LookBeforeStopping;
    if (step_ != Step::NoLastLook && (look_is_early ? early : anything_runnable()) &&
        acquire_idle_p(mp)) {
      mp->searching = true;
      searching_.fetch_add(1, memory_order_seq_cst);
      return false;
    }
    sleep_on_note(mp);
    return false;
  }

  void sleep_on_note(M* mp) {
    mp->note.store(0, memory_order_relaxed);
    mu_.lock();
    mp->idle_link = idle_ms_;
    idle_ms_ = mp;
    mu_.unlock();
    mp->note.sleep_while(0, memory_order_acquire);
    if (P* pp = mp->next_p.get()) {
      mp->next_p.set(nullptr);
      mp->p = pp;
      mp->searching = std::exchange(mp->next_searching, false);
    }
  }

  Task task_;
  Atomic<std::uint32_t> global_size_{0};
  M* idle_ms_ = nullptr;
  int procs_ = 2;
  M* started_[kThreadsMax] = {};
  M spare_[kSpares];
  int spares_ = 0;
};

/// A producer that stays in user code, and one M that goes to sleep.
enum class Where { Ring, Runnext, Global };

template <Where kWhere, bool kSearching, int kTimes = 1>
class OneIdler : public Idle {
 public:
  explicit OneIdler(Step s) : Idle(s) { running(1, 1, kSearching); }
  void thread(int self) override {
    if (self == 1) return loop(&m_[1]);
    for (int i = 0; i < kTimes; i++) {
      if (kWhere == Where::Ring) publish_ring(&p_[0], 1);
      if (kWhere == Where::Runnext) publish_runnext(&p_[0]);
      if (kWhere == Where::Global) publish_global();
    }
    run_started();
  }
};

/// Two tasks at once for two Ms: the one that is woken has to wake the other.
class TwoIdlers : public Idle {
 public:
  explicit TwoIdlers(Step s) : Idle(s) {
    procs(3);
    running(1, 1, true);
    running(2, 2, false);
  }
  void thread(int self) override {
    if (self != 0) return loop(&m_[self]);
    publish_ring(&p_[0], 2);
    run_started();
  }
};

/// Two producers, one M.
class TwoProducers : public Idle {
 public:
  explicit TwoProducers(Step s) : Idle(s) { running(1, 1, true); }
  void thread(int self) override {
    if (self == 1) return loop(&m_[1]);
    if (self == 0)
      publish_ring(&p_[0], 1);
    else
      publish_global();
    run_started();
  }
};

/// A wake-up that finds its P gone, because an M came back from a call and took it; then that M
/// goes idle, while somebody publishes and sees a searcher.
class SnatchedP : public Idle {
 public:
  explicit SnatchedP(Step s) : Idle(s) { idle(1); }
  void thread(int self) override {
    if (self == 0) {
      wake_one();
      run_started();
    } else if (self == 1) {
      publish_global();
      run_started();
    } else if (acquire_idle_p(&m_[1])) {
      loop(&m_[1]);
    }
  }
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      of<OneIdler<Where::Ring, true>>("idle: ring, searching", 2),
      of<OneIdler<Where::Ring, false>>("idle: ring", 2),
      of<OneIdler<Where::Runnext, true>>("idle: runnext, searching", 2),
      of<OneIdler<Where::Global, true>>("idle: global, searching", 2),
      of<OneIdler<Where::Ring, true, 2>>("idle: ring, twice", 2),
  };
  return all;
}

TEST(IdleModel, NoTaskIsLeftBesideASleepingM) {
  for (const Case& c : cases()) expect_holds(c);
}

TEST(IdleModel, NoTaskIsLeftBesideTwoSleepingMs) {
  expect_holds(of<TwoIdlers>("idle: two Ms, two tasks", 3, Step::Real, 2));
}

TEST(IdleModel, NoTaskIsLeftByTwoProducers) {
  expect_holds(of<TwoProducers>("idle: two producers", 3, Step::Real, 3));
}

TEST(IdleModel, NoTaskIsLeftIfAWakeUpFindsItsPGone) {
  expect_holds(of<SnatchedP>("idle: the P was snatched", 3, Step::Real, 3));
}

TEST(IdleModel, NeedsEachStep) {
  using Ring = OneIdler<Where::Ring, true>;
  expect_broken(of<Ring>("idle: no fence", 2, Step::NoFence));
  expect_broken(of<Ring>("idle: no last look", 2, Step::NoLastLook));
  expect_broken(of<Ring>("idle: looks before it gives its P back", 2, Step::LookBeforeGiving));
  expect_broken(of<Ring>("idle: looks before it stops searching", 2, Step::LookBeforeStopping));
  expect_broken(of<TwoIdlers>("idle: no hand-on", 3, Step::NoHandOn, 2));
  expect_broken(of<SnatchedP>("idle: gives up after the lock", 3, Step::DecrementUnlocked, 3));
}

// Of the ring, size() is what the last look reads; a head that is too old only shows work that has
// been taken.
TEST(IdleModel, NoticesWeakenedOrdersOfTheRing) {
  EXPECT_EQ(survivors(cases(), "core/run_queue.hpp", {"size"}),
            (std::set<std::string>{"size: load seq_cst -> acquire"}));
}

// What survives: read-modify-writes that only take a P or a place as searcher away (they read the
// newest value in any case, and it is giving up that has to come before a look); claim_search()'s first
// load, after the producer's fence; and the steal of runnext, whose payload is in
// run_queue_test.cpp.
TEST(IdleModel, NoticesWeakenedOrders) {
  EXPECT_EQ(survivors(cases(), "model/idle_ps.hpp"), (std::set<std::string>{
                                                         "claim_search: cas failure seq_cst -> acquire",
                                                         "claim_search: cas seq_cst -> acq_rel",
                                                         "claim_search: load seq_cst -> acquire",
                                                         "pop_idle_p: sub seq_cst -> acq_rel",
                                                     }));
  EXPECT_EQ(survivors(cases(), "model/idle_test.cpp"),
            (std::set<std::string>{
                "sleep_until_work: add seq_cst -> acq_rel",
                "steal_work: add seq_cst -> acq_rel",
                "steal_work: cas acq_rel -> acquire",
                "steal_work: cas acq_rel -> release",
                "stop_searching: sub seq_cst -> acq_rel",
                "wake_one: sub seq_cst -> acq_rel",
            }));
}

}  // namespace
}  // namespace weft::model
