// The win word, the queue of waiters and the commit of a park: exactly one ends a wait, whoever
// comes late loses, and nobody finds a goroutine before its context is saved.
//
// try_win(), set(), outcome() and pop_winner() are the runtime's own (core/waiter.hpp). The park is
// that of sched/park.cpp and sched/switch.hpp: wait_on(), landed(), commit_timed(), leave_queue().
#include "tests/model/mutants.hpp"
#include "tests/model/queue.hpp"

namespace weft::model {
namespace {

using rt::Outcome;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

struct ModelWaiter : rt::WinWord<ModelWaiter> {
  Atomic<std::uint64_t> word{0};
  Plain<std::uint32_t> fired_;
  struct Fired {
    ModelWaiter* w;
    void operator=(std::uint32_t v) { w->fired_.set(v); }
  } fired{this};
};

struct ModelNode {
  ModelNode* next = nullptr;
  ModelNode* prev = nullptr;
  WaitQueue<ModelNode>* queue = nullptr;
  ModelWaiter* waiter = nullptr;
  std::uint64_t ticket = 0;
  std::uint32_t index = 0;
  bool racy = false;
};

// ---- the win word -------------------------------------------------------------------------------

/// M6: a waker, a timeout and a close for one ticket.
class OneWinner : public Program {
 public:
  OneWinner() : ticket_(waiter_.next_ticket()) {}

  void thread(int self) override {
    static constexpr Outcome kHow[] = {Outcome::Wake, Outcome::Timeout, Outcome::Close};
    if (self < contenders_) {
      data_[self].set(self + 1);
      if (waiter_.try_win(ticket_, kHow[self])) winners_++, winner_ = self;
      return;
    }
    waiter_.word.sleep_while(ticket_ << 3, memory_order_relaxed);
    const Outcome o = waiter_.outcome();
    check(o != Outcome::Pending, "a wait has ended without an outcome");
    const int who = o == Outcome::Wake ? 0 : o == Outcome::Timeout ? 1 : 2;
    check(data_[who].get() == who + 1, "the waiter does not see what its waker did");
    seen_ = who;
  }

  void after(bool stuck) override {
    Program::after(stuck);
    check(winners_ == 1, "not exactly one winner");
    check(seen_ == winner_, "the waiter saw another outcome than the winner's");
  }

 protected:
  int contenders_ = 3;

 private:
  ModelWaiter waiter_;
  std::uint64_t ticket_;
  Plain<int> data_[3];
  int winners_ = 0;
  int winner_ = -1;
  int seen_ = -1;
};

/// The waiter goes on to its next wait while a contender of the last one is on its way.
template <bool kNewTicket>
class LateContender : public Program {
 public:
  LateContender() : ticket_(waiter_.next_ticket()) {}

  void thread(int self) override {
    if (self == 0) {
      waiter_.try_win(ticket_, Outcome::Timeout);
    } else if (self == 1) {
      waiter_.try_win(ticket_, Outcome::Wake);
    } else {
      waiter_.word.sleep_while(ticket_ << 3, memory_order_acquire);
      if constexpr (kNewTicket) {
        waiter_.next_ticket();
      } else {
        waiter_.word.store(ticket_ << 3, memory_order_relaxed);
      }
    }
  }

  void after(bool stuck) override {
    Program::after(stuck);
    check((waiter_.word.final() & 7) == 0, "a late contender has ended the next wait");
  }

 private:
  ModelWaiter waiter_;
  std::uint64_t ticket_;
};

const std::vector<Case>& word_cases() {
  static const std::vector<Case> cases{
      of<OneWinner>("win word: wake, timeout, close", 4),
      of<LateContender<true>>("win word: late contenders", 3),
  };
  return cases;
}

TEST(WinWordModel, HasOneWinner) {
  for (const Case& c : word_cases()) expect_holds(c);
}

TEST(WinWordModel, NeedsANewTicketForEachWait) {
  expect_broken(of<LateContender<false>>("win word: the ticket is used again", 3), "late");
}

// ---- queue and park -----------------------------------------------------------------------------

enum class Park {
  Real,
  UnlockBeforeSave,   // the lock goes before the context is saved
  UnlockBeforeArm,    // the timer is armed after the lock is released
  NoLeaveQueue,       // the loser's node stays in the queue
  PopWithoutWinning,  // the waker readies without having won
};

/// One goroutine in a timed wait, a waker and its timer. The goroutine's context is `ctx_`: who
/// readies it runs it on, which needs the context saved.
template <Park kHow, bool kRacy>
class ParkCommit : public Program {
 public:
  ParkCommit() {
    node_.waiter = &waiter_;
    node_.ticket = waiter_.next_ticket();
    node_.racy = kRacy;
  }

  void thread(int self) override {
    if (self == 0) {
      park();
    } else if (self == 1) {
      wake();
    } else {
      fire_timeout();
    }
  }

  void after(bool stuck) override {
    Program::after(stuck);
    check(readied_ <= 1, "a goroutine is readied twice");
    check(readied_ == 1 || !popped_, "a goroutine is popped and not readied");
    if (gone_) check(queue_.first.final() == nullptr, "a node is left in the queue of an object");
  }

 private:
  // wait_on() up to the switch, and landed() on the next context.
  void park() {
    lock_.lock();
    queue_.push(&node_);
    if constexpr (kHow == Park::UnlockBeforeSave) lock_.unlock();
    ctx_.set(1);  // from->ctx = t.from
    if constexpr (kRacy && kHow == Park::UnlockBeforeArm) lock_.unlock();
    if constexpr (kRacy) {
      timer_.set(1);  // commit_timed(): timer_arm()
      armed_.store(1, memory_order_release);
    }
    if constexpr (kHow != Park::UnlockBeforeSave && !(kRacy && kHow == Park::UnlockBeforeArm))
      lock_.unlock();
  }

  void wake() {
    lock_.lock();
    ModelNode* n;
    if constexpr (kHow == Park::PopWithoutWinning) {
      n = peek(queue_.first);
      if (n) queue_.remove(n);
    } else {
      n = rt::take_winner(queue_, Outcome::Wake);
    }
    lock_.unlock();
    popped_ = n != nullptr;
    if (n) runs_on();
  }

  void fire_timeout() {
    if constexpr (kRacy) {
      if (armed_.load(memory_order_acquire) == 0) return;  // the heap's lock
      if (waiter_.try_win(node_.ticket, Outcome::Timeout)) runs_on();
    }
  }

  // The rest of wait_on(), on the M of who readied it.
  void runs_on() {
    readied_++;
    check(ctx_.get() == 1, "a goroutine is resumed before its context is saved");
    ctx_.set(2);
    if constexpr (kRacy) timer_.set(0);  // timer_remove(), and the next wait's timer
    const Outcome o = waiter_.outcome();
    check(o != Outcome::Pending, "a goroutine runs on and nobody has ended its wait");
    if (kHow != Park::NoLeaveQueue && o == Outcome::Timeout) {
      lock_.lock();
      if (node_.queue) node_.queue->remove(&node_);
      lock_.unlock();
    }
    gone_ = true;
  }

  Lock lock_;
  WaitQueue<ModelNode> queue_;
  ModelWaiter waiter_;
  ModelNode node_;
  Plain<int> ctx_;
  Plain<int> timer_;
  Atomic<int> armed_{0};
  int readied_ = 0;
  bool popped_ = false;
  bool gone_ = false;
};

TEST(ParkModel, NobodyFindsAGoroutineBeforeItsContextIsSaved) {
  expect_holds(of<ParkCommit<Park::Real, false>>("park: waker", 2));
  expect_holds(of<ParkCommit<Park::Real, true>>("park: waker and timeout", 3));
}

TEST(ParkModel, NeedsEachStep) {
  expect_broken(of<ParkCommit<Park::UnlockBeforeSave, false>>("park: unlocks before the context is saved", 2), "race");
  expect_broken(of<ParkCommit<Park::UnlockBeforeSave, true>>("park: unlocks before the context is saved, timed", 3),
                "race");
  expect_broken(of<ParkCommit<Park::UnlockBeforeArm, true>>("park: arms its timer after the unlock", 3), "race");
  expect_broken(of<ParkCommit<Park::NoLeaveQueue, true>>("park: the loser stays in the queue", 3), "left in the queue");
  expect_broken(of<ParkCommit<Park::PopWithoutWinning, true>>("park: pops without winning", 3));
}

/// Two waiters in one queue, the first of which times out: the waker's token reaches the second.
template <bool kSkipLosers>
class TokenReachesSecond : public Program {
 public:
  TokenReachesSecond() {
    for (int i = 0; i < 2; i++) {
      node_[i].waiter = &waiter_[i];
      node_[i].ticket = waiter_[i].next_ticket();
      node_[i].racy = true;
      queue_.push(&node_[i]);
    }
  }

  void thread(int self) override {
    if (self == 0) {
      lock_.lock();
      ModelNode* n;
      if constexpr (kSkipLosers) {
        n = rt::take_winner(queue_, Outcome::Wake);
      } else {
        n = peek(queue_.first);
        queue_.remove(n);
        if (!n->waiter->try_win(n->ticket, Outcome::Wake)) n = nullptr;
      }
      lock_.unlock();
      woken_ = n != nullptr;
    } else {
      waiter_[0].try_win(node_[0].ticket, Outcome::Timeout);
    }
  }

  void after(bool stuck) override {
    Program::after(stuck);
    check(woken_, "a wake-up went to a waiter that had given up");
  }

 private:
  Lock lock_;
  WaitQueue<ModelNode> queue_;
  ModelWaiter waiter_[2];
  ModelNode node_[2];
  bool woken_ = false;
};

TEST(WaitQueueModel, WakeUpSkipsThoseThatHaveGivenUp) {
  expect_holds(of<TokenReachesSecond<true>>("queue: the first has given up", 2));
  expect_broken(of<TokenReachesSecond<false>>("queue: does not look further", 2), "given up");
}

// ---- mutants ------------------------------------------------------------------------------------

// A winner by compare-exchange need not acquire: what it then reads is under the object's lock.
// What set() releases, the waiter also gets with its place in the run queue.
TEST(WinWordModel, NoticesWeakenedOrders) {
  std::vector<Case> cases = word_cases();
  cases.push_back(of<ParkCommit<Park::Real, false>>("park: waker", 2));
  cases.push_back(of<ParkCommit<Park::Real, true>>("park: waker and timeout", 3));
  EXPECT_EQ(survivors(cases, "core/waiter.hpp"), (std::set<std::string>{
                                                     "set: store release -> relaxed",
                                                     "try_win: cas acq_rel -> release",
                                                 }));
}

}  // namespace
}  // namespace weft::model
