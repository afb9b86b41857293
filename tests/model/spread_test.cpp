// RwMutex (block/rw_mutex.cpp) whose readers count themselves per CPU: a writer never writes beside a reader, and is let in.
//
// The functions mirror lock_shared(), unlock_shared(), lock(), spread_out(), gather() and what let_in() does for one writer; the
// reads that it takes until readers spread are none. Threads are readers but for the last, which writes.
#include "tests/model/mutants.hpp"
#include "tests/model/sections.hpp"

namespace weft::model {
namespace {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

enum class Step {
  Real,
  GathersUnfenced,   // the writer undoes no section
  GathersEarly,      // ... and adds the counts up before that
  GathersInPlace,    // ... and leaves the counts there for sections to find
  JudgesStale,       // ... and sees in a word of before whether somebody has left too often
  ForgetsCounts,     // ... and does not add them to the word
  NeverGathers,      // a writer takes a spread word for one without readers
  SpreadsQuietly,    // who spreads does not say so in the word
  SpreadsUnguarded,  // ... looks at the word, then says so
};

class SpreadModel : public Program {
 public:
  struct Setup {
    int threads = 3;
    bool migrates = false;  // readers may leave on the other CPU
    bool interrupted = false;
    int reads = 1;
  };

  SpreadModel(Step step, Setup setup) : step_(step), setup_(setup), sections_(setup.interrupted) {}

  void thread(int self) override {
    if (self == setup_.threads - 1) {
      lock();
      data_.set(1);
      unlock();
      return;
    }
    for (int i = 0; i < setup_.reads + (self == 0); i++) {
      lock_shared(self);
      (void)data_.get();
      if (self == 0 && i == 0) spread_out();
      unlock_shared(self);
    }
  }

  void after(bool stuck) override {
    check(!stuck, "somebody is not let in");
    const std::uint64_t w = word_.final();
    const std::uint64_t n = counts_.final();
    const auto counted = static_cast<std::int64_t>((n & 0xffffffff) + (n >> 32));
    if (w & kSpread)
      check(static_cast<std::int64_t>(w & kReaders) - kOffset + counted == 0, "readers are left");
    else
      check(w == 0 && counted == 0, "readers are left");
  }

 private:
  static constexpr std::uint64_t kReaders = 0xffff;
  static constexpr std::uint64_t kWriter = 1 << 16;
  static constexpr std::uint64_t kQueued = 1 << 17;
  static constexpr std::uint64_t kSpread = 1 << 18;
  static constexpr std::int64_t kOffset = 1 << 15;

  void lock_shared(int self) {
    if (sections_.count(self, there_, counts_, self, true)) return;
    if (!(word_.fetch_add(1, memory_order_acquire) & (kWriter | kQueued))) return;
    guard_.lock();
    for (;;) {
      std::uint64_t w = word_.load(memory_order_acquire);
      if (!(w & (kWriter | kQueued))) {
        guard_.unlock();
        return;
      }
      if (!(w & kWriter) && (w & kReaders) == 1) {
        word_.fetch_add(kWriter - 1, memory_order_acq_rel);
        writer_note_.store(1, memory_order_release);
        break;
      }
      if (word_.compare_exchange_strong(w, (w - 1) | kQueued, memory_order_acq_rel, memory_order_relaxed)) break;
    }
    waiting_++;
    guard_.unlock();
    reader_note_[self].sleep_while(0, memory_order_acquire);
    reader_note_[self].store(0, memory_order_relaxed);
  }

  void unlock_shared(int self) {
    const int cpu = setup_.migrates ? choose(2) : self;
    if (sections_.count(self, there_, counts_, cpu, false)) return;
    const std::uint64_t before = word_.fetch_sub(1, memory_order_release);
    if (before & kSpread) {
      if (static_cast<std::int64_t>(before & kReaders) > kOffset) return;
      guard_.lock();
      gather();
      guard_.unlock();
      return;
    }
    if (!(before & kQueued) || (before & kReaders) != 1) return;
    guard_.lock();
    const std::uint64_t w = word_.load(memory_order_acquire);
    if (!(w & (kWriter | kReaders)) && (w & kQueued) && writer_waits_) {
      writer_waits_ = false;
      word_.fetch_or(kWriter, memory_order_acq_rel);
      writer_note_.store(1, memory_order_release);
    }
    guard_.unlock();
  }

  void spread_out() {
    if (step_ != Step::SpreadsUnguarded) guard_.lock();
    std::uint64_t w = peek(word_);
    while (!(w & (kWriter | kQueued | kSpread))) {
      if (step_ == Step::SpreadsQuietly ||
          word_.compare_exchange_strong(w, w + kSpread + kOffset, memory_order_acq_rel, memory_order_relaxed)) {
        there_.store(1, memory_order_release);
        break;
      }
    }
    if (step_ != Step::SpreadsUnguarded) guard_.unlock();
  }

  void gather() {
    std::uint64_t w = peek(word_);
    if (!(w & kSpread) || step_ == Step::NeverGathers) return;
    std::uint64_t n = step_ == Step::GathersEarly ? peek(counts_) : 0;
    if (step_ != Step::GathersInPlace) there_.store(0, memory_order_relaxed);
    if (step_ != Step::GathersUnfenced) sections_.barrier(counts_);
    if (step_ != Step::GathersEarly) n = peek(counts_);
    counts_.store(0, memory_order_relaxed);
    const auto counted = step_ == Step::ForgetsCounts ? 0 : static_cast<std::int64_t>((n & 0xffffffff) + (n >> 32));
    auto readers = [&] { return static_cast<std::int64_t>(w & kReaders) - kOffset + counted; };
    if (step_ != Step::JudgesStale) w = peek(word_);
    if (step_ == Step::JudgesStale) check(readers() >= 0, "RUnlock of unlocked RWMutex");
    while (!word_.compare_exchange_strong(w, static_cast<std::uint64_t>(readers()) & kReaders, memory_order_acq_rel,
                                          memory_order_relaxed)) {
    }
    check(readers() >= 0, "RUnlock of unlocked RWMutex");
  }

  void lock() {
    guard_.lock();
    gather();
    for (;;) {
      std::uint64_t w = peek(word_);
      const bool free = w == 0 || (step_ == Step::NeverGathers && w == (kSpread | kOffset));
      if (free) {
        if (!word_.compare_exchange_strong(w, kWriter, memory_order_acquire, memory_order_relaxed)) continue;
        guard_.unlock();
        return;
      }
      if (word_.compare_exchange_strong(w, w | kQueued, memory_order_relaxed, memory_order_relaxed)) break;
    }
    writer_waits_ = true;
    guard_.unlock();
    writer_note_.sleep_while(0, memory_order_acquire);
  }

  void unlock() {
    guard_.lock();
    writer_waits_ = false;
    word_.fetch_add(static_cast<std::uint64_t>(waiting_) - kWriter, memory_order_acq_rel);
    word_.fetch_and(~kQueued, memory_order_acq_rel);
    const bool wakes = waiting_ != 0;
    waiting_ = 0;
    guard_.unlock();
    if (!wakes) return;
    for (int i = 0; i < setup_.threads - 1; i++) reader_note_[i].exchange(1, memory_order_release);
  }

  Step step_;
  Setup setup_;
  Sections sections_;
  Atomic<std::uint64_t> word_{0};
  Atomic<int> there_{0};
  Atomic<std::uint64_t> counts_{0};
  Lock guard_;
  Atomic<std::uint32_t> writer_note_{0};
  Atomic<std::uint32_t> reader_note_[2];
  bool writer_waits_ = false;  // under the guard
  int waiting_ = 0;            // readers, under the guard
  Plain<int> data_;
};

Case spread(const char* name, SpreadModel::Setup setup, Step step = Step::Real, int preemptions = -1) {
  return {name, setup.threads, [=] { return std::make_unique<SpreadModel>(step, setup); }, preemptions};
}

TEST(SpreadModel, WritersAreAloneAndGetIn) {
  expect_holds(spread("spread: a reader and a writer", {.threads = 2, .migrates = true, .interrupted = true}));
  expect_holds(spread("spread: two readers and a writer", {}, Step::Real, 3));
  expect_holds(spread("spread: two readers that migrate, and a writer", {.migrates = true}, Step::Real, 2));
}

TEST(SpreadModel, NeedsEachStep) {
  const SpreadModel::Setup two{.threads = 2};
  expect_broken(spread("spread: gathers, undoes no section", two, Step::GathersUnfenced));
  expect_broken(spread("spread: adds up early", two, Step::GathersEarly));
  expect_broken(spread("spread: leaves the counts", two, Step::GathersInPlace));
  expect_broken(spread("spread: forgets the counts", two, Step::ForgetsCounts));
  expect_broken(spread("spread: judges by a stale word", {.migrates = true}, Step::JudgesStale, 2), "RUnlock");
  expect_broken(spread("spread: never gathers", two, Step::NeverGathers));
  expect_broken(spread("spread: spreads quietly", two, Step::SpreadsQuietly));
  expect_broken(spread("spread: spreads without the guard", two, Step::SpreadsUnguarded));
}

// Each change of the word passes on what the one before has brought, the barrier what sections have.
TEST(SpreadModel, NoticesWeakenedOrders) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's build looks at a part of the executions only";
  EXPECT_EQ(survivors({spread("spread: a reader and a writer", {.threads = 2, .migrates = true}),
                       spread("spread: two readers and a writer", {}, Step::Real, 2)},
                      "model/spread_test.cpp", {"spread_out", "gather", "lock", "unlock_shared"}),
            (std::set<std::string>{
                "gather: cas acq_rel -> acquire",
                "gather: cas acq_rel -> release",
                "spread_out: cas acq_rel -> acquire",
                "spread_out: cas acq_rel -> release",
                "unlock_shared: load acquire -> relaxed",
                "unlock_shared: or acq_rel -> acquire",
                "unlock_shared: or acq_rel -> release",
            }));
}

}  // namespace
}  // namespace weft::model
