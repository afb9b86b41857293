// Stopping the world at safepoints and starting it again (sched/world.cpp): a stop returns only when nobody touches any
// P, it returns at last, and after the start everybody goes on.
//
//   M, in a call                       stopper, holding mu
//   status: Running -> Syscall         marks: Running, counts the P, asks
//   (counts nothing)                   looks again: Syscall -> Stopped by CAS, counts it down
//   back: Syscall -> Running by CAS
//   attention? counts itself down      ... or that CAS fails: it is asked, and comes
//
// The machine is that of world.hpp.
#include "tests/model/world.hpp"

namespace weft::model {
namespace {

// ---- programs -----------------------------------------------------------------------------------

/// A goroutine that works and comes to safepoints; a second one waits in its P.
class Safepoints : public World {
 public:
  explicit Safepoints(Step s) : World(s, 2) {
    g_[0].does = "wsw";
    g_[1].does = "w";
    running(0, 0, g_[0]);
    queued(0, g_[1]);
    idle(1);
    asleep(1);
  }
  void thread(int self) override {
    if (self == 0) return stopper(self);
    m_main(self, self - 1);
  }
};

/// One that is in a call, while sysmon comes for its P, or another stops the world as well.
enum class Third { Nobody, Sysmon, Stopper };
template <Third kThird>
class InCalls : public World {
 public:
  explicit InCalls(Step s) : World(s, 1) {
    g_[0].does = "wexw";
    running(0, 0, g_[0]);
  }
  void thread(int self) override {
    if (self == 0) return stopper(self);
    if (self == 1) return m_main(self, 0);
    if (kThird == Third::Sysmon) return sysmon(self, 0);
    stopper(self);
  }
};

/// One whose call does not end before the world stands.
class LongCall : public World {
 public:
  explicit LongCall(Step s) : World(s, 1) {
    g_[0].does = "wekxw";
    running(0, 0, g_[0]);
  }
  void thread(int self) override {
    if (self == 0) return stopper(self);
    m_main(self, 0);
  }
};

/// The stopper gives up.
class GivesUp : public World {
 public:
  explicit GivesUp(Step s) : World(s, 1) {
    g_[0].does = "wsexw";
    running(0, 0, g_[0]);
  }
  void thread(int self) override {
    if (self == 0) return stopper(self, true);
    m_main(self, 0);
  }
};

/// One that hands its P off at once, to an M that sleeps: there is another goroutine for it, or there is none.
template <bool kQueued>
class Blocking : public World {
 public:
  explicit Blocking(Step s) : World(s, 1) {
    g_[0].does = "bx";
    running(0, 0, g_[0]);
    if (kQueued) {
      g_[1].does = "w";
      queued(0, g_[1]);
    }
    asleep(1);
  }
  void thread(int self) override {
    if (self == 0) return stopper(self);
    m_main(self, self - 1);
  }
};

/// A goroutine that stops the world itself, at the same time.
class GoroutineStops : public World {
 public:
  explicit GoroutineStops(Step s) : World(s, 1) {
    g_[0].does = "Sw";
    running(0, 0, g_[0]);
  }
  void thread(int self) override {
    if (self == 0) return stopper(self);
    m_main(self, self - 1);
  }
};

/// Somebody readies a goroutine. kAsleep: an M sleeps; else a thread is started, or cannot be.
template <bool kAsleep>
class Publishes : public World {
 public:
  explicit Publishes(Step s) : World(s, 2, !kAsleep) {
    g_[0].does = "w";
    idle(0);
    idle(1);
    if (kAsleep) asleep(0);
  }
  void thread(int self) override {
    if (self == 0) return stopper(self);
    if (self == 1) return publish(self, g_[0]);
    if (kAsleep) return m_main(self, 0);
    next_thread(self);
  }
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      of<InCalls<Third::Nobody>>("world: calls", 2, Step::Real, 3),
      of<InCalls<Third::Sysmon>>("world: calls and sysmon", 3),
      of<InCalls<Third::Stopper>>("world: calls and two stoppers", 3),
      of<LongCall>("world: a call that lasts", 2),
      of<GivesUp>("world: the stopper gives up", 2),
      of<Blocking<false>>("world: hands off", 3),
      of<Blocking<true>>("world: hands off with work", 3),
      of<Safepoints>("world: safepoints", 3),
      of<GoroutineStops>("world: a goroutine stops it, too", 2, Step::Real, 3),
      of<Publishes<true>>("world: somebody readies", 3),
      of<Publishes<false>>("world: somebody readies, a thread cannot be started", 3),
  };
  return all;
}

TEST(WorldModel, StopsWhenNobodyTouchesAPAndStartsEverybody) {
  for (const Case& c : cases()) expect_holds(c);
}

TEST(WorldModel, NeedsEachStep) {
  using Calls = InCalls<Third::Nobody>;
  expect_broken(of<LongCall>("world: the stopper looks once", 2, Step::MarksOnce), "never returns");
  expect_broken(of<Calls>("world: the stopper takes without asking", 2, Step::MarkStores));
  expect_broken(of<Blocking<false>>("world: what is handed off becomes idle", 3, Step::HandoffForgets), "never returns");
  expect_broken(of<Safepoints>("world: does not count itself down", 3, Step::SleepForgets), "never returns");
  expect_broken(of<Safepoints>("world: gives its P to the idle ones", 3, Step::SleepIsIdle));
  expect_broken(of<Safepoints>("world: the idle ones stay on their list", 3, Step::KeepsIdle));
  expect_broken(of<Calls>("world: counts before it holds mu", 2, Step::MarksUnlocked));
  expect_broken(of<Publishes<true>>("world: nobody is woken at the start", 3, Step::NoWakeAtStart), "is left");
  expect_broken(of<GivesUp>("world: no last look", 2, Step::NoLastLook), "is left");
  expect_broken(of<GivesUp>("world: the wish to stop stays", 3, Step::StartLeavesBit));
  expect_broken(of<GoroutineStops>("world: waits for its turn with a P in hand", 2, Step::BlocksWithP));
  expect_broken(of<Publishes<false>>("world: a thread that does not start leaves the count", 3, Step::FailsUncounted),
                "never returns");
}

// That nobody takes an idle P while the world stops is said twice: there is none.
TEST(WorldModel, HasNoIdlePWhileItStands) {
  expect_holds(of<Publishes<true>>("world: takes idle ones in a stopped world", 3, Step::AcquiresStopped, 1));
  expect_holds(of<Blocking<true>>("world: takes idle ones in a stopped world, hands off", 3, Step::AcquiresStopped, 1));
  expect_holds(of<Publishes<true>>("world: wakes in a stopped world", 3, Step::WakesStopped, 1));
}

// What happens under mu, it orders; mark() looks once before its compare-exchange. That an M in a call may find its P
// where another has left it meanwhile is in handoff_test.cpp.
TEST(WorldModel, NoticesWeakenedOrders) {
  const std::vector<Case> few{
      of<InCalls<Third::Nobody>>("world: calls", 2),
      of<InCalls<Third::Sysmon>>("world: calls and sysmon", 3, Step::Real, 1),
  };
  EXPECT_EQ(survivors(few, "model/world.hpp", {"mark", "enter_syscall", "exit_syscall", "retake_p"}),
            (std::set<std::string>{
                "mark: load acquire -> relaxed",
                "mark: cas acq_rel -> acquire",
                "mark: cas acq_rel -> release",
                "mark: store release -> relaxed",
                "exit_syscall: cas acq_rel -> acquire",
                "exit_syscall: cas acq_rel -> release",
                "retake_p: cas acq_rel -> acquire",
            }));
}

}  // namespace
}  // namespace weft::model
