// Standing still at any instruction (sched/freeze.cpp): a freeze returns only when nobody runs, it returns at last, and
// after the thaw everybody goes on; whoever begins or ends, falls asleep or wakes meanwhile, is suspended or answers
// too late.
//
//   freezer, holding Sched::freezing        M that sleeps
//   frozen++ (odd)                          asleep = true; asked a moment ago: answers
//   asleep ? skip                           ... asleep = false
//          : count it, ask, signal          frozen odd ? asleep again, until it changes
//          asleep now ? answer for it
//
// The functions mirror begin_asking(), ask_to_stand(), count_down(), all_stand(), on_interrupt(), Asleep,
// never_freeze(), freeze_world(), thaw_world(), hold() and let_stand_end() line by line. A signal comes at whatever
// point of its thread, or never to one that sleeps. `data` is what a thread does: touching it while another looks on is
// a race.
#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

struct M {
  Atomic<std::uint32_t> freeze_asked{0};
  Atomic<std::uint32_t> suspended{0};
  Atomic<bool> asleep{true};
  Atomic<int> stands_at{0};
  Atomic<int> signal{0};  // is pending
  Plain<int> data;
  Plain<int> registers;
  bool there = false;  // its thread has begun
  bool sleeps_at = true;
};

enum class Step {
  Real,
  NoLookAtWake,     // who wakes does not look whether the world is frozen
  LooksOnce,        // who wakes waits, and is awake without another look
  NoAnswerAsleep,   // who falls asleep does not answer
  NoAnswerFor,      // nor does the freezer for it
  NoAnswers,        // neither does
  AsksFirst,        // the freezer asks before it freezes
  ReadsLate,        // the handler reads which freeze it is in after its answer
  WaitsUncounted,   // it waits although its answer came too late
  KeepsWake,        // a wake-up that belongs to an earlier asker stays
  AnyRound,         // an answer counts for whoever asks now
  NoAnswerHeld,     // who is suspended does not hear of a freeze
  EndsSilently,     // a thread that ends does not answer
  StandsLate,       // it says where it stands after its answer
};

class Freeze : public Stepped<Step> {
 public:
  using Stepped::Stepped;

  void after(bool) override { check(!freezing_now_, "a freeze never ends"); }

 protected:
  // --- threads ---

  void begins(M& m) {
    m.there = true;
    asleep_begin(m);  // set_up_m()
    asleep_end(m);
    point(m);
  }
  void runs(M& m) {
    m.data.set(1);
    point(m);
  }
  void sleeps(M& m) {
    asleep_begin(m);
    if (choose(2)) interrupted(m);  // the signal may reach it there
    asleep_end(m);
    point(m);
  }
  void ends(M& m) {
    if (step_ == Step::EndsSilently) {
      m.there = false;
      m.asleep.store(true, memory_order_seq_cst);
      return;
    }
    m.sleeps_at = true;
    m.asleep.store(true, memory_order_seq_cst);  // never_freeze()
    answer_asleep(m);
    m.there = false;
  }
  /// In user code for ever: only signals reach it.
  void goes_on(M& m) {
    for (;;) {
      m.data.set(1);
      m.signal.sleep_while(0, memory_order_relaxed);
      interrupted(m);
    }
  }

  // --- freezer ---

  bool freeze(bool limited = false) {
    lock_.lock();
    freezing_now_ = true;
    const std::uint32_t round = begin_asking();
    mu_.lock();
    if (step_ != Step::AsksFirst) frozen_.fetch_add(1, memory_order_seq_cst);
    for (int i = 0; i < ms_; i++)
      if (!m_[i].asleep.load(memory_order_seq_cst)) ask_to_stand(m_[i], round);
    if (step_ == Step::AsksFirst) frozen_.fetch_add(1, memory_order_seq_cst);
    mu_.unlock();
    if (!all_stand(round, limited)) {
      thaw();
      return false;
    }
    for (int i = 0; i < ms_; i++) {
      m_[i].data.set(2);  // everybody stands
      if (m_[i].stands_at.load(memory_order_acquire))
        m_[i].registers.get();
      else
        check(m_[i].sleeps_at, "a thread stands, and nobody knows where");
    }
    return true;
  }
  void thaw() {
    frozen_.fetch_add(1, memory_order_seq_cst);
    freezing_now_ = false;
    lock_.unlock();
  }

  /// hold() of one that runs without a P; let_on().
  void suspend(M& m) {
    lock_.lock();
    freezing_now_ = true;
    const std::uint32_t round = begin_asking();
    mu_.lock();
    m.suspended.fetch_or(1, memory_order_seq_cst);
    ask_to_stand(m, round);
    mu_.unlock();
    all_stand(round, false);
    m.data.set(3);
    freezing_now_ = false;
    lock_.unlock();
  }
  void resume(M& m) { m.suspended.fetch_and(~1u, memory_order_seq_cst); }

  M m_[2];
  int ms_ = 1;

 private:
  // --- of the thread that is asked ---

  /// The signal comes here, if it has been sent.
  void point(M& m) {
    if (m.signal.load(memory_order_relaxed)) interrupted(m);
  }

  void interrupted(M& m) {
    if (m.signal.exchange(0, memory_order_relaxed) == 0) return;
    on_interrupt(m);
  }

  void on_interrupt(M& m) {
    std::uint32_t round = m.freeze_asked.exchange(0, memory_order_seq_cst);
    if (!round) return;
    m.registers.set(1);
    if (step_ != Step::StandsLate) m.stands_at.store(1, memory_order_release);
    for (;;) {
      std::uint32_t now = frozen_.load(memory_order_seq_cst);
      const bool counts = count_down(round) || step_ == Step::WaitsUncounted;
      if (step_ == Step::ReadsLate) now = frozen_.load(memory_order_seq_cst);
      if (step_ == Step::StandsLate) m.registers.set(2), m.stands_at.store(1, memory_order_release);
      if (counts && (now & 1)) frozen_.sleep_while(now, memory_order_seq_cst);
      do {
        const std::uint32_t stays = m.suspended.load(memory_order_seq_cst);
        round = m.freeze_asked.exchange(0, memory_order_seq_cst);
        if (round != 0 || !(stays & 1)) break;
        m.suspended.sleep_while(stays, memory_order_seq_cst);
      } while (true);
      if (round == 0) break;
    }
    m.stands_at.store(0, memory_order_release);
  }

  void answer_asleep(M& m) {
    if (step_ == Step::NoAnswerAsleep || step_ == Step::NoAnswers) return;
    if (m.freeze_asked.load(memory_order_seq_cst) == 0) return;
    if (const std::uint32_t round = m.freeze_asked.exchange(0, memory_order_seq_cst)) count_down(round);
  }

  void asleep_begin(M& m) {
    m.sleeps_at = true;
    m.asleep.store(true, memory_order_seq_cst);
    answer_asleep(m);
  }
  void asleep_end(M& m) {
    for (;;) {
      m.asleep.store(false, memory_order_seq_cst);
      const std::uint32_t now = frozen_.load(memory_order_seq_cst);
      if (!(now & 1) || step_ == Step::NoLookAtWake) break;
      if (step_ == Step::LooksOnce) {
        frozen_.sleep_while(now, memory_order_seq_cst);
        break;
      }
      m.asleep.store(true, memory_order_seq_cst);
      answer_asleep(m);
      frozen_.sleep_while(now, memory_order_seq_cst);
    }
    m.sleeps_at = false;
  }

  // --- of who asks ---

  static std::uint32_t round_of(std::uint64_t left) { return static_cast<std::uint32_t>(left >> 32); }

  bool count_down(std::uint32_t round) {
    std::uint64_t left = freeze_left_.load(memory_order_acquire);
    do {
      if (round_of(left) != round && step_ != Step::AnyRound) return false;
    } while (!freeze_left_.compare_exchange_weak(left, left - 1, memory_order_acq_rel, memory_order_acquire));
    if (static_cast<std::uint32_t>(left) == 1) note_.exchange(1, memory_order_release);
    return true;
  }

  std::uint32_t begin_asking() {
    note_.exchange(0, memory_order_acquire);
    const std::uint32_t round = round_of(peek(freeze_left_)) + 1;
    freeze_left_.store(std::uint64_t{round} << 32 | 1, memory_order_release);
    return round;
  }

  void ask_to_stand(M& m, std::uint32_t round) {
    freeze_left_.fetch_add(1, memory_order_relaxed);
    m.freeze_asked.store(round, memory_order_seq_cst);
    if (step_ != Step::NoAnswerHeld && (m.suspended.load(memory_order_seq_cst) & 1))
      m.suspended.fetch_add(2, memory_order_seq_cst);
    const bool sent = m.there;  // else the thread has gone
    if (sent) m.signal.exchange(1, memory_order_release);
    const bool comes = !m.asleep.load(memory_order_seq_cst) && sent;
    if (step_ == Step::NoAnswerFor || step_ == Step::NoAnswers) return;
    if (!comes && m.freeze_asked.exchange(0, memory_order_seq_cst)) count_down(round);
  }

  bool all_stand(std::uint32_t round, bool limited) {
    count_down(round);
    if (limited && choose(2)) return false;
    while (static_cast<std::uint32_t>(freeze_left_.load(memory_order_acquire)) != 0) {
      note_.sleep_while(0, memory_order_acquire);
      if (step_ != Step::KeepsWake && static_cast<std::uint32_t>(freeze_left_.load(memory_order_acquire)) != 0)
        note_.exchange(0, memory_order_acquire);
    }
    return true;
  }

  Lock lock_, mu_;
  Atomic<std::uint32_t> frozen_{0};
  Atomic<std::uint64_t> freeze_left_{0};
  Atomic<std::uint32_t> note_{0};
  bool freezing_now_ = false;
};

/// A thread that begins, runs, sleeps, runs and ends; kEnds: or stays.
template <bool kEnds, int kFreezes = 1>
class OneThread : public Freeze {
 public:
  using Freeze::Freeze;
  void thread(int self) override {
    if (self == 0) {
      for (int i = 0; i < kFreezes; i++) {
        freeze();
        thaw();
      }
      return;
    }
    begins(m_[0]);
    runs(m_[0]);
    sleeps(m_[0]);
    runs(m_[0]);
    if (kEnds)
      ends(m_[0]);
    else
      goes_on(m_[0]);
  }
};

/// One that is in user code all the time.
template <int kFreezes, bool kLimited = false>
class Hog : public Freeze {
 public:
  explicit Hog(Step s) : Freeze(s) {
    m_[0].there = true;
    m_[0].sleeps_at = false;
    m_[0].asleep.store(false, memory_order_relaxed);
  }
  void thread(int self) override {
    if (self == 1) return goes_on(m_[0]);
    for (int i = 0; i < kFreezes; i++)
      if (freeze(kLimited && i == 0)) thaw();
  }
};

/// Two freeze the world, each in its turn.
class TwoFreezers : public Freeze {
 public:
  explicit TwoFreezers(Step s) : Freeze(s) {
    m_[0].there = true;
    m_[0].sleeps_at = false;
    m_[0].asleep.store(false, memory_order_relaxed);
  }
  void thread(int self) override {
    if (self == 2) {
      runs(m_[0]);
      sleeps(m_[0]);
      return goes_on(m_[0]);
    }
    freeze();
    thaw();
  }
};

/// One is suspended, the world is frozen, it is resumed and the world is frozen again.
class Suspended : public Freeze {
 public:
  explicit Suspended(Step s) : Freeze(s) {
    m_[0].there = true;
    m_[0].sleeps_at = false;
    m_[0].asleep.store(false, memory_order_relaxed);
  }
  void thread(int self) override {
    if (self == 1) return goes_on(m_[0]);
    suspend(m_[0]);
    freeze();
    thaw();
    resume(m_[0]);
    freeze();
    thaw();
  }
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      of<Hog<1>>("freeze: user code", 2),
      of<Hog<2>>("freeze: user code, twice", 2, Step::Real, 2),
      of<Hog<2, true>>("freeze: gives up, then again", 2, Step::Real, 2),
      of<OneThread<true>>("freeze: a thread ends", 2, Step::Real, 3),
      of<OneThread<false>>("freeze: a thread stays", 2, Step::Real, 3),
      of<OneThread<false, 2>>("freeze: a thread, twice", 2, Step::Real, 2),
      of<Suspended>("freeze: suspended", 2, Step::Real, 2),
  };
  return all;
}

TEST(FreezeModel, ReturnsWhenNobodyRunsAndAtLast) {
  for (const Case& c : cases()) expect_holds(c);
  expect_holds(of<TwoFreezers>("freeze: two freezers", 3, Step::Real, 2));
}

TEST(FreezeModel, NeedsEachStep) {
  using Sleeps = OneThread<false>;
  expect_broken(of<Sleeps>("freeze: wakes without a look", 2, Step::NoLookAtWake, 2), "race");
  expect_broken(of<OneThread<false, 2>>("freeze: looks once when it wakes", 2, Step::LooksOnce, 3));
  expect_broken(of<Sleeps>("freeze: nobody answers for who sleeps", 2, Step::NoAnswers, 2), "never ends");
  expect_broken(of<Sleeps>("freeze: asks first", 2, Step::AsksFirst, 2), "race");
  expect_broken(of<Hog<2>>("freeze: reads which one after its answer", 2, Step::ReadsLate, 3));
  expect_broken(of<Hog<2, true>>("freeze: waits uncounted", 2, Step::WaitsUncounted, 2), "never ends");
  expect_broken(of<Hog<2, true>>("freeze: keeps a wake-up", 2, Step::KeepsWake, 2), "without end");
  expect_broken(of<Hog<2, true>>("freeze: any answer counts", 2, Step::AnyRound, 3));
  expect_broken(of<Suspended>("freeze: who is suspended does not hear", 2, Step::NoAnswerHeld, 2), "never ends");
  expect_broken(of<OneThread<true>>("freeze: ends silently", 2, Step::EndsSilently, 2));
  expect_broken(of<Hog<1>>("freeze: stands after its answer", 2, Step::StandsLate, 2), "knows where");
}

// Of who falls asleep: the signal may reach it there; the freezer's second look finds it. What takes a question away
// reads the newest value in any case.
TEST(FreezeModel, NoticesWeakenedOrders) {
  const std::vector<Case> few{
      of<Hog<1>>("freeze: user code", 2),
      of<OneThread<true>>("freeze: a thread ends", 2, Step::Real, 2),
      of<Hog<2, true>>("freeze: gives up, then again", 2, Step::Real, 2),
      of<Suspended>("freeze: suspended", 2, Step::Real, 1),
  };
  EXPECT_EQ(survivors(few, "model/freeze_test.cpp",
                      {"ends", "freeze", "asleep_begin", "asleep_end", "answer_asleep", "ask_to_stand", "count_down"}),
            (std::set<std::string>{
                "freeze: load acquire -> relaxed",
                "answer_asleep: exchange seq_cst -> acq_rel",
                "asleep_begin: store seq_cst -> release",
                "asleep_end: sleep seq_cst -> acquire",
                "ask_to_stand: add seq_cst -> acq_rel",
                "ask_to_stand: exchange release -> relaxed",
                "ask_to_stand: exchange seq_cst -> acq_rel",
                "ask_to_stand: load seq_cst -> acquire",
                "count_down: cas acq_rel -> release",
                "count_down: cas failure acquire -> relaxed",
                "count_down: load acquire -> relaxed",
            }));
}

}  // namespace
}  // namespace weft::model
