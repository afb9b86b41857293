// Cancelling a parked goroutine, or one that is about to park, or is just woken (sched/cancel.hpp): it goes on exactly once, is
// never left parked, and its canceller touches nothing that may be gone.
//
// The functions mirror cancel_runner(), win_parked(), landed(), end_guarded_commit(), pass_canceller() and pass_cancellers(). The
// barrier that a canceller asks of all threads is a fence here in each of them, where the runtime has a compiler barrier.
#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using rt::Outcome;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

enum class How {
  Real,
  NoLookInCommit,  // the runner does not look at its byte once it is parked
  NoLookAtRunner,  // the canceller sets the byte and leaves it at that
  NoBarrier,       // nobody makes the runner's store come before its look
  NoPass,          // who goes on does not wait for a canceller that looks
  NoCount,         // who frees a channel does not wait for cancellers
  NoLock,          // the canceller takes a node without the channel's lock
  NoGuard,         // the canceller does not wait for the end of the commit
};

struct Word : rt::WinWord<Word> {
  Atomic<std::uint64_t> word{0};
};

/// The runner parks; a peer wakes it and frees the channel at once; a canceller comes at any moment. kGuarded: the wait has a
/// timer as well, its node is racy, and its commit does more than to unlock.
template <How kHow, bool kGuarded>
class CancelPark : public Program {
 public:
  CancelPark() : ticket_(waiter_.next_ticket()) {}

  void thread(int self) override {
    if (self == 0)
      park();
    else if (self == 1)
      wake();
    else
      cancel();
  }

  void after(bool stuck) override {
    Program::after(stuck);
    check(went_on_ == 1, went_on_ ? "a goroutine goes on twice" : "a cancelled goroutine stays parked");
  }

 private:
  static constexpr int kWaiting = 1, kRunning = 2;

  void barrier() {
    if constexpr (kHow != How::NoBarrier) publish_fence();
  }
  bool pending() const { return waiter_.outcome() == Outcome::Pending; }

  // park_in() or park_guarded(), and landed() on the next context.
  void park() {
    chan_lock_.lock();
    queued_.set(1);
    if constexpr (kGuarded) guard_.lock();
    status_.store(kWaiting, memory_order_release);
    ctx_.set(1);
    barrier();
    if constexpr (kGuarded) {
      chan_lock_.unlock();
      timer_.set(1);  // the rest of the commit
      const bool won = looks() && pending() && waiter_.try_win(ticket_, Outcome::Cancel);
      guard_.unlock();
      if (won) goes_on();
    } else {
      const bool won = looks() && take();
      chan_lock_.unlock();
      if (won) goes_on();
    }
  }
  bool looks() { return kHow != How::NoLookInCommit && peek(byte_) != 0; }

  /// win_exclusive(): the channel's lock is held.
  bool take() {
    if (!pending() || !queued_.get()) return false;
    queued_.set(0);
    waiter_.set(ticket_, Outcome::Cancel);
    return true;
  }

  void wake() {
    chan_lock_.lock();
    bool won = false;
    if (queued_.get()) {
      queued_.set(0);
      if constexpr (kGuarded)
        won = waiter_.try_win(ticket_, Outcome::Wake);
      else
        waiter_.set(ticket_, Outcome::Wake), won = true;
    }
    chan_lock_.unlock();
    if (!won) return;
    if constexpr (!kGuarded) {  // whoever holds the last handle frees it before the waiter is through
      barrier();
      if constexpr (kHow != How::NoCount)
        if (cancellers_.load(memory_order_acquire) != 0) cancellers_.sleep_while(1, memory_order_acquire);
      chan_memory_.set(0);
    }
    goes_on();
  }

  void cancel() {
    domain_lock_.lock();
    byte_.store(1, memory_order_relaxed);
    domain_lock_.unlock();
    cancellers_.fetch_add(1, memory_order_relaxed);
    barrier();
    if constexpr (kHow != How::NoLookAtRunner) {
      domain_lock_.lock();
      const bool won = status_.load(memory_order_acquire) == kWaiting && win_parked();
      domain_lock_.unlock();
      if (won) goes_on();
    }
    cancellers_.fetch_sub(1, memory_order_release);
  }

  bool win_parked() {
    node_.get();  // where it waits
    if constexpr (kGuarded) {
      if constexpr (kHow != How::NoGuard) guard_.lock();
      const bool won = pending() && waiter_.try_win(ticket_, Outcome::Cancel);
      if constexpr (kHow != How::NoGuard) guard_.unlock();
      return won;
    } else {
      if (!pending()) return false;
      chan_memory_.get();
      if constexpr (kHow == How::NoLock) return take();
      chan_lock_.lock();
      const bool won = take();
      chan_lock_.unlock();
      return won;
    }
  }

  // The rest of the wait, on the M of who readied it; then it begins another one.
  void goes_on() {
    went_on_++;
    status_.store(kRunning, memory_order_release);
    check(ctx_.get() == 1, "a goroutine goes on before its context is saved");
    barrier();
    if constexpr (kGuarded) {
      guard_.lock();
      guard_.unlock();
    }
    if (kHow != How::NoPass && peek(byte_) != 0) {
      domain_lock_.lock();
      domain_lock_.unlock();
    }
    if constexpr (kGuarded) timer_.set(0);
    node_.set(1);
  }

  Lock chan_lock_, guard_, domain_lock_;
  Word waiter_;
  const std::uint64_t ticket_;
  Atomic<int> status_{kRunning};
  Atomic<int> byte_{0};
  Atomic<int> cancellers_{0};
  Plain<int> queued_;
  Plain<int> ctx_;
  Plain<int> timer_;
  Plain<int> node_;
  Plain<int> chan_memory_;
  int went_on_ = 0;
};

TEST(CancelModel, ACancelledGoroutineGoesOnOnce) {
  expect_holds(of<CancelPark<How::Real, false>>("cancel: exclusive wait", 3));
  expect_holds(of<CancelPark<How::Real, true>>("cancel: guarded wait", 3));
}

TEST(CancelModel, NeedsEachStep) {
  expect_broken(of<CancelPark<How::NoLookInCommit, false>>("cancel: no look in the commit", 3), "stays parked");
  expect_broken(of<CancelPark<How::NoLookInCommit, true>>("cancel: no look in the commit, guarded", 3), "stays parked");
  expect_broken(of<CancelPark<How::NoLookAtRunner, false>>("cancel: no look at the runner", 3), "stays parked");
  expect_broken(of<CancelPark<How::NoBarrier, false>>("cancel: no barrier", 3));
  expect_broken(of<CancelPark<How::NoBarrier, true>>("cancel: no barrier, guarded", 3));
  expect_broken(of<CancelPark<How::NoPass, false>>("cancel: does not wait for who looks", 3), "race");
  expect_broken(of<CancelPark<How::NoPass, true>>("cancel: does not wait for who looks, guarded", 3), "race");
  expect_broken(of<CancelPark<How::NoCount, false>>("cancel: frees under a canceller", 3), "race");
  expect_broken(of<CancelPark<How::NoLock, false>>("cancel: takes a node without the lock", 3), "race");
  expect_broken(of<CancelPark<How::NoGuard, true>>("cancel: does not wait for the commit", 3), "race");
}

// The fences that stand for the barrier order what [status] orders in the runtime for who passes none.
TEST(CancelModel, NoticesWeakenedOrders) {
  EXPECT_EQ(survivors({of<CancelPark<How::Real, false>>("cancel: exclusive wait", 3)}, "model/cancel_test.cpp",
                      {"cancel", "wake"}),
            (std::set<std::string>{"cancel: load acquire -> relaxed"}));
}

}  // namespace
}  // namespace weft::model
