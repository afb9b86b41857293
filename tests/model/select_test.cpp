// select (block/select.cpp) over channels (block/chan.cpp): exactly one case happens, no wake-up and no value is lost,
// none comes twice, and nobody touches a node, a frame or a channel once the goroutine has gone on.
//
//   selects, on M1: the commit of its park          peer, on M2                         goes on, on M3
//   queued everywhere, context saved
//   unlock B (from M1's copy)
//                                                   lock B, takes the node, wins
//                                                   unlock B, moves the element, readies
//                                                                                       lock A: waits ...
//   unlock A (the frame may be gone from here on)
//                                                                                       ... takes its node out, returns
//
// The goroutines and channels are those of select.hpp.
#include "tests/model/select.hpp"

namespace weft::model {
namespace {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

// ---- programs -----------------------------------------------------------------------------------

/// Two selects that meet, each sending and receiving.
class TwoSelects : public Select {
 public:
  using Select::Select;
  void thread(int self) override {
    if (self == 2) return runs(self);
    select(self, self == 0 ? g_ : other_);
  }
  void after(bool stuck) override {
    Select::after(stuck);
    check(sent_[1] + sent_[2] == 1, "not exactly one of two selects that meet has sent");
    check(g_.result >= 0 && other_.result >= 0, "a select sleeps on though another has met it");
  }

 protected:
  Goroutine other_;
};

/// ... over the same two channels, which they name in opposite order.
template <bool kLooks>
class Opposite : public TwoSelects {
 public:
  explicit Opposite(Step s) : TwoSelects(s) {
    looks_ = kLooks;
    operands(g_, 0, true, a_, 1);
    operands(g_, 1, false, b_);
    operands(other_, 0, true, b_, 2);
    operands(other_, 1, false, a_);
  }
};

/// ... over one channel.
class Same : public TwoSelects {
 public:
  explicit Same(Step s) : TwoSelects(s) {
    operands(g_, 0, true, a_, 1);
    operands(g_, 1, false, a_);
    operands(other_, 0, true, a_, 2);
    operands(other_, 1, false, a_);
  }
};

/// Receives from two channels; both have a sender.
class TwoSenders : public Select {
 public:
  explicit TwoSenders(Step s) : Select(s) {
    looks_ = false;
    operands(g_, 0, false, a_);
    operands(g_, 1, false, b_);
  }
  void thread(int self) override {
    if (self == 0) return select(self, g_);
    if (self == 1) return send(self, a_, 1);
    if (self == 2) return send(self, b_, 2);
    runs(self);
  }
  void after(bool stuck) override {
    Select::after(stuck);
    check(got_[1] + got_[2] == 1, "not exactly one of two senders has met the select");
    check(g_.result == (sent_[1] ? 0 : 1), "another case was told to have happened");
  }
};

/// One of its channels is closed, the other has a peer.
template <bool kSends>
class CloseAndPeer : public Select {
 public:
  explicit CloseAndPeer(Step s) : Select(s) {
    looks_ = false;
    operands(g_, 0, kSends, a_, 1);
    operands(g_, 1, false, b_);
  }
  void thread(int self) override {
    if (self == 0) return select(self, g_);
    if (self == 1) return close(self, a_);
    if (self == 2) return send(self, b_, 2);
    runs(self);
  }
  void after(bool stuck) override {
    Select::after(stuck);
    check(g_.result == (got_[2] ? 1 : kSends ? kPanicked : 0), "a select goes past a channel that was closed");
    check(!sent_[1], "a value was sent to nobody");
  }
};

/// Two wait for what is closed.
class CloseOfTwo : public Select {
 public:
  explicit CloseOfTwo(Step s) : Select(s) {
    looks_ = false;
    operands(g_, 0, false, a_);
    operands(g_, 1, false, b_);
  }
  void thread(int self) override {
    if (self == 0) return select(self, g_);
    if (self == 1) return close(self, a_);
    if (self == 2) return recv(self, a_);
    runs(self);
  }
  void after(bool stuck) override {
    Select::after(stuck);
    check(g_.result == 0 && g_.cases[0].ok == false, "a select goes past a channel that was closed");
    check(!a_.receivers.first.final(), "somebody sleeps on a closed channel");
  }
};

/// A timeout, and a sender, whose channel is unlocked first.
class TimeoutAndPeer : public Select {
 public:
  explicit TimeoutAndPeer(Step s) : Select(s) {
    looks_ = false;
    g_.timed = true;
    operands(g_, 0, false, b_);
    operands(g_, 1, true, a_, 1);
  }
  void thread(int self) override {
    if (self == 0) return select(self, g_);
    if (self == 1) return send(self, b_, 2);
    if (self == 2) return fire_timeout(self, g_);
    runs(self);
  }
  void after(bool stuck) override {
    Select::after(stuck);
    check(sent_[2] == (g_.result == 0), "a sender and a select disagree");
    check(g_.result != kNotYet, "a select sleeps on");
  }
};

/// Whose time is up frees the channels.
class TimeoutFrees : public Select {
 public:
  explicit TimeoutFrees(Step s) : Select(s) {
    g_.timed = g_.frees = true;
    operands(g_, 0, false, a_);
    operands(g_, 1, true, b_, 1);
  }
  void thread(int self) override {
    if (self == 0) return select(self, g_);
    if (self == 1) return fire_timeout(self, g_);
    runs(self);
  }
};

/// Another select looks, under all locks, at a wait that may just have run out.
class LookAtLoser : public Select {
 public:
  explicit LookAtLoser(Step s) : Select(s) {
    looks_ = false;
    g_.timed = true;
    operands(g_, 0, false, a_);
    operands(g_, 1, false, b_);
    operands(other_, 0, true, b_, 1);
    operands(other_, 1, true, a_, 2);
  }
  void thread(int self) override {
    if (self == 0) return select(self, g_);
    if (self == 1) return select(self, other_);
    if (self == 2) return fire_timeout(self, g_);
    runs(self);
  }
  void after(bool stuck) override {
    Select::after(stuck);
    check((g_.result >= 0) == (other_.result >= 0), "two selects disagree");
    if (g_.result == kTimedOut)
      check(a_.senders.first.final() && b_.senders.first.final(), "a select gave up with who had");
  }

 private:
  Goroutine other_;
};

/// In a domain: cancelled, while a peer comes or its time runs out.
enum class By { Peer, Timeout, Close };
template <By kBy>
class CancelAnd : public Select {
 public:
  explicit CancelAnd(Step s) : Select(s) {
    looks_ = false;
    g_.domain = true;
    g_.timed = kBy == By::Timeout;
    operands(g_, 0, false, a_);
    operands(g_, 1, true, b_, 1);
  }
  void thread(int self) override {
    if (self == 0) return select(self, g_);
    if (self == 1) return cancel(self, g_);
    if (self == 3) return runs(self);
    if (kBy == By::Peer) send(self, a_, 2);
    if (kBy == By::Timeout) fire_timeout(self, g_);
    if (kBy == By::Close) close(self, a_);
  }
  void after(bool stuck) override {
    Select::after(stuck);
    check(g_.result != kNotYet, "a cancelled select sleeps on");
    check(sent_[2] == (kBy == By::Peer && g_.result == 0), "a sender and a select disagree");
  }
};

/// A plain thread, with a timeout or without.
template <bool kTimed>
class OnThread : public Select {
 public:
  explicit OnThread(Step s) : Select(s) {
    looks_ = false;
    g_.timed = kTimed;
    operands(g_, 0, true, a_, 1);
    operands(g_, 1, false, b_);
    operands(other_, 0, true, b_, 2);
    operands(other_, 1, false, a_);
  }
  void thread(int self) override {
    if (self == 0) return select(self, other_);
    if (self == 1) return select_on_thread(self, g_);
    runs(self);
  }
  void after(bool stuck) override {
    Select::after(stuck);
    check((g_.result >= 0) == (other_.result >= 0), "two selects disagree");
    check(kTimed || g_.result >= 0, "a select sleeps on though another has met it");
  }

 private:
  Goroutine other_;
};

/// A full buffer: whoever receives from it takes what is oldest and the select's element after it.
class FullBuffer : public Select {
 public:
  explicit FullBuffer(Step s) : Select(s) {
    looks_ = false;
    full_.buffer = 3;
    full_.count.store(1, memory_order_relaxed);
    sent_[3] = true;
    operands(g_, 0, true, full_, 1);
    operands(g_, 1, false, b_);
  }
  void thread(int self) override {
    if (self == 0) return select(self, g_);
    if (self == 1) return recv(self, full_);
    if (self == 2) return send(self, b_, 2);
    runs(self);
  }
  void after(bool stuck) override {
    check(got_[3] == 1, "the oldest element was not the first to go");
    if (full_.count.final() != 0) got_[full_.buffer]++;
    Select::after(stuck);
    check(!full_.senders.first.final() || full_.count.final() == 1, "a sender sleeps beside room");
    check(g_.result >= 0, "a select sleeps on");
  }

 private:
  Chan full_{1};
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      of<Opposite<false>>("select: two selects, opposite", 3),
      of<Opposite<true>>("select: two selects, opposite, first looks", 3),
      of<Same>("select: two selects, one channel", 3),
      of<TwoSenders>("select: two senders", 4),
      of<CloseAndPeer<false>>("select: a close and a peer", 4),
      of<CloseAndPeer<true>>("select: a close while it sends", 4),
      of<CloseOfTwo>("select: a close and two that wait", 4),
      of<TimeoutAndPeer>("select: timeout and a peer", 4),
      of<TimeoutFrees>("select: timeout, then frees its channels", 3),
      of<LookAtLoser>("select: another looks at who gives up", 4),
      of<CancelAnd<By::Peer>>("select: cancel and a peer", 4),
      of<CancelAnd<By::Timeout>>("select: cancel and timeout", 4),
      of<CancelAnd<By::Close>>("select: cancel and close", 4),
      of<OnThread<false>>("select: a thread", 3),
      of<OnThread<true>>("select: a thread, timed", 3),
      of<FullBuffer>("select: a full buffer", 4),
  };
  return all;
}

TEST(SelectModel, OneCaseHappensAndNothingIsLost) {
  for (const Case& c : cases()) expect_holds(c);
}

TEST(SelectModel, NeedsEachStep) {
  expect_broken(of<Opposite<false>>("select: no second look", 3, Step::NoSecondLook), "beside each other");
  expect_broken(of<Opposite<false>>("select: locks in order of cases", 3, Step::LocksInOrder), "a lock");
  expect_broken(of<TwoSenders>("select: unlocks before the context is saved", 4, Step::UnlocksUnsaved), "race");
  expect_broken(of<TwoSenders>("select: unlocks what its frame says", 4, Step::UnlocksFromFrame), "race");
  expect_broken(of<TimeoutAndPeer>("select: arms its timer after an unlock", 4, Step::ArmsLate), "race");
  expect_broken(of<TwoSenders>("select: leaves without the lock", 4, Step::LeavesUnlocked), "race");
  expect_broken(of<TimeoutFrees>("select: leaves without the lock, frees", 3, Step::LeavesUnlocked), "race");
  expect_broken(of<TwoSenders>("select: leaves no queue", 4, Step::LeavesNone));
  expect_broken(of<TwoSenders>("select: pops without winning", 4, Step::PopsUnwon));
  expect_broken(of<LookAtLoser>("select: pops without winning, loser", 4, Step::PopsUnwon));
  expect_broken(of<CloseAndPeer<false>>("select: close readies losers", 4, Step::ClosesUnwon));
  expect_broken(of<TwoSenders>("select: readies, then moves the element", 4, Step::MovesLate), "race");
  expect_broken(of<TwoSenders>("select: readies, then says so", 4, Step::WakesUnlocked));
  expect_broken(of<CloseOfTwo>("select: close goes on from a node it has readied", 4, Step::ClosesLate), "race");
  expect_broken(of<Opposite<false>>("select: keeps the other locks", 3, Step::KeepsOthers), "a lock");
  expect_broken(of<CancelAnd<By::Peer>>("select: no guard", 4, Step::NoGuard), "race");
  expect_broken(of<CancelAnd<By::Timeout>>("select: no look in the commit", 4, Step::NoLookInCommit), "sleeps on");
  expect_broken(of<CancelAnd<By::Peer>>("select: does not wait for who looks", 4, Step::NoPass), "race");
  expect_broken(of<OnThread<true>>("select: a thread does not wait for who has won", 3, Step::ThreadRunsOff));
}

// What close() releases is for who looks at nothing else (a context's). Of a goroutine that is running again it is the
// fence, here for the canceller's membarrier, that orders its status.
TEST(SelectModel, NoticesWeakenedOrders) {
  EXPECT_EQ(survivors(cases(), "model/select.hpp"), (std::set<std::string>{
                                                             "close: store release -> relaxed",
                                                             "goes_on: store release -> relaxed",
                                                         }));
}

// ---- looking without the lock -------------------------------------------------------------------

/// chan_try_recv() of a channel that is closed while it holds one element, which then is received: at no moment was it
/// both open and empty.
class TryRecv : public Program {
 public:
  void thread(int self) override {
    if (self == 1) {
      const bool empty = count_.load(memory_order_acquire) == 0 && peek(sender_) == 0 && !peek(closed_);
      check(!empty, "a channel was said to be open and empty that never was");
      return;
    }
    lock_.lock();
    closed_.store(true, memory_order_relaxed);
    lock_.unlock();
    lock_.lock();
    count_.store(0, memory_order_release);
    lock_.unlock();
  }

 private:
  Lock lock_;
  Atomic<int> count_{1};
  Atomic<int> sender_{0};
  Atomic<bool> closed_{false};
};

TEST(TryRecvModel, SaysEmptyOnlyIfItWasOpen) {
  const std::vector<Case> all{of<TryRecv>("try_recv: closed, then drained", 2)};
  expect_holds(all[0]);
  EXPECT_EQ(survivors(all, "model/select_test.cpp"), std::set<std::string>{});
}

}  // namespace
}  // namespace weft::model
