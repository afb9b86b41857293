// A hibernated stack's page (core/hibernate.cpp, sched/hibernator.cpp): nothing written to it is lost, it is taken from
// nobody who runs on it, who waits for it goes on, and its block is whole as long as somebody may look at it.
//
//   hibernator                                its goroutine's M          anybody        handler
//   busy by CAS
//   takes the page                            status = Runnable          touches it: waits in the kernel
//   (barrier in all threads)                                                            busy? looks again
//   parked still, and no M on its stack?
//     yes: block, word = block                started special?           ...            CAS to busy, puts the page,
//     no: puts it back, word = what it was    brings it back, runs       goes on        word = in place
//
// The functions mirror Outgoing, parked_as_it_was(), bring_back(), answer() and stack_image() line by line. The page is
// one cell: 0 while it is not there, else one more than what has been written to it; so is a move of it one step, as
// the kernel's is. The barrier is a fence in each thread.
#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

constexpr std::uint64_t kBusy = 1 << 8;
constexpr std::uint64_t kBlock = 2;
constexpr std::uint64_t kSince = 1 << 4;  // in place, to be left alone

enum class Step {
  Real,
  NoBarrier,       // what others have just written is not known
  NoCheck,         // the page is kept out although its goroutine runs
  NoLookAtMs,      // ... or is on its way out of it
  ChecksFirst,     // the check comes before the page is taken
  WordFirst,       // the word says block before the block is filled
  NoBusy,          // the hibernator does not claim the word
  AnswersBusy,     // the handler does not wait while the word is busy
  EmptiesEarly,    // the handler gives the block away before the word says so
  LinksInBytes,    // ... and links it through bytes that are looked at
  Unacquired,      // neither the handler's look nor its compare-exchange acquires
  RestoreStores,   // bring_back() takes the word without asking
};

class Hibernate : public Stepped<Step> {
 public:
  using Stepped::Stepped;

  void after(bool) override {
    for (int i = 0; i < kThreadsMax; i++) check(!busy_[i], "somebody waits for ever");
    check(!(away_.final() & kBusy), "the word stays busy");
    const std::uint64_t page = page_.final();
    check((page == 0) == (away_.final() == kBlock), "the word does not say where the page is");
    check((page ? page - 1 : block_kept()) == written_, "what was written is lost");
  }

 protected:
  static constexpr int kWaiting = 0, kRunning = 1;

  // --- anybody ---

  /// Writes to the page.
  void touch(int self) {
    busy_[self] = true;
    for (;;) {
      bool there = false;
      page_.change([&](std::uint64_t v) { return (there = v != 0) ? v + 1 : 0; });
      if (there) break;
      fault_.store(1, memory_order_relaxed);
      page_.sleep_while(0, memory_order_acquire);
    }
    written_++;
    busy_[self] = false;
  }

  // --- its goroutine ---

  /// It is readied, and an M runs it.
  void resume(int self) {
    status_.store(kRunning, memory_order_release);
    publish_fence();  // the hibernator's barrier
    if (started_special_.load(memory_order_relaxed)) bring_back();
    touch(self);
    ran_ = true;
  }
  /// It parks: the M is on its stack yet when its status says so.
  void park(int self) {
    status_.store(kWaiting, memory_order_release);
    publish_fence();
    touch(self);  // saves its context
    on_its_way_ = false;
    from_.store(0, memory_order_release);  // M::curg, then M::from, until its next switch
  }

  void bring_back() {
    for (;;) {
      std::uint64_t w = away_.load(memory_order_acquire);
      if (w & kBusy) {
        away_.sleep_while(w, memory_order_relaxed);
        continue;
      }
      if (w != kBlock) return;
      if (step_ == Step::RestoreStores)
        away_.store(kBusy | w, memory_order_relaxed);
      else if (!away_.compare_exchange_weak(w, kBusy | w, memory_order_acquire, memory_order_relaxed))
        continue;
      const std::uint64_t bytes = block_.get();
      put_page(bytes + 1);
      away_.store(0, memory_order_release);
      block_.set(kGone);  // block_release()
      return;
    }
  }

  // --- the hibernator ---

  void hibernate() {
    std::uint64_t w = away_.load(memory_order_acquire);
    if (w & kBusy || w == kBlock) return;
    const bool seen = step_ == Step::ChecksFirst && parked_as_it_was();
    std::uint64_t expected = w;
    if (step_ != Step::NoBusy &&
        !away_.compare_exchange_strong(expected, kBusy | w, memory_order_acquire, memory_order_relaxed))
      return;
    const std::uint64_t staging = page_.exchange(0, memory_order_relaxed);
    check(staging != 0, "a page is taken that is not there");
    if (step_ != Step::NoBarrier) publish_fence();
    if (!(step_ == Step::ChecksFirst ? seen : parked_as_it_was())) {
      put_page(staging);
      away_.store(w, memory_order_release);
      return;
    }
    check(!ran_ && !on_its_way_, "a page is taken from who runs on it");
    if (step_ == Step::WordFirst) away_.store(kBlock, memory_order_release);
    block_.set(staging - 1);
    started_special_.store(1, memory_order_relaxed);
    if (step_ != Step::WordFirst) away_.store(kBlock, memory_order_release);
  }

  bool parked_as_it_was() {
    if (step_ == Step::NoCheck) return true;
    if (status_.load(memory_order_acquire) != kWaiting) return false;
    return step_ == Step::NoLookAtMs || from_.load(memory_order_relaxed) == 0;
  }

  // --- the handler ---

  void handler(int self) {
    for (;;) {
      fault_.sleep_while(0, memory_order_relaxed);
      busy_[self] = true;
      fault_.store(0, memory_order_relaxed);
      answer();
      busy_[self] = false;
    }
  }

  void answer() {
    for (;;) {
      const auto order = step_ == Step::Unacquired ? memory_order_relaxed : memory_order_acquire;
      std::uint64_t w = away_.load(order);
      if ((w & kBusy) && step_ != Step::AnswersBusy) {
        away_.sleep_while(w, memory_order_relaxed);
        continue;
      }
      if (!away_.compare_exchange_weak(w, kBusy | w, order, memory_order_relaxed)) continue;
      if (w == kBlock) {
        const std::uint64_t bytes = block_.get();
        put_page(bytes + 1);
        if (step_ == Step::EmptiesEarly) push_emptied();
        away_.store(kSince, memory_order_release);
        if (step_ != Step::EmptiesEarly) push_emptied();
      } else {
        put_page(1);  // clear_page(): only if there is none
        away_.store(w, memory_order_release);
      }
      return;
    }
  }

  /// Only below what is live; the hibernator frees it, when nobody stands still.
  void push_emptied() {
    if (step_ == Step::LinksInBytes || step_ == Step::EmptiesEarly) block_.set(kGone);
  }

  // --- who looks on, frozen: the hibernator does not work then ---

  void look() {
    const std::uint64_t w = away_.load(memory_order_acquire);
    if ((w & ~kBusy) != kBlock) return;
    check(block_.get() == before_, "who looks on finds other bytes than the goroutine's");
  }

  void running() {
    status_.store(kRunning, memory_order_relaxed);
    from_.store(1, memory_order_relaxed);
    on_its_way_ = true;
  }
  void hibernated() {
    page_.store(0, memory_order_relaxed);
    block_.set(before_);
    away_.store(kBlock, memory_order_relaxed);
    started_special_.store(1, memory_order_relaxed);
  }

 private:
  static constexpr std::uint64_t kGone = 99;

  /// If there is none; who waits goes on.
  void put_page(std::uint64_t bytes) {
    page_.change([&](std::uint64_t v) { return v ? v : bytes; });
  }
  std::uint64_t block_kept() { return block_.get(); }

  const std::uint64_t before_ = 7;
  std::uint64_t written_ = before_;
  Atomic<std::uint64_t> page_{before_ + 1};
  Atomic<std::uint64_t> away_{0};
  Atomic<int> status_{kWaiting}, from_{0}, started_special_{0}, fault_{0};
  Plain<std::uint64_t> block_;
  bool ran_ = false;
  bool on_its_way_ = false;
  bool busy_[kThreadsMax] = {};
};

/// Its goroutine runs meanwhile, or somebody touches it, or both.
template <bool kRuns, bool kTouches>
class Against : public Hibernate {
 public:
  using Hibernate::Hibernate;
  void thread(int self) override {
    if (self == 0) return hibernate();
    if (self == 1) return handler(self);
    if (self == 2 && kRuns) return resume(self);
    touch(self);
  }
};

/// It is about to park.
class Parks : public Hibernate {
 public:
  explicit Parks(Step s) : Hibernate(s) { running(); }
  void thread(int self) override {
    if (self == 0) return hibernate();
    if (self == 1) return handler(self);
    park(self);
  }
};

/// It hibernates already: somebody touches it, its goroutine runs, somebody looks on.
template <bool kRuns>
class Away : public Hibernate {
 public:
  explicit Away(Step s) : Hibernate(s) { hibernated(); }
  void thread(int self) override {
    if (self == 0) return touch(self);
    if (self == 1) return handler(self);
    if (kRuns) return resume(self);
    look();
  }
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      of<Against<true, false>>("hibernate: its goroutine runs", 3),
      of<Against<false, true>>("hibernate: somebody touches it", 3),
      of<Parks>("hibernate: it is about to park", 3),
      of<Away<true>>("hibernated: a touch and a resume", 3),
      of<Away<false>>("hibernated: a touch and a look", 3),
  };
  return all;
}

TEST(HibernateModel, LosesNothing) {
  for (const Case& c : cases()) expect_holds(c);
  expect_holds(of<Against<true, true>>("hibernate: it runs, somebody touches it", 4, Step::Real, 2));
}

TEST(HibernateModel, NeedsEachStep) {
  using Runs = Against<true, false>;
  expect_broken(of<Runs>("hibernate: no barrier", 3, Step::NoBarrier), "who runs on it");
  expect_broken(of<Runs>("hibernate: no check", 3, Step::NoCheck), "who runs on it");
  expect_broken(of<Runs>("hibernate: checks first", 3, Step::ChecksFirst), "who runs on it");
  expect_broken(of<Parks>("hibernate: no look at the Ms", 3, Step::NoLookAtMs), "who runs on it");
  expect_broken(of<Against<false, true>>("hibernate: says block before it is filled", 3, Step::WordFirst));
  expect_broken(of<Against<false, true>>("hibernate: does not claim the word", 3, Step::NoBusy));
  expect_broken(of<Against<false, true>>("hibernate: answers while it is busy", 3, Step::AnswersBusy));
  expect_broken(of<Away<false>>("hibernated: empties the block early", 3, Step::EmptiesEarly));
  expect_broken(of<Away<false>>("hibernated: links it through its bytes", 3, Step::LinksInBytes));
  expect_broken(of<Away<true>>("hibernated: brings back without asking", 3, Step::RestoreStores));
}

// Each looks once before its compare-exchange. What the page's next taker sees of the last one comes with the page,
// from the kernel; what parked_as_it_was() sees, by the barrier.
TEST(HibernateModel, NoticesWeakenedOrders) {
  EXPECT_EQ(survivors(cases(), "model/hibernate_test.cpp", {"hibernate", "parked_as_it_was", "bring_back", "answer"}),
            (std::set<std::string>{
                "answer: cas acquire -> relaxed",
                "answer: load acquire -> relaxed",
                "answer: store release -> relaxed",
                "answer: store release -> relaxed #2",
                "bring_back: cas acquire -> relaxed",
                "bring_back: load acquire -> relaxed",
                "bring_back: store release -> relaxed",
                "hibernate: cas acquire -> relaxed",
                "hibernate: load acquire -> relaxed",
                "hibernate: store release -> relaxed",
                "parked_as_it_was: load acquire -> relaxed",
            }));
}

// ... but one of its two has to acquire.
TEST(HibernateModel, TheBlockIsFilledBeforeTheWordSaysSo) {
  expect_broken(of<Against<false, true>>("hibernate: nobody acquires", 3, Step::Unacquired), "race");
}

}  // namespace
}  // namespace weft::model
