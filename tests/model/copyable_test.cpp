// Goroutines that share a stack (core/run_slot.cpp, sched/copyable.cpp): one at a time runs there, with its own bytes;
// and who looks on while everybody stands still, at whatever instruction (gc/stacks.cpp), finds the bytes of each that
// is parked.
//
//   M2, has claimed the slot for B               looks on, frozen
//   (A lies there)                               A is the resident: in place
//   copies A's bytes to a block
//   nobody is resident                           A has no block: in place
//   A has that block                             A: in the block
//   copies B's bytes in                          B has its block still
//   B has none                                   B: in place
//   B is the resident                            B: in place
//
// The functions mirror enter_run_slot(), leave_run_slot(), claim_slot(), bring_in(), copy_out(), copy_in(),
// release_slot(), copied_by() and runs_on() line by line. G::m and G::block are one word, as they are in the runtime. A
// look is one step: the world stands; before each store there is room for it.
#include <utility>

#include "tests/model/mutants.hpp"

namespace weft::model {
namespace {

using std::memory_order_relaxed;

/// Of whoever holds the slot, and of one who looks on.
class Held {
 public:
  explicit Held(Atomic<int>& here) : here_(here) {}
  void start(int v) { value_ = v; }
  int get() {
    order_.get();
    return value_;
  }
  void set(int v) {
    (void)here_.load(memory_order_relaxed);  // somebody may look first
    order_.set(0);
    value_ = v;
  }
  int seen() const { return value_; }

 private:
  Atomic<int>& here_;
  Plain<int> order_;
  int value_ = 0;
};

enum class Step {
  Real,
  BlockFirst,      // the block is in the descriptor before the slot has no resident
  KeepsM,          // the M stays in the descriptor of who lies there
  ReleasesFirst,   // ... until after the release
  LetsGoEarly,     // the slot is let go before the commit
  ForgetsBlock,    // the block is forgotten before its bytes are in place
  FreesBlock,      // ... given back
  ResidentFirst,   // it is the resident before its bytes are in place
  CopiesLate,      // who lay there has the block before its bytes are in it
  ClaimsUnlocked,  // looks whether the slot is busy without its lock
  DropsWaiter,     // who finds the slot busy is queued nowhere
};

constexpr int kNoBlock = 0;
constexpr int kFirstBlock = 10;  // below: an M

struct G {
  explicit G(Atomic<int>& here) : word(here) {}
  Held word;        // m, or block
  int version = 0;  // what its bytes should be
  Plain<int> ctx;
  bool parked = true;
  int left = 2;      // so many times more
  G* link = nullptr;
};

class Copyable : public Stepped<Step> {
 public:
  static constexpr int kPreemptions = 3;

  explicit Copyable(Step s) : Stepped(s) {
    for (int i = 0; i < 2; i++) {
      g_[i].version = 100 * (i + 1);
      ready_[i] = &g_[i];
    }
    // The first lies in the slot, the other in a block.
    resident_.start(1);
    for (Held& h : stack_) h.start(g_[0].version);
    for (Held& h : block_[0]) h.start(g_[1].version);
    used_[0] = true;
    g_[1].word.start(kFirstBlock);
  }

  void thread(int self) override {
    if (self == 2) return look();
    while (G* gp = next()) execute(self, gp);
  }

  void after(bool stuck) override {
    Program::after(stuck);
    for (const G& g : g_) check(g.left == 0, "a goroutine is left");
  }

 private:
  static constexpr int kBlocks = 3;
  using Bytes = Held[2];

  static void fill(Bytes& b, int v) {
    for (Held& h : b) h.set(v);
  }
  static void copy(Bytes& to, Bytes& from) {
    for (int i = 0; i < 2; i++) to[i].set(from[i].get());
  }

  // --- the scheduler ---

  G* next() {
    mu_.lock();
    G* gp = n_ready_ ? ready_[--n_ready_] : nullptr;
    mu_.unlock();
    return gp;
  }
  void queue(G* gp) {
    mu_.lock();
    ready_[n_ready_++] = gp;
    mu_.unlock();
  }

  void execute(int m, G* gp) {
    if (!claim_slot(gp)) return;
    bring_in(gp);
    gp->word.set(m + 1);  // now_running()
    gp->parked = false;
    check(gp->ctx.get() >= 0 && stack_[0].get() == gp->version && stack_[1].get() == gp->version,
          "a goroutine runs on bytes that are not its own");
    gp->version++;
    fill(stack_, gp->version);
    gp->ctx.set(1);
    gp->parked = true;  // its context is saved
    if (step_ == Step::LetsGoEarly) leave_run_slot();
    if (--gp->left > 0) {
      queue(gp);  // the commit: it may go on
    } else {
      resident_.set(0);  // end_in_run_slot()
      gp->word.set(kNoBlock);
    }
    if (step_ != Step::LetsGoEarly) leave_run_slot();
  }

  // --- the slot ---

  bool claim_slot(G* gp) {
    if (step_ == Step::ClaimsUnlocked) {
      const bool was_free = !busy_.seen();
      (void)here_.load(memory_order_relaxed);
      busy_.set(1);
      if (was_free) return true;
    }
    lock_.lock();
    const bool was_free = !busy_.get();
    if (was_free) {
      busy_.set(1);
    } else if (step_ != Step::DropsWaiter) {
      gp->link = nullptr;
      (waiting_ ? waiting_->link : waiting_) = gp;  // two at most
    }
    lock_.unlock();
    return was_free;
  }

  void bring_in(G* gp) {
    const int resident = resident_.get();
    if (resident && &g_[resident - 1] == gp) return;
    if (resident) copy_out(&g_[resident - 1]);
    if (step_ == Step::ResidentFirst) resident_.set(number(gp));
    if (gp->word.get()) copy_in(gp);
    if (step_ != Step::ResidentFirst) resident_.set(number(gp));
  }

  void copy_out(G* gp) {
    if (!spare_ || choose(2)) {  // of another size
      drop_block();
      for (int i = 0; i < kBlocks && !spare_; i++)
        if (!used_[i]) used_[i] = true, spare_ = kFirstBlock + i;
      check(spare_, "a block is lost");
    }
    if (step_ == Step::CopiesLate) resident_.set(0), gp->word.set(spare_);
    copy(block_[spare_ - kFirstBlock], stack_);
    const int block = std::exchange(spare_, 0);
    if (step_ == Step::CopiesLate) return;
    if (step_ == Step::BlockFirst) gp->word.set(block);
    resident_.set(0);
    if (step_ != Step::BlockFirst) gp->word.set(block);
  }

  void copy_in(G* gp) {
    const int block = gp->word.get();
    if (step_ == Step::ForgetsBlock) gp->word.set(kNoBlock);
    if (step_ == Step::FreesBlock) used_[block - kFirstBlock] = false, block_[block - kFirstBlock][1].set(-1);
    copy(stack_, block_[block - kFirstBlock]);
    drop_block();
    spare_ = block;
    if (step_ != Step::ForgetsBlock) gp->word.set(kNoBlock);
  }

  /// Somebody else has it at once.
  void drop_block() {
    if (!spare_) return;
    fill(block_[spare_ - kFirstBlock], -1);
    used_[spare_ - kFirstBlock] = false;
    spare_ = 0;
  }

  void leave_run_slot() {
    const int resident = resident_.get();
    const bool forgets = resident && step_ != Step::KeepsM;
    if (forgets && step_ != Step::ReleasesFirst) g_[resident - 1].word.set(kNoBlock);
    lock_.lock();
    busy_.set(0);
    G* next = waiting_;
    if (next) waiting_ = next->link;
    lock_.unlock();
    if (forgets && step_ == Step::ReleasesFirst) g_[resident - 1].word.set(kNoBlock);
    if (next) queue(next);
  }

  int number(const G* gp) const { return static_cast<int>(gp - g_) + 1; }

  // --- who looks on ---

  void look() {
    (void)here_.load(memory_order_relaxed);
    for (int i = 0; i < 2; i++) {
      const bool lies = resident_.seen() == i + 1;
      const int word = g_[i].word.seen();
      const int m = lies && busy_.seen() ? word : 0;  // runs_on()
      check(m < kFirstBlock, "a block is taken for an M");
      if (m || !g_[i].parked || g_[i].left == 0) continue;
      check(lies || word == 0 || word >= kFirstBlock, "an M is taken for a block");
      const Bytes& bytes = lies || !word ? stack_ : block_[word - kFirstBlock];  // copied_by()
      check(bytes[0].seen() == g_[i].version && bytes[1].seen() == g_[i].version,
            "who looks on finds other bytes than the goroutine's");
    }
  }

  Atomic<int> here_{0};
  Lock mu_, lock_;
  G g_[2] = {G(here_), G(here_)};
  G* ready_[2] = {};
  int n_ready_ = 2;
  Held resident_{here_};
  Held busy_{here_};
  G* waiting_ = nullptr;  // under lock_
  int spare_ = 0;
  Bytes stack_ = {Held(here_), Held(here_)};
  Bytes block_[kBlocks] = {{Held(here_), Held(here_)}, {Held(here_), Held(here_)}, {Held(here_), Held(here_)}};
  bool used_[kBlocks] = {};
};

TEST(CopyableModel, EachRunsOnItsOwnBytesAndTheyAreFound) {
  expect_holds(of<Copyable>("copyable: two on one slot", 3));
}

TEST(CopyableModel, NeedsEachStep) {
  expect_broken(of<Copyable>("copyable: block first", 3, Step::BlockFirst), "taken for an M");
  expect_broken(of<Copyable>("copyable: the M stays", 3, Step::KeepsM));
  expect_broken(of<Copyable>("copyable: releases, then forgets the M", 3, Step::ReleasesFirst));
  expect_broken(of<Copyable>("copyable: lets go before the commit", 3, Step::LetsGoEarly));
  expect_broken(of<Copyable>("copyable: forgets the block before the copy", 3, Step::ForgetsBlock), "other bytes");
  expect_broken(of<Copyable>("copyable: frees the block before the copy", 3, Step::FreesBlock));
  expect_broken(of<Copyable>("copyable: resident before the copy", 3, Step::ResidentFirst));
  expect_broken(of<Copyable>("copyable: has a block before the copy", 3, Step::CopiesLate), "other bytes");
  expect_broken(of<Copyable>("copyable: claims without the lock", 3, Step::ClaimsUnlocked));
  expect_broken(of<Copyable>("copyable: drops who waits", 3, Step::DropsWaiter), "left");
}

}  // namespace
}  // namespace weft::model
