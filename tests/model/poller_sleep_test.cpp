// One idle M sleeps in the poller, until the earliest timer (sched/idle.cpp, sched/timers.cpp, sched/handoff.cpp):
// while a P is idle and all Ms sleep, no timer is due before that sleep ends, no armed descriptor is without a sleeper,
// no task is left.
//
//   M, going to sleep                         arms a timer (plain thread, or M without a P)
//   until = the earliest timer                timer in the heap
//   poller_until = until, poller_m = me       fence
//   the earliest timer, once more             poller_m? due before poller_until: breaks its sleep
//   earlier than until: does not sleep        nobody there: wakes an M
//
// Functions mirror those of the same name line by line; the break itself is in handoff_test.cpp. Time stands still:
// what counts is who sleeps how long. A thread that start_m() starts runs where the one that asks for it ends.
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

constexpr int kNever = 100;

struct P {
  Atomic<int> earliest{kNever};
  P* idle_link = nullptr;  // under mu
};

struct M {
  P* p = nullptr;
  bool searching = false;
  Field<P*> next_p;
  Field<bool> next_searching{false};
  M* idle_link = nullptr;  // under mu
  Atomic<std::uint32_t> note{0};
};

enum class Step {
  Real,
  NoLookAgain,     // it sleeps without a look at the timers after it can be seen
  NoFence,         // of who arms a timer
  NoBreak,         // who arms a timer does not break the sleep
  ShowsLate,       // poller_until is set after poller_m
  ShowsLateOnly,   // ... and there is no second look
  MaySleepTwice,   // it does not look whether somebody sleeps there
  NoBreakForOther, // an M that finds somebody there does not look how long
  NoWakeForFd,     // who arms a descriptor wakes nobody
  LeavesNoTrace,   // it takes what was handed over before it leaves poller_m
};

class PollerSleep : public Stepped<Step>, protected IdlePs<P> {
 public:
  using Stepped::Stepped;

  void after(bool) override {
    for (M& m : m_) check(m.next_p == nullptr, "a P is handed to an M that does not see it");
    for (int i = 0; i < kThreadsMax; i++) {
      check(!busy_[i], "a thread sleeps on a lock for ever");
      if (awake_[i] || started_[i]) return;  // somebody with a P is awake
    }
    if (idle_in_the_end() == 0) return;
    check(global_size_.final() == 0, "a task, an idle P and nobody awake");
    for (P& p : p_) check(p.earliest.final() >= limit_, "a timer, an idle P, and nobody awakes in time");
    check(waiting_.final() == 0 || in_poller_ != 0, "a descriptor, an idle P and nobody in the poller");
  }

 protected:
  void hold(int m, int p, bool searching = false) {
    m_[m].p = &p_[p];
    m_[m].searching = searching;
    if (searching) searching_.fetch_add(1, memory_order_seq_cst);
  }
  void idle(int p) { push_idle_p(&p_[p]); }
  void asleep(int m) {
    m_[m].idle_link = idle_ms_;
    idle_ms_ = &m_[m];
  }
  void in_poller(int m, int until) {
    poller_m_.store(&m_[m], memory_order_relaxed);
    poller_until_.store(until, memory_order_relaxed);
  }

  // --- what a thread does ---

  void loop(int self, M* mp) {
    busy_[self] = true;
    find_work(self, mp);
    run_started(self);
    busy_[self] = false;
  }
  void wakes_in_poller(int self, M* mp, int until) {
    wait(self, until);
    if (leave_poller(mp)) return loop(self, mp);
    loop(self, mp);
  }
  void wakes_on_note(int self, M* mp) {
    mp->note.sleep_while(0, memory_order_acquire);
    take_over(mp);
    loop(self, mp);
  }

  /// Of a plain thread.
  void timer_arm(int self, int when) {
    busy_[self] = true;
    P* pp = &p_[0];
    heap_mu_.lock();
    if (when < peek(pp->earliest)) pp->earliest.store(when, memory_order_release);
    heap_mu_.unlock();
    if (step_ != Step::NoFence) publish_fence();
    if (poller_m_.load(memory_order_seq_cst)) {
      if (when < poller_until_.load(memory_order_seq_cst) && step_ != Step::NoBreak) wake_poller();
    } else {
      wake_one(self);
    }
    run_started(self);
    busy_[self] = false;
  }
  /// select() of a plain thread.
  void fd_arm(int self) {
    busy_[self] = true;
    waiting_.fetch_add(1, memory_order_seq_cst);
    if (step_ != Step::NoWakeForFd) wake_one(self);
    run_started(self);
    busy_[self] = false;
  }
  void publish_global(int self) {
    busy_[self] = true;
    mu_.lock();
    global_size_.fetch_add(1, memory_order_seq_cst);
    mu_.unlock();
    wake_one(self);
    run_started(self);
    busy_[self] = false;
  }
  /// Of an M whose goroutine is in a call.
  void handoff_p(int self, P* pp) {
    busy_[self] = true;
    const bool work = peek(global_size_) != 0;
    mu_.lock();
    if (work) {
      give_p_locked(self, pp, false);
    } else {
      push_idle_p(pp);
      mu_.unlock();
      const bool timers = peek(pp->earliest) != kNever;
      if (peek(global_size_) != 0 || timers || waiting_.load(memory_order_seq_cst) != 0) {
        if (!peek(poller_m_) || peek(global_size_) != 0)
          wake_one(self);
        else if (pp->earliest.load(memory_order_acquire) < poller_until_.load(memory_order_seq_cst))
          wake_poller();
      }
    }
    run_started(self);
    busy_[self] = false;
  }

  P p_[2];
  M m_[2];

 private:
  static constexpr int kSpares = 3;

  int earliest_timer() {
    int first = kNever;
    for (P& p : p_) {
      const int t = p.earliest.load(memory_order_seq_cst);
      if (t < first) first = t;
    }
    return first;
  }

  bool acquire_idle_p(M* mp) {
    mu_.lock();
    mp->p = pop_idle_p();
    mu_.unlock();
    return mp->p;
  }

  void give_p_locked(int self, P* pp, bool searching) {
    if (M* mp = idle_ms_) {
      idle_ms_ = mp->idle_link;
      mp->next_p = pp;
      mp->next_searching = searching;
      mu_.unlock();
      mp->note.exchange(1, memory_order_release);
      return;
    }
    M* mp = peek(poller_m_);
    if (mp && mp->next_p == nullptr) {
      mp->next_p = pp;
      mp->next_searching = searching;
      mu_.unlock();
      wake_poller();
      return;
    }
    mu_.unlock();
    if (spares_ == kSpares) Explorer::now().give_up();
    mp = &spare_[spares_++];  // start_m()
    mp->p = pp;
    mp->searching = searching;
    mp->idle_link = std::exchange(started_[self], mp);
  }

  void wake_one(int self) {
    if (!claim_search()) return;
    mu_.lock();
    P* pp = pop_idle_p();
    if (!pp) {
      searching_.fetch_sub(1, memory_order_seq_cst);
      mu_.unlock();
      return;
    }
    give_p_locked(self, pp, true);
  }

  void wake_poller() { eventfd_.exchange(1, memory_order_acq_rel); }

  void run_started(int self) {
    while (M* mp = started_[self]) {
      started_[self] = std::exchange(mp->idle_link, nullptr);
      find_work(self, mp);
    }
  }

  bool take_global() {
    if (peek(global_size_) == 0) return false;
    mu_.lock();
    const bool got = peek(global_size_) != 0;
    if (got) global_size_.fetch_sub(1, memory_order_relaxed);
    mu_.unlock();
    return got;
  }

  /// Until it has a task: then it is awake, and looks after timers and descriptors by itself.
  void find_work(int self, M* mp) {
    for (;;) {
      if (mp->p && take_global()) {
        if (std::exchange(mp->searching, false) && searching_.fetch_sub(1, memory_order_seq_cst) == 1) wake_one(self);
        awake_[self] = true;
        return;
      }
      sleep_until_work(self, mp);
    }
  }

  void sleep_until_work(int self, M* mp) {
    if (P* pp = mp->p) {
      mu_.lock();
      if (peek(global_size_) != 0) {
        mu_.unlock();
        return;
      }
      mp->p = nullptr;
      push_idle_p(pp);
      mu_.unlock();
    }
    if (std::exchange(mp->searching, false)) searching_.fetch_sub(1, memory_order_seq_cst);
    if (global_size_.load(memory_order_seq_cst) != 0 && acquire_idle_p(mp)) {
      mp->searching = true;
      searching_.fetch_add(1, memory_order_seq_cst);
      return;
    }
    const int until = earliest_timer();
    if (idle_ps_count_.load(memory_order_seq_cst) == 0) {
    } else if (until != kNever || waiting_.load(memory_order_seq_cst) != 0) {
      mu_.lock();
      const bool free = !peek(poller_m_) || step_ == Step::MaySleepTwice;
      if (free) {
        const bool late = step_ == Step::ShowsLate || step_ == Step::ShowsLateOnly;
        if (!late) poller_until_.store(until, memory_order_seq_cst);
        poller_m_.store(mp, memory_order_seq_cst);
        if (late) poller_until_.store(until, memory_order_seq_cst);
      }
      mu_.unlock();
      if (free) {
        const bool again = step_ != Step::NoLookAgain && step_ != Step::ShowsLateOnly && look_again(until);
        wait(self, again ? 0 : until);
        leave_poller(mp);
        return;
      }
      if (step_ != Step::NoBreakForOther && until < poller_until_.load(memory_order_seq_cst)) wake_poller();
    }
    mp->note.store(0, memory_order_relaxed);
    mu_.lock();
    mp->idle_link = idle_ms_;
    idle_ms_ = mp;
    mu_.unlock();
    busy_[self] = false;
    mp->note.sleep_while(0, memory_order_acquire);
    busy_[self] = true;
    take_over(mp);
  }

  bool look_again(int until) {
    return earliest_timer() < until ||
           (idle_ps_count_.load(memory_order_seq_cst) != 0 && global_size_.load(memory_order_seq_cst) != 0);
  }

  void take_over(M* mp) {
    mp->p = mp->next_p;
    check(mp->p, "an M is woken without a P");
    mp->next_p = nullptr;
    mp->searching = mp->next_searching;
    mp->next_searching = false;
  }

  void wait(int self, int until) {
    check(in_poller_++ == 0, "two sleep in the poller");
    if (until != 0) {
      busy_[self] = false;
      limit_ = until;
      eventfd_.sleep_while(0, memory_order_relaxed);
      limit_ = kNever;
      busy_[self] = true;
    }
    eventfd_.exchange(0, memory_order_acq_rel);
    in_poller_--;
  }

  /// The rest of sleep_in_poller(), without Gs that became ready.
  bool leave_poller(M* mp) {
    P* pp = nullptr;
    if (step_ == Step::LeavesNoTrace) {
      mu_.lock();
      pp = mp->next_p;
      mp->next_p = nullptr;
      mu_.unlock();
    }
    mu_.lock();
    poller_m_.store(nullptr, memory_order_seq_cst);
    if (step_ != Step::LeavesNoTrace) {
      pp = mp->next_p;
      mp->next_p = nullptr;
    }
    bool searching = mp->next_searching;
    mp->next_searching = false;
    if (!pp && (pp = pop_idle_p())) {
      searching = true;
      searching_.fetch_add(1, memory_order_seq_cst);
    }
    mu_.unlock();
    if (!pp) return false;
    mp->p = pp;
    mp->searching = searching;
    return true;
  }

  Lock heap_mu_;
  Atomic<std::uint32_t> global_size_{0}, waiting_{0}, eventfd_{0};
  Atomic<M*> poller_m_{nullptr};
  Atomic<int> poller_until_{0};
  M* idle_ms_ = nullptr;
  M* started_[kThreadsMax] = {};
  M spare_[kSpares];
  int spares_ = 0;
  int in_poller_ = 0;
  int limit_ = kNever;  // of who sleeps in the poller
  bool busy_[kThreadsMax] = {};
  bool awake_[kThreadsMax] = {};
};

/// An M goes to sleep while a timer is armed. kOther: there is a later one. kAlone: the other P is never idle.
template <bool kSearching, bool kOther, bool kAlone = false>
class OneIdler : public PollerSleep {
 public:
  explicit OneIdler(Step s) : PollerSleep(s) {
    hold(0, 1, kSearching);
    if (!kAlone) idle(0);
    if (kOther) p_[1].earliest.store(9, memory_order_relaxed);
  }
  void thread(int self) override {
    if (self == 0) return timer_arm(self, 5);
    loop(self, &m_[0]);
  }
};

/// Two Ms go to sleep.
class TwoIdlers : public PollerSleep {
 public:
  explicit TwoIdlers(Step s) : PollerSleep(s) {
    hold(0, 0);
    hold(1, 1);
    p_[1].earliest.store(9, memory_order_relaxed);
  }
  void thread(int self) override {
    if (self == 0) return timer_arm(self, 5);
    loop(self, &m_[self - 1]);
  }
};

/// One sleeps there, another goes to sleep.
class SleeperAndIdler : public PollerSleep {
 public:
  explicit SleeperAndIdler(Step s) : PollerSleep(s) {
    in_poller(0, 9);
    p_[1].earliest.store(9, memory_order_relaxed);
    hold(1, 1);
    idle(0);
  }
  void thread(int self) override {
    if (self == 0) return timer_arm(self, 5);
    if (self == 1) return wakes_in_poller(self, &m_[0], 9);
    loop(self, &m_[1]);
  }
};

/// One sleeps there, and a P with an earlier timer, of a goroutine's, becomes idle.
class Owner : public PollerSleep {
 public:
  explicit Owner(Step s) : PollerSleep(s) {
    in_poller(0, 9);
    p_[0].earliest.store(9, memory_order_relaxed);
    p_[1].earliest.store(5, memory_order_relaxed);
    hold(1, 1);
    idle(0);
  }
  void thread(int self) override {
    if (self == 0) return wakes_in_poller(self, &m_[0], 9);
    loop(self, &m_[1]);
  }
};

/// A plain thread waits for a descriptor.
template <bool kSearching>
class Descriptor : public PollerSleep {
 public:
  explicit Descriptor(Step s) : PollerSleep(s) {
    hold(0, 1, kSearching);
    idle(0);
  }
  void thread(int self) override {
    if (self == 0) return fd_arm(self);
    loop(self, &m_[0]);
  }
};

/// A task comes while one sleeps there and another goes to sleep.
class Task : public PollerSleep {
 public:
  explicit Task(Step s) : PollerSleep(s) {
    in_poller(0, 9);
    p_[1].earliest.store(9, memory_order_relaxed);
    hold(1, 1);
    idle(0);
  }
  void thread(int self) override {
    if (self == 0) return publish_global(self);
    if (self == 1) return wakes_in_poller(self, &m_[0], 9);
    loop(self, &m_[1]);
  }
};

/// A task comes, and a P is handed off for it.
class TaskAndP : public PollerSleep {
 public:
  explicit TaskAndP(Step s) : PollerSleep(s) {
    in_poller(0, 9);
    p_[1].earliest.store(9, memory_order_relaxed);
    idle(0);
  }
  void thread(int self) override {
    if (self == 0) return publish_global(self);
    if (self == 1) return wakes_in_poller(self, &m_[0], 9);
    handoff_p(self, &p_[1]);
  }
};

/// A P with a timer is handed off. kSleeper: while one sleeps there, or goes to sleep.
template <bool kSleeper>
class HandedOff : public PollerSleep {
 public:
  explicit HandedOff(Step s) : PollerSleep(s) {
    p_[0].earliest.store(5, memory_order_relaxed);
    if (kSleeper) {
      in_poller(0, 9);
      idle(1);
    } else {
      hold(0, 1);
    }
  }
  void thread(int self) override {
    if (self == 0) return handoff_p(self, &p_[0]);
    if (kSleeper) return wakes_in_poller(self, &m_[0], 9);
    loop(self, &m_[0]);
  }
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      of<OneIdler<true, false>>("poller: a timer, an M that searches", 2),
      of<OneIdler<false, false>>("poller: a timer, an M", 2),
      of<OneIdler<true, true, true>>("poller: the only P, an M that searches", 2),
      of<OneIdler<false, true, true>>("poller: the only P", 2),
      of<OneIdler<false, true>>("poller: an earlier timer", 2),
      of<Owner>("poller: a sleeper, a P with an earlier timer", 2),
      of<Descriptor<true>>("poller: a descriptor, an M that searches", 2),
      of<Descriptor<false>>("poller: a descriptor", 2),
      of<HandedOff<true>>("poller: a P with a timer, a sleeper", 2),
      of<HandedOff<false>>("poller: a P with a timer, an M", 2),
  };
  return all;
}

TEST(PollerSleepModel, WakesInTime) {
  for (const Case& c : cases()) expect_holds(c);
}

TEST(PollerSleepModel, HasOneSleeper) {
  expect_holds(of<TwoIdlers>("poller: two Ms, a timer", 3, Step::Real, 2));
  expect_holds(of<SleeperAndIdler>("poller: a sleeper, an M, a timer", 3, Step::Real, 2));
  expect_holds(of<Task>("poller: a sleeper, an M, a task", 3, Step::Real, 2));
  expect_holds(of<TaskAndP>("poller: a sleeper, a task, a P", 3, Step::Real, 2));
}

// The second look and the order in which a sleeper shows how long it sleeps and who it is: one of the two would do.
TEST(PollerSleepModel, LooksTwiceForOneReason) {
  for (Step s : {Step::NoLookAgain, Step::ShowsLate}) {
    expect_holds(of<OneIdler<false, true, true>>("poller: the only P, one reason", 2, s));
    expect_holds(of<SleeperAndIdler>("poller: a sleeper, an M, a timer, one reason", 3, s, 2));
  }
}

TEST(PollerSleepModel, NeedsEachStep) {
  using One = OneIdler<false, true, true>;
  expect_broken(of<One>("poller: no fence", 2, Step::NoFence), "in time");
  expect_broken(of<SleeperAndIdler>("poller: no break", 3, Step::NoBreak, 2), "in time");
  expect_broken(of<OneIdler<false, true>>("poller: shows when after who", 2, Step::ShowsLateOnly), "in time");
  expect_broken(of<TwoIdlers>("poller: anybody sleeps there", 3, Step::MaySleepTwice, 2), "two sleep");
  expect_broken(of<Owner>("poller: no break for another", 2, Step::NoBreakForOther), "in time");
  expect_broken(of<Descriptor<false>>("poller: a descriptor wakes nobody", 2, Step::NoWakeForFd), "descriptor");
  expect_broken(of<TaskAndP>("poller: leaves what is handed over", 3, Step::LeavesNoTrace, 2));
}

// Of who arms a timer and of the sleeper survives what the fence and the look order, or mu.
TEST(PollerSleepModel, NoticesWeakenedOrders) {
  const std::vector<Case> few{
      of<OneIdler<true, false>>("poller: a timer, an M that searches", 2),
      of<OneIdler<false, false>>("poller: a timer, an M", 2),
      of<Descriptor<true>>("poller: a descriptor, an M that searches", 2),
      of<Descriptor<false>>("poller: a descriptor", 2),
  };
  EXPECT_EQ(survivors(few, "model/poller_sleep_test.cpp",
                      {"earliest_timer", "fd_arm", "timer_arm", "sleep_until_work"}),
            (std::set<std::string>{
                "timer_arm: store release -> relaxed",
                "timer_arm: load seq_cst -> acquire",
                "timer_arm: load seq_cst -> acquire #2",
                "sleep_until_work: load seq_cst -> acquire",
                "sleep_until_work: load seq_cst -> acquire #2",
                "sleep_until_work: store seq_cst -> release",
                "sleep_until_work: store seq_cst -> release #2",
                "sleep_until_work: load seq_cst -> acquire #4",
            }));
}

}  // namespace
}  // namespace weft::model
