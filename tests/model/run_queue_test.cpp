// RunQueue, FreshQueue and runnext: each task is taken exactly once, and seen as it was pushed, in
// all executions. The queues are the runtime's own, of four slots, whose indices wrap.
#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

constexpr std::uint32_t kNearWrap = UINT32_MAX - 2;
constexpr int kTasks = 8;

struct Task {
  Plain<int> payload;
};

/// What both kinds of queue are tried with: who took what.
class Tasks : public Program {
 public:
  void after(bool stuck) override {
    check(!stuck, "a queue sleeps");
    while (Task* t = rest()) taken(t);
    for (int i = 0; i < made_; i++) {
      check(count_[i] != 0, "a task is lost");
      check(count_[i] == 1, "a task is taken twice");
    }
  }

 protected:
  virtual Task* rest() = 0;

  Task* make() {
    Task* t = &task_[made_++];
    t->payload.set(made_);
    return t;
  }
  void taken(Task* t) {
    const auto i = static_cast<int>(t - task_);
    count_[i]++;
    check(t->payload.get() == i + 1, "a task is not seen as it was pushed");
    // It runs, and changes: whoever takes it a second time races with this.
    t->payload.set(i + 1);
  }

 private:
  Task task_[kTasks];
  int made_ = 0;
  int count_[kTasks] = {};
};

constexpr std::uint32_t kCapacity = 4;

/// A queue of either kind with `first` tasks in it, and what its owner does.
template <class Queue>
class Queued : public Tasks {
 public:
  explicit Queued(int first) {
    Explorer::now().guard_slots();
    for (int i = 0; i < first; i++) push();
  }

 protected:
  Queue queue_{kNearWrap};

  Task* rest() override { return queue_.pop(true); }
  void push() { check(queue_.push(make()), "there was room"); }
  void pop() {
    if (Task* t = queue_.pop(false)) taken(t);
  }
  /// Keeps a task for itself that finds no room.
  void push_or_take() {
    Task* t = make();
    if (!queue_.push(t)) taken(t);
  }
  /// Takes the older half out for a task that finds no room; false if it found some.
  bool push_or_spill() {
    Task* t = make();
    if (queue_.push(t)) return false;
    Task* batch[kCapacity / 2 + 1];
    std::uint32_t n = queue_.take_half(batch);
    batch[n++] = t;
    for (std::uint32_t i = 0; i < n; i++) taken(batch[i]);
    return true;
  }
};

// ---- RunQueue -----------------------------------------------------------------------------------

class Ring : public Queued<rt::RunQueue<Task, kCapacity, Atomic>> {
 public:
  explicit Ring(int first = 0) : Queued(first) {}

 protected:
  void steal() {
    Task* got[kCapacity / 2];
    const std::uint32_t n = queue_.steal(got);
    for (std::uint32_t i = 0; i < n; i++) taken(got[i]);
  }
};

/// M1: the owner pushes and pops while a thief takes half.
class RingOneThief : public Ring {
 public:
  void thread(int self) override {
    if (self == 0) {
      push();
      push();
      pop();
      push();
      pop();
    } else {
      steal();
    }
  }
};

/// The owner fills the slots that a thief has just emptied.
class RingReuse : public Ring {
 public:
  RingReuse() : Ring(4) {}
  void thread(int self) override {
    if (self == 0) {
      push_or_take();
      push_or_take();
    } else {
      steal();
      steal();
    }
  }
};

/// M2.
class RingTwoThieves : public Ring {
 public:
  RingTwoThieves() : Ring(1) {}
  void thread(int self) override {
    if (self == 0) {
      push();
      pop();
    } else {
      steal();
    }
  }
};

/// M3: a full ring gives its older half away while thieves take from it.
class RingOverflow : public Ring {
 public:
  RingOverflow() : Ring(4) {}
  void thread(int self) override {
    if (self == 0) {
      if (push_or_spill()) pop();
    } else {
      steal();
    }
  }
};

/// What size() said when somebody looked: at most what there was.
class RingSize : public Ring {
 public:
  void thread(int self) override {
    if (self == 0) {
      push();
      push();
      pop();
    } else {
      queue_.size();
      steal();
    }
  }
};

const std::vector<Case>& ring_cases() {
  static const std::vector<Case> cases{
      of<RingOneThief>("ring: one thief", 2),
      of<RingReuse>("ring: slots are used again", 2),
      of<RingTwoThieves>("ring: two thieves", 3),
      of<RingOverflow>("ring: overflow and a thief", 2),
      of<RingSize>("ring: size", 2),
  };
  return cases;
}

TEST(RunQueueModel, TakesEachTaskOnce) {
  for (const Case& c : ring_cases()) expect_holds(c);
}

// ---- FreshQueue ---------------------------------------------------------------------------------

class Fresh : public Queued<rt::FreshQueue<Task, kCapacity, Atomic>> {
 public:
  explicit Fresh(int first = 0) : Queued(first) {}

 protected:
  void steal() {
    if (Task* t = queue_.steal()) taken(t);
  }
};

/// Owner and thief race for the last one.
class FreshLast : public Fresh {
 public:
  void thread(int self) override {
    if (self == 0) {
      push();
      push();
      pop();
      pop();
    } else {
      steal();
      steal();
    }
  }
};

class FreshReuse : public Fresh {
 public:
  FreshReuse() : Fresh(4) {}
  void thread(int self) override {
    if (self == 0) {
      push_or_take();
      pop();
    } else {
      steal();
      steal();
    }
  }
};

class FreshTwoThieves : public Fresh {
 public:
  FreshTwoThieves() : Fresh(2) {}
  void thread(int self) override {
    if (self == 0) {
      pop();
      pop();
    } else {
      steal();
    }
  }
};

class FreshOverflow : public Fresh {
 public:
  FreshOverflow() : Fresh(4) {}
  void thread(int self) override {
    if (self == 0) {
      if (push_or_spill()) pop();
    } else {
      steal();
      steal();
    }
  }
};

class FreshTwoThievesGrowing : public Fresh {
 public:
  void thread(int self) override {
    if (self == 0) {
      push();
      push();
      pop();
    } else {
      steal();
    }
  }
};

const std::vector<Case>& fresh_cases() {
  static const std::vector<Case> cases{
      of<FreshLast>("fresh: the last one", 2),
      of<FreshReuse>("fresh: slots are used again", 2),
      of<FreshTwoThieves>("fresh: two thieves", 3),
      of<FreshTwoThievesGrowing>("fresh: two thieves, growing", 3),
      of<FreshOverflow>("fresh: overflow and a thief", 2),
  };
  return cases;
}

TEST(FreshQueueModel, TakesEachTaskOnce) {
  for (const Case& c : fresh_cases()) expect_holds(c);
}

// ---- runnext ------------------------------------------------------------------------------------

enum class Runnext { Real, OwnerStores, ThiefStores };

/// M4: put_next() of sched/park.cpp, take_runnext() of sched/switch.hpp and steal_runnext() of
/// sched/steal.cpp, line by line.
template <Runnext kHow>
class RunnextSlot : public Tasks {
 public:
  void thread(int self) override {
    if (self == 0) {
      Task* again = make();
      put_next(again);
      if (Task* t = take_runnext()) {
        taken(t);
        put_next(make());
      }
      put_next(make());
    } else {
      steal_runnext();
    }
  }

 private:
  Task* rest() override {
    if (kicked_ != out_) return kicked_list_[out_++];
    if (rest_done_) return nullptr;
    rest_done_ = true;
    return runnext_.final();
  }

  void put_next(Task* t) {
    Task* old;
    if constexpr (kHow == Runnext::OwnerStores) {
      old = peek(runnext_);
      runnext_.store(t, memory_order_seq_cst);
    } else {
      old = runnext_.exchange(t, memory_order_seq_cst);
    }
    if (old) kicked_list_[kicked_++] = old;
  }
  Task* take_runnext() {
    Task* t = peek(runnext_);
    if (!t) return nullptr;
    return runnext_.exchange(nullptr, memory_order_acq_rel);
  }
  void steal_runnext() {
    Task* t = peek(runnext_);
    if (!t) return;
    if constexpr (kHow == Runnext::ThiefStores) {
      runnext_.store(nullptr, memory_order_release);
    } else if (!runnext_.compare_exchange_strong(t, nullptr, memory_order_acq_rel,
                                                 memory_order_relaxed)) {
      return;
    }
    taken(t);
  }

  Atomic<Task*> runnext_{nullptr};
  Task* kicked_list_[kTasks];
  int kicked_ = 0;
  int out_ = 0;
  bool rest_done_ = false;
};

TEST(RunnextModel, TakesEachTaskOnce) {
  expect_holds(of<RunnextSlot<Runnext::Real>>("runnext: owner and thief", 2));
  expect_holds(of<RunnextSlot<Runnext::Real>>("runnext: two thieves", 3));
}

TEST(RunnextModel, NeedsReadModifyWritesOnBothSides) {
  expect_broken(of<RunnextSlot<Runnext::OwnerStores>>("runnext: the owner stores", 2));
  expect_broken(of<RunnextSlot<Runnext::ThiefStores>>("runnext: the thief stores", 2));
}

// ---- mutants ------------------------------------------------------------------------------------

// What survives orders the owner with itself (it alone stores to slots and tail, so what it has
// taken needs no order), or the thief's first look at the head, which its compare-exchange checks.
// size() is for the last look: idle_test.cpp.
TEST(RunQueueModel, NoticesWeakenedOrders) {
  EXPECT_EQ(survivors(ring_cases(), "core/run_queue.hpp", {"push", "pop", "take_half", "steal"}),
            (std::set<std::string>{
                "pop: load acquire -> relaxed",
                "pop: cas acq_rel -> acquire",
                "pop: cas acq_rel -> release",
                "pop: cas failure acquire -> relaxed",
                "take_half: load acquire -> relaxed",
                "take_half: cas acq_rel -> acquire",
                "take_half: cas acq_rel -> release",
                "steal: load acquire -> relaxed",
                "steal: cas acq_rel -> release",
            }));
}

// The owner's compare-exchange on top orders nothing that its exchange on bottom has not; in
// take_half() it races with no one who does not use a compare-exchange too; the thief's load of top
// is checked by its own; what pop() stores to bottom in the end shows an empty queue.
TEST(FreshQueueModel, NoticesWeakenedOrders) {
  EXPECT_EQ(survivors(fresh_cases(), "core/run_queue.hpp", {"push", "pop", "take_half", "steal"}),
            (std::set<std::string>{
                "pop: cas seq_cst -> acq_rel",
                "pop: store release -> relaxed",
                "pop: store release -> relaxed #2",
                "take_half: load seq_cst -> acquire",
                "take_half: cas seq_cst -> acq_rel",
                "steal: load seq_cst -> acquire",
            }));
}

}  // namespace
}  // namespace weft::model
