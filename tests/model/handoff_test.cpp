// Who owns a P while its goroutine is in a blocking call (sched/handoff.cpp, sched/world.cpp), and
// who hears the break of the poller (core/poller.cpp).
//
// The functions mirror enter_syscall(), exit_syscall(), retake_p(), handoff_p() and mark() line by
// line; `queue` stands for what a P's owner does with its plain fields.
#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using rt::PStatus;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

// ---- a P in a call ------------------------------------------------------------------------------

enum class Call {
  Real,
  ExitStores,    // exit_syscall() takes its P back without asking
  RetakeStores,  // sysmon takes it without asking
  EnterLate,     // the M touches its P after it has let go of it
};

template <Call kHow>
class SyscallP : public Program {
 public:
  /// M1's goroutine makes two calls. sysmon retakes the P in one of them; the M that gets it makes
  /// a call too, so M1 may find "its" P in a call that is not its own. The third stops the world.
  void thread(int self) override {
    if (self == 0) {
      for (int i = 0; i < 2 && mine_; i++) {
        enter_syscall();
        mine_ = exit_syscall();
      }
      if (mine_) own();
    } else if (self == 1) {
      if (!retake()) return;
      own();  // handoff_p(): another M has it now
      enter_syscall();
      if (exit_syscall()) own();
    } else {
      mark();
    }
  }

  void after(bool stuck) override {
    Program::after(stuck);
    check(owners_ <= 1, "a P has two owners");
    check(!stopped_ || owners_ == 0, "a stopped P has an owner");
  }

 private:
  void own() { queue_.set(queue_.get() + 1); }

  void enter_syscall() {
    own();
    owners_--;
    status_.store(PStatus::Syscall, memory_order_release);
    if (kHow == Call::EnterLate) queue_.set(0);
  }

  bool exit_syscall() {
    if (kHow == Call::ExitStores) {
      if (peek(status_) != PStatus::Syscall) return false;
      status_.store(PStatus::Running, memory_order_release);
    } else {
      PStatus mine = PStatus::Syscall;
      if (!status_.compare_exchange_strong(mine, PStatus::Running, memory_order_acq_rel,
                                           memory_order_relaxed))
        return false;
    }
    taken();
    return true;
  }

  bool retake() {
    if (kHow == Call::RetakeStores) {
      if (status_.load(memory_order_acquire) != PStatus::Syscall) return false;
      status_.store(PStatus::Running, memory_order_release);
    } else {
      PStatus in_call = PStatus::Syscall;
      if (!status_.compare_exchange_strong(in_call, PStatus::Running, memory_order_acq_rel,
                                           memory_order_relaxed))
        return false;
    }
    taken();
    return true;
  }

  void mark() {
    PStatus s = status_.load(memory_order_acquire);
    if (s != PStatus::Syscall) return;
    if (!status_.compare_exchange_strong(s, PStatus::Stopped, memory_order_acq_rel,
                                         memory_order_relaxed))
      return;
    stopped_ = true;
    own();  // the stopper reads the P of a stopped world
  }

  void taken() {
    owners_++;
    check(owners_ == 1, "a P has two owners");
    own();
  }

  Atomic<PStatus> status_{PStatus::Running};
  Plain<int> queue_;
  bool mine_ = true;
  bool stopped_ = false;
  int owners_ = 1;
};

TEST(SyscallModel, APInACallHasOneTaker) {
  expect_holds(of<SyscallP<Call::Real>>("call: exit and retake", 2));
  expect_holds(of<SyscallP<Call::Real>>("call: exit, retake and stop", 3));
}

TEST(SyscallModel, NeedsEachStep) {
  expect_broken(of<SyscallP<Call::ExitStores>>("call: exit stores", 2));
  expect_broken(of<SyscallP<Call::RetakeStores>>("call: retake stores", 2));
  expect_broken(of<SyscallP<Call::EnterLate>>("call: touches its P after entering", 2), "race");
}

// mark() looks once before its compare-exchange, which orders. What takes a P releases nothing by
// that: it does so when it lets go.
TEST(SyscallModel, NoticesWeakenedOrders) {
  EXPECT_EQ(survivors({of<SyscallP<Call::Real>>("call: exit and retake", 2),
                       of<SyscallP<Call::Real>>("call: exit, retake and stop", 3)},
                      "model/handoff_test.cpp"),
            (std::set<std::string>{
                "exit_syscall: cas acq_rel -> acquire",
                "retake: cas acq_rel -> acquire",
                "mark: load acquire -> relaxed",
                "mark: cas acq_rel -> acquire",
            }));
}

// ---- the poller's break -------------------------------------------------------------------------

enum class Break {
  Real,
  AnybodyTakes,      // edge-triggered, and whoever polls takes the break back
  ClearsBeforeRead,  // break_pending goes to 0 before the eventfd is read
  NoSkip,            // (harmless) every wake() writes
};

/// A sleeper, two wakers of which one wakes twice, and an M that looks into the poller in passing.
/// Each wake() comes after a hand-over that the sleeper must see before it sleeps on.
template <Break kHow>
class PollerBreak : public Program {
 public:
  void thread(int self) override {
    if (self == 0) {
      while (seen_ < kHandOvers) {
        sleep();
        mu_.lock();  // sleep_in_poller(): looks what was handed over
        seen_ = handed_over_;
        mu_.unlock();
      }
    } else if (self == 1) {
      hand_over();
    } else if (self == 2) {
      hand_over();
      hand_over();
    } else {
      look();
    }
  }

  void after(bool stuck) override { check(!stuck, "the sleeper sleeps on though it was woken"); }

 private:
  static constexpr int kHandOvers = 3;

  void hand_over() {
    mu_.lock();
    handed_over_++;
    mu_.unlock();
    wake();
  }
  void wake() {
    if (break_pending_.exchange(1, memory_order_acq_rel) != 0 && kHow != Break::NoSkip) return;
    eventfd_.exchange(1, memory_order_relaxed);  // the kernel's own locks order more than this
  }
  /// epoll_pwait2() with the sleeper's limit.
  void sleep() {
    eventfd_.sleep_while(0, memory_order_relaxed);
    take_back();
  }
  /// epoll_pwait2() with a limit of 0.
  void look() {
    if (peek(eventfd_) == 0) return;
    if (kHow == Break::AnybodyTakes) take_back();
  }
  void take_back() {
    if (kHow == Break::ClearsBeforeRead) {
      break_pending_.exchange(0, memory_order_acq_rel);
      eventfd_.exchange(0, memory_order_relaxed);
    } else {
      eventfd_.exchange(0, memory_order_relaxed);
      break_pending_.exchange(0, memory_order_acq_rel);
    }
  }

  Lock mu_;
  int handed_over_ = 0;
  int seen_ = 0;
  Atomic<std::uint32_t> break_pending_{0};
  Atomic<std::uint32_t> eventfd_{0};
};

TEST(PollerModel, AWakeUpReachesTheSleeper) {
  expect_holds(of<PollerBreak<Break::Real>>("poller: two wakers and a look", 4));
  expect_holds(of<PollerBreak<Break::NoSkip>>("poller: every wake writes", 4));
}

TEST(PollerModel, NeedsEachStep) {
  expect_broken(of<PollerBreak<Break::AnybodyTakes>>("poller: a look takes the break", 4), "sleeps on");
  expect_broken(of<PollerBreak<Break::ClearsBeforeRead>>("poller: clears before it reads", 4), "sleeps on");
}

}  // namespace
}  // namespace weft::model
