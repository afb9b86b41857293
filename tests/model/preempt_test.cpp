// Taking a P from under a goroutine that is in user code (sched/preempt.cpp): it has one owner at a time, who enters
// the runtime without it finds out before it touches anything, and under NoPreempt it stays.
//
//   goroutine, in Inside         taker, holding M::take
//   depth = 1                    preempt = 1
//   (compiler barrier)           membarrier
//   preempt set? slow path       depth == 0 ? the P is taken : refused
//
// The functions mirror Inside, keeps_p(), reacquire_p(), NoPreempt, free_by_barrier() and retake_p(). The barrier is a
// fence in each of the two, where the goroutine has a compiler barrier. `queue` is what a P's owner does with it.
#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using rt::PStatus;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

enum class Step {
  Real,
  NoBarrier,       // nobody makes the goroutine's store come before its look
  LooksFirst,      // it looks for the wish, then raises its depth
  WishLate,        // the taker looks at the depth, then wishes
  NoSwitches,      // the taker does not look whether the goroutine has been at a safepoint meanwhile
  ClearsUnlocked,  // who comes back without its P takes a wish away that belongs to another taker
  NoWait,          // who finds the wish does not wait for the taker
  GuardFirst,      // the taker looks for a guard, then at the depth
  GuardLate,       // a guard begins when its constructor has left the runtime
  LetsGoStores,    // who comes back takes its P without asking
};

class Preempt : public Stepped<Step> {
 public:
  using Stepped::Stepped;

  void after(bool stuck) override {
    Program::after(stuck);
    check(owners_ == 1, "a P has not one owner");
  }

 protected:
  /// A runtime call. False: it has no P any more, and is queued.
  bool call() {
    if (!enter()) return false;
    queue_.set(queue_.get() + 1);
    leave();
    return true;
  }

  /// Between these it keeps its P.
  bool guard() {
    if (!enter()) return false;
    if (step_ != Step::GuardLate) no_preempt_.store(1, memory_order_release);
    leave();
    if (step_ == Step::GuardLate) no_preempt_.store(1, memory_order_release);
    guarded_ = owner_;
    return true;
  }
  void unguard() {
    guarded_ = false;
    no_preempt_.store(0, memory_order_release);
  }

  /// free_by_barrier(), then retake_p(): another M has the P.
  void take() {
    take_.lock();
    const int switches = switches_.load(memory_order_acquire);
    if (step_ != Step::WishLate) preempt_.store(1, memory_order_relaxed);
    if (step_ != Step::NoBarrier) publish_fence();
    bool may_go;
    if (step_ == Step::GuardFirst)
      may_go = no_preempt_.load(memory_order_acquire) == 0 && depth_.load(memory_order_acquire) == 0;
    else
      may_go = depth_.load(memory_order_acquire) == 0 && no_preempt_.load(memory_order_acquire) == 0;
    if (step_ != Step::NoSwitches) may_go = may_go && switches_.load(memory_order_acquire) == switches;
    if (may_go && owner_) {
      check(!guarded_, "a P is taken from who has asked to keep it");
      preempt_.store(1, memory_order_relaxed);
      p_.set(false);
      owner_ = false;
      owners_--;
      status_.store(PStatus::Syscall, memory_order_release);
    }
    take_.unlock();
    PStatus in_call = PStatus::Syscall;
    if (!status_.compare_exchange_strong(in_call, PStatus::Running, memory_order_acq_rel, memory_order_relaxed)) return;
    owners_++;
    check(owners_ == 1, "a P has two owners");
    queue_.set(queue_.get() + 1);
  }

 private:
  bool enter() {
    bool wish = false;
    if (step_ == Step::LooksFirst) wish = preempt_.load(memory_order_relaxed);
    depth_.store(1, memory_order_relaxed);
    if (step_ != Step::NoBarrier) publish_fence();
    if (step_ != Step::LooksFirst) wish = preempt_.load(memory_order_relaxed);
    if (!wish) {
      check(p_.get(), "a goroutine is in the runtime without its P, and does not know");
      return true;
    }
    if (step_ != Step::NoWait) {  // keeps_p()
      take_.lock();
      take_.unlock();
    }
    if (p_.get()) {  // a safepoint; it comes back at once
      preempt_.store(0, memory_order_relaxed);
      switches_.store(peek(switches_) + 1, memory_order_relaxed);
      return true;
    }
    // reacquire_p()
    if (step_ != Step::ClearsUnlocked) take_.lock();
    preempt_.store(0, memory_order_relaxed);
    if (step_ != Step::ClearsUnlocked) take_.unlock();
    if (step_ == Step::LetsGoStores) {
      if (status_.load(memory_order_acquire) != PStatus::Syscall) return false;
      status_.store(PStatus::Running, memory_order_release);
    } else {
      PStatus mine = PStatus::Syscall;
      if (!status_.compare_exchange_strong(mine, PStatus::Running, memory_order_acq_rel, memory_order_relaxed))
        return false;
    }
    p_.set(true);
    owner_ = true;
    owners_++;
    check(owners_ == 1, "a P has two owners");
    return true;
  }
  void leave() { depth_.store(0, memory_order_release); }

  Lock take_;
  Atomic<int> depth_{0}, preempt_{0}, no_preempt_{0}, switches_{0};
  Atomic<PStatus> status_{PStatus::Running};
  Plain<bool> p_{true};  // M::p
  Plain<int> queue_;
  bool owner_ = true;  // the goroutine's M
  bool guarded_ = false;
  int owners_ = 1;
};

/// A goroutine in two runtime calls.
class Calls : public Preempt {
 public:
  using Preempt::Preempt;
  void thread(int self) override {
    if (self == 1) return take();
    for (int i = 0; i < 2; i++)
      if (!call()) return;
  }
};

/// ... with a guard around the second.
class Guards : public Preempt {
 public:
  using Preempt::Preempt;
  void thread(int self) override {
    if (self == 1) return take();
    if (!guard()) return;
    if (!call()) return;
    unguard();
    call();
  }
};

/// Two takers, one after the other.
class TwoTakers : public Preempt {
 public:
  using Preempt::Preempt;
  void thread(int self) override {
    if (self != 0) return take();
    for (int i = 0; i < 2; i++)
      if (!call()) return;
  }
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      of<Calls>("preempt: two calls", 2),
      of<Guards>("preempt: a guard", 2),
  };
  return all;
}

TEST(PreemptModel, APHasOneOwnerAndAGuardKeepsIt) {
  for (const Case& c : cases()) expect_holds(c);
  expect_holds(of<TwoTakers>("preempt: two takers", 3, Step::Real, 3));
}

TEST(PreemptModel, NeedsEachStep) {
  expect_broken(of<Calls>("preempt: no barrier", 2, Step::NoBarrier));
  expect_broken(of<Calls>("preempt: looks first", 2, Step::LooksFirst));
  expect_broken(of<Calls>("preempt: wishes late", 2, Step::WishLate));
  expect_broken(of<TwoTakers>("preempt: no look at the switches", 3, Step::NoSwitches, 3), "race");
  expect_broken(of<TwoTakers>("preempt: clears the wish of another", 3, Step::ClearsUnlocked, 3), "race");
  expect_broken(of<Calls>("preempt: does not wait for the taker", 2, Step::NoWait));
  expect_broken(of<Guards>("preempt: looks for a guard first", 2, Step::GuardFirst), "asked to keep");
  expect_broken(of<Guards>("preempt: a guard begins late", 2, Step::GuardLate), "asked to keep");
  expect_broken(of<Calls>("preempt: takes its P without asking", 2, Step::LetsGoStores));
}

// The loads after the barrier that survive are of what the depth says already; a guard's stores are followed by that of
// the depth.
TEST(PreemptModel, NoticesWeakenedOrders) {
  std::vector<Case> all = cases();
  all.push_back(of<TwoTakers>("preempt: two takers", 3, Step::Real, 2));
  EXPECT_EQ(survivors(all, "model/preempt_test.cpp"), (std::set<std::string>{
                                                          "enter: cas acq_rel -> acquire",
                                                          "enter: cas acq_rel -> release",
                                                          "guard: store release -> relaxed",
                                                          "take: cas acq_rel -> acquire",
                                                          "take: load acquire -> relaxed",
                                                          "take: load acquire -> relaxed #3",
                                                          "unguard: store release -> relaxed",
                                                      }));
}

}  // namespace
}  // namespace weft::model
