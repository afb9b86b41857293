// The stop of the world on the model's atomics, for world_test.cpp, which says what it keeps.
//
// Functions mirror those of the same name in sched/world.cpp, handoff.cpp, idle.cpp, loop.cpp, park.cpp and
// threads.cpp line by line, without poller and timers. A P's own queue cannot be stolen from here. The stopper's naps
// are tried both ways: it looks again, or sleeps until it is woken. A thread that start_m() starts is one that has
// done its own part.
#pragma once

#include <utility>

#include "tests/model/idle_ps.hpp"
#include "tests/model/mutants.hpp"

namespace weft::model {

using rt::PStatus;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

constexpr std::uint32_t kAttendStop = 1;

/// A goroutine: what it does, one letter each. w: works; s: comes to a safepoint; e, x: enters and leaves a call; b:
/// enters one and hands its P off at once; k: stays there until the world has been stopped; S: stops it and starts it.
struct G {
  const char* does = "";
  Field<int> at{0};
  bool done = false;
};

struct M;

struct P {
  int id = 0;
  Atomic<PStatus> status{PStatus::Idle};
  Atomic<std::uint32_t> attention{0};
  Field<M*> m{nullptr};
  Field<std::uint32_t> size{0};  // its holder's
  Field<G*> queue[2];            // ditto
  Field<int> used;               // ditto
  P* idle_link = nullptr;  // under mu
  M* last_m = nullptr;     // under mu
};

struct M {
  P* p = nullptr;
  P* old_p = nullptr;
  bool searching = false;
  Field<P*> next_p;
  Field<bool> next_searching{false};
  M* idle_link = nullptr;  // under mu
  Atomic<std::uint32_t> note{0};
  G* runs = nullptr;
};

enum class Step {
  Real,
  MarksOnce,        // the stopper does not look again at those that it has asked
  MarkStores,       // it takes a P in a call without asking
  HandoffForgets,   // a P that is handed off while the world stops becomes idle
  SleepForgets,     // an M that stops does not count itself down
  SleepIsIdle,      // ... gives its P to the idle ones
  NoLastLook,       // an M whose stop was called off meanwhile does not look at what it leaves
  KeepsIdle,        // the idle Ps stay on their list
  AcquiresStopped,  // an M takes an idle P while the world stops
  WakesStopped,     // wake_one() does
  MarksUnlocked,    // the count is begun before mu is held
  NoWakeAtStart,    // nobody is woken for what came meanwhile
  StartLeavesBit,   // the wish to stop stays
  BlocksWithP,      // a second stopper waits for its turn with a P in hand
  FailsUncounted,   // a thread that cannot be started takes its P out of the count
};

class World : public Stepped<Step>, protected IdlePs<P> {
 public:
  static constexpr int kPreemptions = 2;

  World(Step s, int ps, bool no_threads = false) : Stepped(s), procs_(ps), no_threads_(no_threads) {
    for (int i = 0; i < kPs; i++) p_[i].id = i;
  }

  void after(bool) override {
    if (start_q_.final()) return;  // a thread more than this program has
    // A stopper that sleeps looks again some time.
    if (stopper_sleeps_) {
      if (step_ != Step::MarksOnce) mark(nullptr, false);
      check(stop_wait_ == 0, "a stop never returns");
      return;
    }
    for (int i = 0; i < kThreadsMax; i++) check(!busy_[i], "a thread sleeps for ever");
    check(gave_up_ || stop_wait_ == 0, "stop_wait is off");
    check(detached_ == 0, "detached is off: everybody is done");
    const int idle = idle_in_the_end();
    for (int i = 0; i < procs_; i++) {
      check(p_[i].status.final() != PStatus::Stopped, "a P stays stopped");
      check(!(p_[i].attention.final() & kAttendStop), "a P is asked to stop, by nobody");
    }
    for (G& g : g_) check(g.done || !*g.does, "a goroutine is left beside Ms that sleep");
    check(idle == procs_, "a P is lost");
    check(global_size_.final() == 0, "global_size is off");
  }

 protected:
  static constexpr int kPs = 2;
  static constexpr int kGs = 3;

  // --- set-up ---

  /// M `m` holds P `p` and runs the goroutine.
  void running(int m, int p, G& g) {
    hold(m, p);
    m_[m].runs = &g;
  }
  void hold(int m, int p) {
    m_[m].p = &p_[p];
    p_[p].m = &m_[m];
    p_[p].status.store(PStatus::Running, memory_order_relaxed);
  }
  void queued(int p, G& g) {
    p_[p].queue[0] = &g;
    p_[p].size = 1;
  }
  void idle(int p) { push_idle_p(&p_[p]); }
  void asleep(int m) {
    m_[m].idle_link = idle_ms_;
    idle_ms_ = &m_[m];
  }

  // --- what a thread does ---

  void m_main(int self, int m) {
    M* mp = &m_[m];
    busy_[self] = true;
    if (mp->runs) {
      run(mp, mp->runs);
    } else if (!mp->p) {
      wait_on_note(self, mp);
    }
    loop(self, mp);
  }

  /// A thread that is not there yet.
  void next_thread(int self) {
    if (std::exchange(retry_, false)) wake_one();  // sysmon tries again
    for (;;) {
      busy_[self] = false;
      start_q_.sleep_while(nullptr, memory_order_acquire);
      busy_[self] = true;
      M* mp = start_q_.exchange(nullptr, memory_order_acquire);
      if (!mp) continue;
      if (mp->idle_link) Explorer::now().give_up();  // too many are started at once
      awake(mp);
      loop(self, mp);
    }
  }

  /// A plain thread's stop, look and start. `limited`: it may give up.
  void stopper(int self, bool limited = false) {
    busy_[self] = true;
    world_.lock();
    if (stop_world(self, nullptr, limited)) look_at_all();
    start_world(nullptr);
    next_thread(self);
  }

  /// Another thread readies a goroutine.
  void publish(int self, G& g) {
    busy_[self] = true;
    put_global(&g);
    wake_one();
    next_thread(self);
  }

  void sysmon(int self, int p) {
    busy_[self] = true;
    retake_p(&p_[p]);
    next_thread(self);
  }

  G g_[kGs];
  P p_[kPs];
  M m_[3];

 private:
  static constexpr int kLooks = 1;
  static constexpr int kTries = 2;
  static constexpr int kSpares = 3;

  // --- sched/world.cpp ---

  void ask_to_stop(P* pp) {
    // Of its goroutine it is not said that it heeds ask_running(): another may run by then.
    pp->attention.fetch_or(kAttendStop, memory_order_relaxed);
  }

  void mark(P* own, bool first) {
    for (int i = 0; i < procs_; i++) {
      P* pp = &p_[i];
      if (pp == own) continue;
      PStatus s = pp->status.load(memory_order_acquire);
      if (s == PStatus::Syscall) {
        detached_++;
        bool taken = true;
        if (step_ == Step::MarkStores)
          pp->status.store(PStatus::Stopped, memory_order_release);
        else
          taken = pp->status.compare_exchange_strong(s, PStatus::Stopped, memory_order_acq_rel, memory_order_relaxed);
        if (taken) {
          pp->attention.fetch_and(~kAttendStop, memory_order_relaxed);
          if (!first) count_down();
          continue;
        }
        detached_--;
        s = PStatus::Running;
      }
      if (s == PStatus::Running) {
        if (first) stop_wait_ = stop_wait_ + 1;
        ask_to_stop(pp);
      } else if (s == PStatus::Idle && first) {
        pp->status.store(PStatus::Stopped, memory_order_release);
      }
    }
  }

  void count_down() {
    stop_wait_ = stop_wait_ - 1;
    check(stop_wait_ >= 0, "a P is counted down twice");
    if (stop_wait_ == 0) stop_note_.exchange(1, memory_order_release);
  }

  bool stop_world(int self, P* own, bool limited = false) {
    stop_note_.exchange(0, memory_order_acquire);
    if (step_ == Step::MarksUnlocked) {
      stop_wait_ = 0;
      mark(own, true);
      mu_.lock();
      stopping_ = true;
    } else {
      mu_.lock();
      check(!stopping_, "two stoppers");
      stopping_ = true;
      stop_wait_ = 0;
      mark(own, true);
    }
    if (step_ != Step::KeepsIdle) {
      idle_ps_ = nullptr;
      idle_ps_count_.store(0, memory_order_seq_cst);
    }
    bool all = stop_wait_ == 0;
    mu_.unlock();
    for (int looks = kLooks; !all;) {
      if (looks-- <= 0 || choose(2)) {
        stopper_sleeps_ = true;
        busy_[self] = false;
        stop_note_.sleep_while(0, memory_order_acquire);
        stopper_sleeps_ = false;
        busy_[self] = true;
      }
      mu_.lock();
      all = stop_wait_ == 0;
      if (!all && step_ != Step::MarksOnce) mark(own, false);
      all = stop_wait_ == 0;
      mu_.unlock();
      if (!all && limited && choose(2)) return gave_up_ = true, false;
    }
    return true;
  }

  /// Of a stopped world: all Ps are the stopper's.
  void look_at_all() {
    for (int i = 0; i < procs_; i++) p_[i].used = p_[i].used + 1;
    looked_.store(1, memory_order_relaxed);
  }

  void start_world(P* own) {
    P* busy = nullptr;
    mu_.lock();
    stopping_ = false;
    for (int i = procs_; i-- > 0;) {
      P* pp = &p_[i];
      if (step_ != Step::StartLeavesBit) pp->attention.fetch_and(~kAttendStop, memory_order_relaxed);
      if (pp == own || pp->status.load(memory_order_acquire) != PStatus::Stopped) continue;
      if (has_local_work(pp)) {
        pp->status.store(PStatus::Running, memory_order_release);
        pp->idle_link = busy;
        busy = pp;
      } else {
        push_idle_p(pp);
      }
    }
    mu_.unlock();
    while (busy) {
      P* pp = std::exchange(busy, busy->idle_link);
      pp->idle_link = nullptr;
      mu_.lock();
      give_p_locked(pp, false);
    }
    world_.unlock();
    if (step_ != Step::NoWakeAtStart) wake_one();
  }

  /// Of a goroutine. False: another stopper is at work, and it comes to a safepoint.
  bool lock_world() {
    if (step_ == Step::BlocksWithP) return world_.lock(), true;
    if (world_.try_lock()) return true;
    if (++tries_ > kTries) Explorer::now().give_up();  // it goes on trying
    return false;
  }

  // --- sched/idle.cpp ---

  static bool has_local_work(P* pp) { return pp->size != 0; }

  P* pop_idle_p() {
    P* pp = IdlePs::pop_idle_p();
    if (pp) pp->status.store(PStatus::Running, memory_order_release);
    return pp;
  }
  void push_idle_p(P* pp) {
    pp->status.store(PStatus::Idle, memory_order_release);
    IdlePs::push_idle_p(pp);
  }
  void bind_p(M* mp, P* pp) {
    check(!mp->p && pp->m == nullptr, "a P has two owners");
    mp->p = pp;
    pp->m = mp;
    pp->status.store(PStatus::Running, memory_order_release);
  }
  P* unbind_p(M* mp) {
    P* pp = std::exchange(mp->p, nullptr);
    pp->m = nullptr;
    return pp;
  }
  bool acquire_idle_p(M* mp) {
    mu_.lock();
    P* pp = stopping_ && step_ != Step::AcquiresStopped ? nullptr : pop_idle_p();
    mu_.unlock();
    if (pp) bind_p(mp, pp);
    return pp;
  }

  void give_p_locked(P* pp, bool searching) {
    M** at = &idle_ms_;
    if (M* before = std::exchange(pp->last_m, nullptr)) {
      while (*at && *at != before) at = &(*at)->idle_link;
      if (!*at) at = &idle_ms_;
    }
    if (M* mp = *at) {
      *at = mp->idle_link;
      mp->next_p = pp;
      mp->next_searching = searching;
      mu_.unlock();
      mp->note.exchange(1, memory_order_release);
      return;
    }
    mu_.unlock();
    start_m(pp, searching);
  }

  void start_m(P* pp, bool searching) {
    if (!no_threads_) {
      check(spares_ < kSpares, "too many threads are started");
      M* mp = &spare_[spares_++];
      mp->next_p = pp;
      mp->next_searching = searching;
      mp->idle_link = start_q_.exchange(mp, memory_order_release);
      return;
    }
    no_threads_ = false;
    mu_.lock();
    if (stopping_) {
      pp->status.store(PStatus::Stopped, memory_order_release);
      pp->attention.fetch_and(~kAttendStop, memory_order_relaxed);
      if (step_ != Step::FailsUncounted) count_down();
    } else {
      push_idle_p(pp);
    }
    if (searching) searching_.fetch_sub(1, memory_order_seq_cst);
    mu_.unlock();
    retry_ = true;
  }

  void wake_one() {
    if (!claim_search()) return;
    mu_.lock();
    P* pp = stopping_ && step_ != Step::WakesStopped ? nullptr : pop_idle_p();
    if (!pp) {
      searching_.fetch_sub(1, memory_order_seq_cst);
      mu_.unlock();
      return;
    }
    give_p_locked(pp, true);
  }

  void stop_searching(M* mp) {
    if (!mp->searching) return;
    mp->searching = false;
    if (searching_.fetch_sub(1, memory_order_seq_cst) == 1) wake_one();
  }

  void sleep_until_work(int self, M* mp) {
    P* pp = mp->p;
    const bool left = pp && has_local_work(pp);  // the world may be started between the loop's look and ours
    mu_.lock();
    if (pp) {
      if (stopping_ && (peek(pp->attention) & kAttendStop) && step_ != Step::SleepIsIdle) {
        unbind_p(mp);
        pp->last_m = mp;
        pp->status.store(PStatus::Stopped, memory_order_release);
        pp->attention.fetch_and(~kAttendStop, memory_order_relaxed);
        if (step_ != Step::SleepForgets) count_down();
      } else if (peek(global_size_) != 0) {
        mu_.unlock();
        return;  // take_global(), in the loop
      } else {
        unbind_p(mp);
        push_idle_p(pp);
      }
    }
    mu_.unlock();
    if (mp->searching) {
      mp->searching = false;
      searching_.fetch_sub(1, memory_order_seq_cst);
    }
    if (step_ != Step::NoLastLook && (left || global_size_.load(memory_order_seq_cst) != 0) &&
        acquire_idle_p(mp)) {
      mp->searching = true;
      searching_.fetch_add(1, memory_order_seq_cst);
      return;
    }
    mp->note.exchange(0, memory_order_acquire);
    mu_.lock();
    mp->idle_link = idle_ms_;
    idle_ms_ = mp;
    mu_.unlock();
    wait_on_note(self, mp);
  }

  void wait_on_note(int self, M* mp) {
    busy_[self] = false;
    mp->note.sleep_while(0, memory_order_acquire);
    busy_[self] = true;
    awake(mp);
  }
  void awake(M* mp) {
    P* pp = mp->next_p;
    check(pp, "an M is woken without a P");
    mp->next_p = nullptr;
    bind_p(mp, pp);
    mp->searching = mp->next_searching;
    mp->next_searching = false;
  }

  // --- the loop ---

  void loop(int self, M* mp) {
    for (;;) {
      P* pp = mp->p;
      if (pp && !(peek(pp->attention) & kAttendStop)) {
        if (G* gp = take(pp)) {
          stop_searching(mp);
          run(mp, gp);
          continue;
        }
      }
      sleep_until_work(self, mp);
    }
  }

  G* take(P* pp) {
    if (const std::uint32_t n = pp->size) {
      pp->size = n - 1;
      return pp->queue[n - 1];
    }
    if (peek(global_size_) == 0) return nullptr;
    mu_.lock();
    G* gp = nullptr;
    if (const std::uint32_t n = peek(global_size_)) {
      gp = global_[n - 1];
      global_size_.fetch_sub(1, memory_order_relaxed);
    }
    mu_.unlock();
    return gp;
  }

  void put_global(G* gp) {
    mu_.lock();
    global_[peek(global_size_)] = gp;
    global_size_.fetch_add(1, memory_order_seq_cst);
    mu_.unlock();
  }

  // --- goroutines ---

  /// Until it is done or has left its M.
  void run(M* mp, G* gp) {
    for (; gp->does[gp->at]; gp->at = gp->at + 1) {
      switch (gp->does[gp->at]) {
        case 'w': mp->p->used = mp->p->used + 1; break;
        case 's':
          if (choose(2)) return gp->at = gp->at + 1, next(mp, gp);  // asked, or not
          break;
        case 'e': enter_syscall(mp); break;
        case 'b': enter_without_p(mp); break;
        case 'k': looked_.sleep_while(0, memory_order_relaxed); break;
        case 'x':
          if (!exit_syscall(mp, gp)) return;
          break;
        case 'S':
          if (!lock_world()) return next(mp, gp);
          stop_world(Explorer::now().self(), mp->p);
          look_at_all();
          start_world(mp->p);
          break;
      }
    }
    gp->done = true;
  }

  /// safepoint_now() of a goroutine that is asked: commit_preempted(), on g0.
  void next(M* mp, G* gp) {
    P* pp = mp->p;
    if (peek(pp->attention) & kAttendStop) {
      put_local(pp, gp);
      return;
    }
    put_global(gp);
    wake_one();
  }
  void put_local(P* pp, G* gp) {
    const std::uint32_t n = pp->size;
    pp->queue[n] = gp;
    pp->size = n + 1;
  }

  // --- sched/handoff.cpp ---

  void enter_syscall(M* mp) {
    P* pp = mp->p;
    pp->used = pp->used + 1;
    mp->old_p = pp;
    mp->p = nullptr;
    pp->m = nullptr;
    pp->status.store(PStatus::Syscall, memory_order_release);
  }

  void enter_without_p(M* mp) {
    mp->old_p = nullptr;
    detached_++;
    handoff_p(unbind_p(mp));
  }

  /// False: its goroutine has left it.
  bool exit_syscall(M* mp, G* gp) {
    P* pp = mp->old_p;
    PStatus mine = PStatus::Syscall;
    if (pp && pp->status.compare_exchange_strong(mine, PStatus::Running, memory_order_acq_rel, memory_order_relaxed)) {
      mp->p = pp;
      pp->m = mp;
      if (peek(pp->attention) == 0) return true;
      gp->at = gp->at + 1;
      next(mp, gp);
      return false;
    }
    // reacquire_p()
    if (acquire_idle_p(mp)) {
      detached_--;
      return true;
    }
    gp->at = gp->at + 1;
    put_global(gp);  // commit_queue_global()
    detached_--;
    wake_one();
    return false;
  }

  void retake_p(P* pp) {
    PStatus in_call = PStatus::Syscall;
    detached_++;
    if (!pp->status.compare_exchange_strong(in_call, PStatus::Running, memory_order_acq_rel, memory_order_relaxed)) {
      detached_--;
      return;
    }
    handoff_p(pp);
  }

  void handoff_p(P* pp) {
    const bool work = has_local_work(pp) || peek(global_size_) != 0;
    mu_.lock();
    if (stopping_ && step_ != Step::HandoffForgets) {
      pp->status.store(PStatus::Stopped, memory_order_release);
      pp->attention.fetch_and(~kAttendStop, memory_order_relaxed);
      check(stop_wait_ > 0, "a P that nobody waits for is handed off");
      count_down();
      mu_.unlock();
      return;
    }
    if (work) {
      give_p_locked(pp, false);
      return;
    }
    push_idle_p(pp);
    mu_.unlock();
    if (has_local_work(pp) || peek(global_size_) != 0) wake_one();
  }

  const int procs_;
  bool no_threads_;
  Lock world_;
  Atomic<std::uint32_t> global_size_{0}, stop_note_{0}, looked_{0};
  int detached_ = 0;  // only counts
  G* global_[kGs + 1] = {};  // under mu
  M* idle_ms_ = nullptr;     // under mu
  Field<bool> stopping_{false};
  Field<int> stop_wait_{0};
  M spare_[kSpares];
  int spares_ = 0;
  Atomic<M*> start_q_{nullptr};
  bool busy_[kThreadsMax] = {};
  bool stopper_sleeps_ = false;
  bool gave_up_ = false;
  bool retry_ = false;
  int tries_ = 0;
};

}  // namespace weft::model
