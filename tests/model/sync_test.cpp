// Mutex (block/mutex.cpp) and WaitGroup (block/wait_group.cpp): nobody sleeps for ever, nobody
// touches an object that its owner may have freed.
//
// MutexModel mirrors Mutex::lock(), Mutex::unlock(), MutexImpl::lock(), unlock() and give_up() line
// by line, WaitGroupModel WaitGroup::add() and wait(). Spins are one look; whether a caller spins,
// whether it has starved and when its time is up is tried both ways. Waiters are plain threads
// (thread_wait() of sched/park.cpp); the win word and pop_winner() are the runtime's own.
#include "tests/model/mutants.hpp"
#include "tests/model/sections.hpp"

namespace weft::model {
namespace {

using rt::Outcome;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

struct Waiter : rt::WinWord<Waiter> {
  Atomic<std::uint64_t> word{0};
  Atomic<std::uint32_t> note{0};
  std::uint32_t fired = 0;
};

struct Queue;

struct Node {
  Node* next = nullptr;
  Node* prev = nullptr;
  Queue* queue = nullptr;
  Waiter* waiter = nullptr;
  std::uint64_t ticket = 0;
  std::uint32_t index = 0;
  bool racy = false;
  bool success = false;
};

Node* peek(Node* n) { return n; }

/// As rt::WaitQueue. Only touched under its lock, except empty().
struct Queue {
  Node* first = nullptr;
  Node* last = nullptr;

  void push(Node* n) {
    n->queue = this;
    n->next = nullptr;
    n->prev = last;
    (n->prev ? last->next : first) = n;
    last = n;
  }
  void push_front(Node* n) {
    if (!first) return push(n);
    n->queue = this;
    n->prev = nullptr;
    n->next = first;
    first->prev = n;
    first = n;
  }
  void remove(Node* n) {
    (n->prev ? n->prev->next : first) = n->next;
    (n->next ? n->next->prev : last) = n->prev;
    n->queue = nullptr;
  }
};

// ---- Mutex --------------------------------------------------------------------------------------

enum class Step {
  Real,
  GiveUpForgets,      // a timed waiter that was woken in vain does not pass that on
  GiveUpKeepsWoken,   // ... leaves kWoken behind
  QueueUnchecked,     // a waiter queues although the mutex may be free by now
  QueueKeepsWoken,    // a waiter that was woken in vain queues and leaves kWoken behind
  HandsOverUnlocked,  // a starving hand-over releases the word
  UnlockUnguarded,    // unlock() with waiters releases the word before it has popped one
  SharesUnfenced,     // a waiter makes the word shared, but undoes no section
  SharesUnchecked,    // ... does not look whether it is shared still
  SharesUnguarded,    // ... before it holds the guard
  NeverShares,        // a waiter queues in a word that sections store to
  EndsSharedEarly,    // the last round ends the shared mode of a word that is queued for
};

/// Of a caller: releases the guard, sleeps until the wait is won or its time is up.
Outcome wait_on(Node* n, Lock& guard, bool timed) {
  Waiter* w = n->waiter;
  guard.unlock();
  if (timed && choose(2)) {
    if (!w->try_win(n->ticket, Outcome::Timeout)) w->note.sleep_while(0, memory_order_acquire);
  } else {
    w->note.sleep_while(0, memory_order_acquire, timed);
  }
  const Outcome o = w->outcome();
  if (o == Outcome::Timeout) {
    guard.lock();  // leave_queue()
    if (n->queue) n->queue->remove(n);
    guard.unlock();
  }
  return o;
}

/// plain_node() and my_waiter().
Node* plain_node(Node* n, Waiter* w, bool racy) {
  w->note.store(0, memory_order_relaxed);
  n->waiter = w;
  n->ticket = w->next_ticket();
  n->queue = nullptr;
  n->racy = racy;
  n->success = false;
  return n;
}

void wake_waiter(Waiter* w) { w->note.exchange(1, memory_order_release); }

class MutexModel : public Program {
 public:
  struct Setup {
    bool spins = false;
    bool starves = false;
    int timed = -1;  // this thread has a deadline
    int again = -1;  // this thread locks twice
    int rounds = 1;
    bool sections = false;     // the machine has them
    bool interrupted = false;  // ... and they may end without anybody's barrier
    std::uint32_t shared_for = 1;  // rounds of the shared mode
  };

  MutexModel(Step step, Setup setup) : step_(step), setup_(setup), sections_(setup.interrupted) {}

  void thread(int self) override {
    for (int i = 0; i < setup_.rounds + (setup_.again == self); i++) {
      if (!lock(self)) continue;
      inside_.set(inside_.get() + 1);
      check(++holders_ == 1, "two hold the mutex");
      holders_--;
      unlock(self);
    }
  }

  void after(bool stuck) override {
    check(!stuck, "a waiter sleeps beside a free mutex");
    check((word_.final() & kLocked) == 0, "the mutex stays locked");
  }

 private:
  static constexpr std::uint32_t kLocked = 1;
  static constexpr std::uint32_t kQueued = 2;
  static constexpr std::uint32_t kWoken = 4;
  static constexpr std::uint32_t kStarving = 8;
  static constexpr std::uint32_t kShared = 16;
  static constexpr std::uint32_t kRound = 32;
  static constexpr std::uint32_t kIdle = ~(kShared - 1);

  bool share(std::uint32_t& w) {
    if ((w & kShared) || !setup_.sections || step_ == Step::NeverShares) return true;
    if (!word_.compare_exchange_strong(w, w | kShared | setup_.shared_for * kRound, memory_order_relaxed))
      return false;
    if (step_ != Step::SharesUnfenced) sections_.barrier(word_);
    w = peek(word_);
    return (w & kShared) || step_ == Step::SharesUnchecked;
  }

  std::uint32_t queued(std::uint32_t w, std::uint32_t mine, bool starving) {
    const std::uint32_t rounds = w & kShared ? setup_.shared_for * kRound : 0;
    return ((w | kQueued | rounds) & (step_ == Step::QueueKeepsWoken ? ~0u : ~mine)) | (starving ? kStarving : 0);
  }

  std::uint32_t unlocked(std::uint32_t w) {
    if ((w & (kQueued | kWoken)) && step_ != Step::EndsSharedEarly) return w & ~kLocked;
    return w >= 2 * kRound ? w - kLocked - kRound : 0;
  }

  static bool wakes_nobody(std::uint32_t w) {
    return (w & ~kIdle) == kLocked || (w & (kLocked | kWoken | kStarving)) == (kLocked | kWoken);
  }

  bool unlock_quietly() {
    std::uint32_t w = peek(word_);
    while (wakes_nobody(w))
      if (word_.compare_exchange_strong(w, unlocked(w), memory_order_release, memory_order_relaxed)) return true;
    return false;
  }

  bool try_take(std::uint32_t& w, std::uint32_t clear) {
    return word_.compare_exchange_strong(w, (w | kLocked) & ~clear, memory_order_acquire,
                                         memory_order_relaxed);
  }

  bool lock(int self) {
    std::uint32_t seen = peek(word_);
    if (!(seen & (kLocked | kStarving)) &&
        word_.compare_exchange_strong(seen, seen | kLocked, memory_order_acquire, memory_order_relaxed))
      return true;
    const bool deadline = setup_.timed == self;
    bool started = false;
    bool starving = false;
    std::uint32_t mine = 0;
    int spins = setup_.spins ? choose(2) : 0;
    for (;;) {
      std::uint32_t w = peek(word_);
      if (!(w & (kLocked | kStarving))) {
        if (try_take(w, mine)) return true;
        continue;
      }
      if ((w & kLocked) && !(w & kStarving) && spins > 0) {
        if (!mine && (w & kQueued) && !(w & kWoken) &&
            word_.compare_exchange_weak(w, w | kWoken, memory_order_relaxed))
          mine = kWoken;
        spins--;
        continue;
      }
      if (deadline && started && choose(2)) {
        give_up(mine);
        return false;
      }
      if (step_ == Step::SharesUnguarded && (w & kLocked) && !share(w)) continue;
      guard_.lock();
      w = peek(word_);
      if (step_ == Step::QueueUnchecked) {
        (void)share(w);
        word_.fetch_or(kQueued, memory_order_relaxed);
      } else if (!(w & kLocked) || (step_ != Step::SharesUnguarded && !share(w)) || !(w & kLocked) ||
                 !word_.compare_exchange_strong(w, queued(w, mine, starving), memory_order_relaxed)) {
        guard_.unlock();
        continue;
      }
      Node* n = plain_node(&node_[self], &waiter_[self], deadline);
      if (started)
        queue_.push_front(n);
      else
        queue_.push(n);
      started = true;
      const Outcome o = wait_on(n, guard_, deadline);
      if (o == Outcome::Timeout) return false;
      if (n->success) {
        if ((setup_.starves && choose(2)) || !(peek(word_) & kQueued))
          word_.fetch_and(~kStarving, memory_order_acquire);
        else
          (void)word_.load(memory_order_acquire);
        return true;
      }
      starving = starving || (setup_.starves && choose(2));
      mine = kWoken;
      spins = 0;
    }
  }

  void give_up(std::uint32_t mine) {
    if (!mine) return;
    if (step_ != Step::GiveUpKeepsWoken) word_.fetch_and(~mine, memory_order_relaxed);
    std::uint32_t w = peek(word_);
    if (step_ == Step::GiveUpForgets) return;
    if ((w & kQueued) && !(w & kLocked) && try_take(w, 0)) unlock_slow();
  }

  void unlock(int self) {
    std::uint32_t held = kLocked;
    if (setup_.sections
            ? sections_.replace(self, word_, kLocked, 0)
            : word_.compare_exchange_strong(held, 0, memory_order_release, memory_order_relaxed))
      return;
    if (!unlock_quietly()) unlock_slow();
  }

  void unlock_slow() {
    for (;;) {
      std::uint32_t w = peek(word_);
      check(w & kLocked, "unlock of unlocked mutex");
      if (wakes_nobody(w)) {
        if (unlock_quietly()) return;
        continue;
      }
      if (step_ == Step::UnlockUnguarded) word_.fetch_and(~kLocked, memory_order_release);
      guard_.lock();
      Node* n = rt::take_winner(queue_, Outcome::Wake);
      if (!n) {
        word_.fetch_and(~(kQueued | kStarving), memory_order_relaxed);
        guard_.unlock();
        if (step_ == Step::UnlockUnguarded) return;
        continue;
      }
      const std::uint32_t left = queue_.first ? kQueued : 0;
      if (peek(word_) & kStarving) {
        n->success = true;
        if (step_ == Step::HandsOverUnlocked) word_.fetch_and(~kLocked, memory_order_relaxed);
        if (!left)
          word_.fetch_and(~kQueued, memory_order_release);
        else
          word_.fetch_or(0, memory_order_release);
      } else {
        word_.store((peek(word_) & kIdle) | left | kWoken, memory_order_release);
      }
      guard_.unlock();
      wake_waiter(n->waiter);
      return;
    }
  }

  Step step_;
  Setup setup_;
  Sections sections_;
  Atomic<std::uint32_t> word_{0};
  Lock guard_;
  Queue queue_;
  Waiter waiter_[3];
  Node node_[3];
  Plain<int> inside_;
  int holders_ = 0;
};

Case mutex(const char* name, int threads, MutexModel::Setup setup, Step step = Step::Real,
           int preemptions = -1) {
  return {name, threads, [=] { return std::make_unique<MutexModel>(step, setup); }, preemptions};
}

TEST(MutexModel, WakesItsWaiters) {
  expect_holds(mutex("mutex: two", 2, {.spins = true, .starves = true}));
  expect_holds(
      mutex("mutex: two, twice", 2, {.spins = true, .starves = true, .rounds = 2}, Step::Real, 3));
  expect_holds(mutex("mutex: three", 3, {.spins = true, .starves = true}, Step::Real, 2));
}

TEST(MutexModel, WakesTheNextIfATimedWaiterGivesUp) {
  expect_holds(
      mutex("mutex: two, one timed", 2, {.spins = true, .timed = 0, .rounds = 2}, Step::Real, 3));
  expect_holds(mutex("mutex: three, one timed", 3, {.starves = true, .timed = 0}, Step::Real, 2));
  expect_holds(
      mutex("mutex: three, one timed, one twice", 3, {.timed = 0, .again = 1}, Step::Real, 2));
}

TEST(MutexModel, WakesItsWaitersWhereSectionsUnlock) {
  expect_holds(mutex("mutex with sections: two", 2, {.starves = true, .sections = true}));
  expect_holds(
      mutex("mutex with sections: two, one twice, interrupted", 2, {.again = 1, .sections = true, .interrupted = true}, Step::Real, 3));
  expect_holds(mutex("mutex with sections: two, twice", 2, {.rounds = 2, .sections = true}, Step::Real, 3));
  expect_holds(mutex("mutex with sections: three", 3, {.sections = true, .shared_for = 2}, Step::Real, 2));
}

TEST(MutexModel, NeedsEachStepOfTheSharedMode) {
  expect_broken(mutex("mutex: shares, undoes no section", 2, {.sections = true}, Step::SharesUnfenced), "sleeps beside");
  expect_broken(mutex("mutex: shares, does not look", 2, {.again = 1, .sections = true}, Step::SharesUnchecked), "sleeps beside");
  expect_broken(mutex("mutex: shares without the guard", 3, {.sections = true}, Step::SharesUnguarded, 3), "sleeps beside");
  expect_broken(mutex("mutex: never shares", 2, {.sections = true}, Step::NeverShares), "sleeps beside");
  expect_broken(mutex("mutex: ends the shared mode early", 3, {.again = 0, .sections = true}, Step::EndsSharedEarly, 1), "sleeps beside");
}

TEST(MutexModel, NeedsEachStep) {
  expect_broken(mutex("mutex: queues unchecked", 2, {}, Step::QueueUnchecked));
  expect_broken(
      mutex("mutex: hands over unlocked", 3, {.starves = true}, Step::HandsOverUnlocked, 3));
  expect_broken(mutex("mutex: releases before it pops", 3, {}, Step::UnlockUnguarded, 3));
  expect_broken(mutex("mutex: queues with kWoken", 3, {}, Step::QueueKeepsWoken, 3));
  expect_broken(
      mutex("mutex: gives up with kWoken", 3, {.timed = 0, .again = 1}, Step::GiveUpKeepsWoken, 2));
  expect_broken(
      mutex("mutex: gives up quietly", 3, {.timed = 0, .again = 1}, Step::GiveUpForgets, 2));
}

// ---- WaitGroup ----------------------------------------------------------------------------------

enum class Group {
  Real,
  IgnoresGuard,       // wait() returns on zero although the guard is held
  UnlocksAfterWakes,  // the guard is released after the waiters are readied
  ZeroUnguarded,      // the last done() takes the guard after the counter is zero
  MarksUnguarded,     // a waiter says that it waits without the guard
};

/// Threads that finish, waiters that are parked already, and a last one that comes when it comes,
/// and destroys the group as soon as its wait is over.
class WaitGroupModel : public Program {
 public:
  struct Setup {
    int workers = 2;
    int parked = 0;
    int late = 1;
    bool adds = false;  // the first worker adds one and finishes it before its own
    bool destroys = true;
  };

  WaitGroupModel(Group how, Setup setup) : how_(how), setup_(setup) {
    state_.store(static_cast<std::uint64_t>(setup.workers) << 32 | (setup.parked ? kWaited : 0),
                 memory_order_relaxed);
    for (int i = 0; i < setup.parked; i++) queue_.push(plain_node(&node_[i], &waiter_[i], false));
  }

  void thread(int self) override {
    if (self < setup_.workers) {
      work_[self].set(1);
      if (setup_.adds && self == 0) {
        add(1);
        add(-1);
      }
      add(-1);
      return;
    }
    const int waiter = self - setup_.workers;
    if (waiter < setup_.parked)
      waiter_[waiter].note.sleep_while(0, memory_order_acquire);
    else
      wait(waiter);
    for (int i = 0; i < setup_.workers; i++)
      check(work_[i].get() == 1, "wait() came back before the work was done");
    if (setup_.destroys && waiter >= setup_.parked) alive_.set(0);
  }

  void after(bool stuck) override { check(!stuck, "a waiter of a finished group sleeps"); }

 private:
  static constexpr std::uint64_t kWaited = 1;

  /// Each use of the group's memory.
  void touch() { check(alive_.get() == 1, "the group is touched after its end"); }

  void add(int n) {
    const auto by = static_cast<std::uint64_t>(static_cast<std::int64_t>(n)) << 32;
    touch();
    std::uint64_t s = peek(state_);
    for (;;) {
      const std::int64_t count = static_cast<std::int64_t>(s) >> 32;
      check(count + n >= 0, "negative counter");
      if (how_ != Group::ZeroUnguarded && count + n == 0 && (s & kWaited)) break;
      touch();
      const bool last = how_ == Group::ZeroUnguarded && count + n == 0 && (s & kWaited);
      if (state_.compare_exchange_weak(s, last ? 0 : s + by, memory_order_acq_rel,
                                       memory_order_relaxed)) {
        if (!last) return;
        touch();
        guard_.lock();
        return wake_all();
      }
    }
    touch();
    guard_.lock();
    s = peek(state_);
    for (;;) {
      const std::int64_t count = (static_cast<std::int64_t>(s) >> 32) + n;
      const std::uint64_t next = count == 0 ? 0 : s + by;
      touch();
      if (state_.compare_exchange_weak(s, next, memory_order_acq_rel, memory_order_relaxed)) {
        if (count != 0) {
          touch();
          guard_.unlock();
          return;
        }
        break;
      }
    }
    wake_all();
  }

  void wake_all() {
    Node* all = nullptr;
    Node** end = &all;
    touch();
    while (Node* n = rt::take_winner(queue_, Outcome::Wake)) {
      n->next = nullptr;
      *end = n;
      end = &n->next;
    }
    if (how_ != Group::UnlocksAfterWakes) {
      touch();
      guard_.unlock();
    }
    while (all) {
      Node* next = all->next;
      wake_waiter(all->waiter);
      all = next;
    }
    if (how_ == Group::UnlocksAfterWakes) {
      touch();
      guard_.unlock();
    }
  }

  void wait(int i) {
    std::uint64_t s = state_.load(memory_order_acquire);
    if (s == 0 && (how_ == Group::IgnoresGuard || !guard_.held())) return;
    if (how_ == Group::MarksUnguarded) {
      s = peek(state_);
      while (s >> 32 != 0 && !state_.compare_exchange_weak(s, s | kWaited, memory_order_relaxed)) {
      }
    }
    guard_.lock();
    s = peek(state_);
    for (;;) {
      if (s >> 32 == 0 && how_ != Group::MarksUnguarded) {
        (void)state_.load(memory_order_acquire);
        guard_.unlock();
        return;
      }
      if (how_ == Group::MarksUnguarded ||
          state_.compare_exchange_weak(s, s | kWaited, memory_order_relaxed))
        break;
    }
    Node* n = plain_node(&node_[i], &waiter_[i], false);
    queue_.push(n);
    wait_on(n, guard_, false);
  }

  Group how_;
  Setup setup_;
  Atomic<std::uint64_t> state_{0};
  Lock guard_;
  Queue queue_;
  Waiter waiter_[2];
  Node node_[2];
  Plain<int> work_[2];
  Plain<int> alive_{1};
};

Case group(const char* name, WaitGroupModel::Setup setup, Group how = Group::Real,
           int preemptions = -1) {
  return {name, setup.workers + setup.parked + setup.late,
          [=] { return std::make_unique<WaitGroupModel>(how, setup); }, preemptions};
}

TEST(WaitGroupModel, IsNotTouchedAfterItsWaiterHasReturned) {
  expect_holds(group("wait group: two and a waiter", {}));
  expect_holds(group("wait group: one adds meanwhile", {.adds = true}, Group::Real, 3));
  expect_holds(group("wait group: a waiter comes late", {.workers = 1, .parked = 1}));
  expect_holds(group("wait group: two, a waiter comes late", {.parked = 1}, Group::Real, 2));
}

TEST(WaitGroupModel, WakesAllItsWaiters) {
  // Which of two that come at any time may end the group is the program's matter, so nobody does.
  expect_holds(group("wait group: two waiters", {.workers = 1, .late = 2, .destroys = false}));
}

TEST(WaitGroupModel, NeedsEachStep) {
  const WaitGroupModel::Setup late{.workers = 1, .parked = 1};
  expect_broken(group("wait group: ignores the guard", late, Group::IgnoresGuard));
  expect_broken(group("wait group: unlocks after it has woken", {}, Group::UnlocksAfterWakes));
  expect_broken(group("wait group: zero without the guard", late, Group::ZeroUnguarded));
  expect_broken(
      group("wait group: says that it waits without the guard", {}, Group::MarksUnguarded));
}

// ---- mutants ------------------------------------------------------------------------------------

// A hand-over is ordered by the wake-up that it comes with. A section's store is a release on the CPUs that have sections.
TEST(MutexModel, NoticesWeakenedOrders) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's build looks at a part of the executions only";
  EXPECT_EQ(survivors({mutex("mutex: two", 2, {.spins = true, .starves = true}),
                       mutex("mutex with sections: two", 2, {.sections = true}),
                       mutex("mutex: three", 3, {.starves = true}, Step::Real, 2)},
                      "model/sync_test.cpp", {"try_take", "lock", "unlock_quietly", "unlock_slow", "replace", "share"}),
            (std::set<std::string>{
                "lock: and acquire -> relaxed",
                "unlock_slow: and release -> relaxed",
            }));
}

// A done() that is not the last has nothing to see.
TEST(WaitGroupModel, NoticesWeakenedOrders) {
  EXPECT_EQ(survivors({group("wait group: two and a waiter", {}),
                       group("wait group: a waiter comes late", {.workers = 1, .parked = 1})},
                      "model/sync_test.cpp", {"add", "wait", "wait_on", "wake_waiter"}),
            (std::set<std::string>{"add: cas acq_rel -> release"}));
}

}  // namespace
}  // namespace weft::model
