// All executions of a small concurrent program under the C++ memory model, one after another.
//
// Model      Two to four threads over Atomic<T>, Plain<T> and Lock (atomic.hpp), which stand in
//            for the runtime's; real code takes Atomic as a template argument. Threads are contexts
//            of this one; each operation is a scheduling point.
// Memory     Every atomic keeps all values that it had. A thread's view says which is the oldest
//            that it may still read; an acquire that reads from a release joins the views; a
//            seq_cst fence joins with one global view, a seq_cst access with that of its cell. So
//            a load may be stale, which is what store buffers and reordering come to. A Plain that
//            two threads touch without order between them is a race and ends the search.
// Search     Depth first over who goes next and which value a load reads; sleep sets leave out
//            orders that differ only in steps that do not touch each other. With a bound on
//            preemptions instead, big models end in time.
// Left out   A load never takes the value of a store that comes later (load buffering); but see
//            guard_slots(). Stores to a cell take effect in the order in which they are made.
//            compare_exchange_weak does not fail for nothing. One stale value is read at most
//            kStaleReads times in a row: loops end.
// Mutants    Operations know their line and order; explore() can weaken one of them (mutants.hpp).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/internals.hpp"

namespace weft::model {

inline constexpr int kThreadsMax = 4;
inline constexpr int kCellsMax = 40;
inline constexpr int kStaleReads = 2;
inline constexpr int kStepsMax = 2'000;

/// Where an operation stands, and what kind it is: the key of a mutant.
struct Site {
  const char* file;
  const char* function;
  int line;
  const char* what;
  std::memory_order order;

  friend bool operator<(const Site& a, const Site& b) { return a.key() < b.key(); }
  friend bool operator==(const Site& a, const Site& b) {
    return a.line == b.line && a.order == b.order && a.key() == b.key();
  }

 private:
  std::tuple<std::string_view, int, std::string_view, int> key() const {
    return {file, line, what, static_cast<int>(order)};
  }
};

inline const char* order_name(std::memory_order o) {
  switch (o) {
    case std::memory_order_relaxed:
      return "relaxed";
    case std::memory_order_acquire:
      return "acquire";
    case std::memory_order_release:
      return "release";
    case std::memory_order_acq_rel:
      return "acq_rel";
    default:
      return "seq_cst";
  }
}

struct Options {
  int preemptions = -1;  // at most so many; -1: any number, with sleep sets
  std::uint64_t executions_max = 20'000'000;
  const Site* weaken = nullptr;  // this operation gets `to` instead of its order
  std::memory_order to = std::memory_order_relaxed;
};

struct Result {
  bool violated = false;
  bool complete = false;  // the search has ended by itself
  std::string what;       // of the violation
  std::string trace;
  std::uint64_t executions = 0;
  std::uint64_t redundant = 0;  // left halfway: the same as one before
  std::set<Site> sites;
};

/// One program. Made anew for each execution; its constructor runs before the threads.
class Program {
 public:
  static constexpr int kPreemptions = -1;  // as in Options, where a case does not say

  virtual ~Program() = default;
  virtual void thread(int self) = 0;
  /// All threads have ended, or those that are left sleep (then `stuck`). Default: sleep is a
  /// deadlock.
  virtual void after(bool stuck);
};

namespace internal {

struct Abandon {};

struct View {
  std::array<std::uint16_t, kCellsMax> at{};       // the oldest value that may be read
  std::array<std::uint16_t, kThreadsMax> clock{};  // what has happened before

  void join_reads(const View& o) {
    for (int i = 0; i < kCellsMax; i++) at[i] = std::max(at[i], o.at[i]);
  }
  void join(const View& o) {
    join_reads(o);
    for (int i = 0; i < kThreadsMax; i++) clock[i] = std::max(clock[i], o.clock[i]);
  }
};

struct Op {
  const char* what = "";
  int cell = -1;
  bool write = false;
  bool sc = false;
  bool fence = false;
  bool timed = false;                    // may give up: its sleep is no deadlock
  bool (*ready)(const void*) = nullptr;  // null: always
  const void* arg = nullptr;

  bool depends(const Op& o) const {
    if ((fence && (o.fence || o.sc)) || (o.fence && sc)) return true;
    return cell >= 0 && cell == o.cell && (write || o.write);
  }
};

struct Value {
  std::uint64_t bits;
  View view;
};

struct Cell {
  std::vector<Value> values;
  bool pointer = false;
  std::array<std::uint16_t, kThreadsMax> seen{};     // clock of a thread's last load
  std::array<std::uint16_t, kThreadsMax> claimed{};  // ... that a compare-exchange confirmed
};

struct Step {
  int thread;
  const char* what;
  const char* function;
  int line;
  int cell;
  std::uint64_t bits;
  bool stale;
};

}  // namespace internal

class Explorer {
 public:
  static Explorer& now() { return *current_; }

  Explorer(int threads, std::function<std::unique_ptr<Program>()> make, const Options& options)
      : threads_(threads), make_(std::move(make)), options_(options) {}

  Result run() {
    current_ = this;
    open();
    do {
      execute();
      result_.executions++;
    } while (!result_.violated && result_.executions < options_.executions_max && backtrack());
    result_.complete = result_.violated || choices_.empty();
    close();
    current_ = nullptr;
    return std::move(result_);
  }

  // --- of the operations ---

  /// Cells of pointers are slots: a thread that takes what a slot held, by a compare-exchange after
  /// its load, must have loaded it before somebody stores there again. This stands in for loads
  /// that come late, which the search leaves out.
  void guard_slots() { guard_slots_ = true; }

  int add_cell(std::uint64_t bits, bool pointer = false) {
    if (cells_used_ == kCellsMax) std::abort();
    internal::Cell& c = cells_[cells_used_];
    c.pointer = pointer;
    c.seen = c.claimed = {};
    c.values.clear();
    c.values.push_back({bits, {}});
    return cells_used_++;
  }

  /// Before an operation: others may go first.
  void point(const internal::Op& op) {
    if (self_ < 0) return;
    Thread& t = thread_[self_];
    t.op = op;
    if (priming_) {
      leave(main_);
    } else {
      const int next = pick();
      if (next != self_) leave(next < 0 ? main_ : thread_[next].fiber);
    }
    if (abandon_) abandon();
  }

  std::uint64_t load(int cell, std::memory_order o, const Site& site) {
    o = actual(site, o);
    point({site.what, cell, false, o == std::memory_order_seq_cst});
    const std::size_t at = visible(cell, o, {});
    if (guard_slots_ && self_ >= 0) cells_[cell].seen[self_] = clock_of(self_);
    return read(cell, at, o, site);
  }

  void store(int cell, std::uint64_t bits, std::memory_order o, const Site& site) {
    o = actual(site, o);
    point({site.what, cell, true, o == std::memory_order_seq_cst});
    if (guard_slots_ && self_ >= 0 && cells_[cell].pointer)
      for (int i = 0; i < threads_; i++)
        if (i != self_ && cells_[cell].claimed[i] > clock_of(i))
          fail("a slot is used again before who took it must have read it");
    write(cell, bits, o, nullptr);
    note(site, cell, bits, false);
  }

  template <class F>
  std::uint64_t rmw(int cell, F f, std::memory_order o, const Site& site) {
    o = actual(site, o);
    point({site.what, cell, true, o == std::memory_order_seq_cst});
    const std::size_t last = cells_[cell].values.size() - 1;
    const std::uint64_t old = cells_[cell].values[last].bits;
    const internal::View before = cells_[cell].values[last].view;
    receive(cell, last, before, acquires(o));
    write(cell, f(old), o, &before);
    note(site, cell, f(old), false);
    return old;
  }

  bool cas(int cell, std::uint64_t& expected, std::uint64_t desired, std::memory_order o,
           std::memory_order failure, const Site& site, const Site& failure_site) {
    o = actual(site, o);
    failure = actual(failure_site, failure);
    point({site.what, cell, true, o == std::memory_order_seq_cst});
    const std::size_t at = visible(cell, failure, &expected);
    const std::size_t last = cells_[cell].values.size() - 1;
    const std::uint64_t old = cells_[cell].values[at].bits;
    if (at != last || old != expected) {
      expected = read(cell, at, failure, failure_site);
      claim(false);
      return false;
    }
    claim(true);
    const internal::View before = cells_[cell].values[last].view;
    receive(cell, last, before, acquires(o));
    write(cell, desired, o, &before);
    note(site, cell, desired, false);
    return true;
  }

  /// Sleeps until the lock is free and takes it.
  void take(int cell, const Site& site) {
    struct Wanted {
      const Explorer* e;
      int cell;
    } wanted{this, cell};
    internal::Op op{site.what, cell, true};
    op.ready = [](const void* arg) {
      const auto* w = static_cast<const Wanted*>(arg);
      return w->e->newest(w->cell) == 0;
    };
    op.arg = &wanted;
    point(op);
    const std::size_t last = cells_[cell].values.size() - 1;
    const internal::View before = cells_[cell].values[last].view;
    receive(cell, last, before, true);
    write(cell, 1, std::memory_order_relaxed, &before);
    note(site, cell, 1, false);
  }

  void fence(const Site& site) {
    point({site.what, -1, false, true, true});
    if (self_ < 0) return;
    Thread& t = thread_[self_];
    t.view.join(t.unacquired);
    t.view.join_reads(sc_);
    sc_.join_reads(t.view);
    t.released = t.view;
    t.view.clock[self_]++;
    note(site, -1, 0, false);
  }

  /// Sleeps until the newest value satisfies `ready`.
  std::uint64_t await(int cell, bool (*ready)(const void*), const void* arg, bool timed,
                      const Site& site) {
    point({site.what, cell, false, false, false, timed, ready, arg});
    return read(cell, cells_[cell].values.size() - 1, actual(site, site.order), site);
  }

  std::uint64_t newest(int cell) const { return cells_[cell].values.back().bits; }

  /// One of n ways to go on.
  int choose(int n) {
    if (n <= 1) return 0;
    if (depth_ == choices_.size()) choices_.push_back({n, 0});
    if (choices_[depth_].n != n) std::abort();  // the program is not deterministic
    return choices_[depth_++].at;
  }

  /// Gives the execution up: it is no more than one that ended before.
  [[noreturn]] void give_up() {
    gave_up_ = true;
    abandon_ = true;
    abandon();
  }

  void fail(const char* what) {
    if (!result_.violated) {
      result_.violated = true;
      result_.what = what;
      result_.trace = describe();
    }
    abandon_ = true;
    if (self_ >= 0) abandon();
  }

  // --- of plain variables ---

  int self() const { return self_; }
  std::uint16_t clock_of(int t) const { return thread_[self_].view.clock[t]; }

 private:
  struct Fiber {
    arch::Context ctx = nullptr;
    arch::SanStack san;
  };
  struct Thread {
    Fiber fiber;
    std::unique_ptr<char[]> stack;
    internal::Op op;
    internal::View view;
    internal::View unacquired;  // of relaxed loads, for a later fence
    internal::View released;    // by the last fence, for relaxed stores
    std::array<std::uint8_t, kCellsMax> stale{};
    void* way_out[5] = {};
    bool done = false;
  };
  struct Choice {
    int n;
    int at;
  };

  static constexpr std::size_t kStackBytes = 256 << 10;
  /// The sanitizers want to see a stack unwound; clang 14 loses registers in __builtin_longjmp. Elsewhere a jump: half the time.
#ifdef __clang__
  static constexpr bool kLeavesByException = true;
#else
  static constexpr bool kLeavesByException = WEFT_ASAN || WEFT_TSAN;
#endif

  static bool acquires(std::memory_order o) {
    return o == std::memory_order_acquire || o == std::memory_order_acq_rel ||
           o == std::memory_order_seq_cst;
  }
  static bool releases(std::memory_order o) {
    return o == std::memory_order_release || o == std::memory_order_acq_rel ||
           o == std::memory_order_seq_cst;
  }

  std::memory_order actual(const Site& site, std::memory_order o) {
    if (self_ < 0) return o;
    if (options_.weaken) return *options_.weaken == site ? options_.to : o;
    if (site.order == std::memory_order_relaxed) return o;
    // Asked at each operation: remembers by a hash what the set has already.
    const auto key = reinterpret_cast<std::uintptr_t>(site.what) * 31 +
                     reinterpret_cast<std::uintptr_t>(site.file) * 1009 +
                     static_cast<std::uintptr_t>(site.line) * 65537 + static_cast<int>(o) + 1;
    if (seen_[key % seen_.size()] != key) {
      seen_[key % seen_.size()] = key;
      result_.sites.insert(site);
    }
    return o;
  }

  // --- memory ---

  void claim(bool confirmed) {
    if (!guard_slots_ || self_ < 0) return;
    for (int c = 0; c < cells_used_; c++) {
      std::uint16_t& seen = cells_[c].seen[self_];
      if (confirmed && seen != 0) cells_[c].claimed[self_] = seen;
      seen = 0;
    }
  }

  /// Which of the values that it may read a load gets. With `expected`: of a compare-exchange.
  std::size_t visible(int cell, std::memory_order o, const std::uint64_t* expected) {
    const auto& values = cells_[cell].values;
    const std::size_t last = values.size() - 1;
    if (self_ < 0) return last;
    Thread& t = thread_[self_];
    std::size_t first = t.view.at[cell];
    if (o == std::memory_order_seq_cst) first = std::max<std::size_t>(first, sc_.at[cell]);
    if (first == last) return last;
    std::array<std::size_t, 64> can;
    int n = 0;
    for (std::size_t at = last + 1; at-- > first && n < 64;) {
      if (at != last && expected && values[at].bits == *expected) continue;
      if (at != last && at == t.view.at[cell] && t.stale[cell] >= kStaleReads) continue;
      can[n++] = at;
    }
    const std::size_t at = can[choose(n)];
    t.stale[cell] = at != last && at == t.view.at[cell] ? t.stale[cell] + 1 : 0;
    return at;
  }

  void receive(int cell, std::size_t at, const internal::View& from, bool acquire) {
    if (self_ < 0) return;
    Thread& t = thread_[self_];
    t.view.at[cell] = std::max(t.view.at[cell], static_cast<std::uint16_t>(at));
    (acquire ? t.view : t.unacquired).join(from);
  }

  std::uint64_t read(int cell, std::size_t at, std::memory_order o, const Site& site) {
    const internal::Value& v = cells_[cell].values[at];
    receive(cell, at, v.view, acquires(o));
    note(site, cell, v.bits, at + 1 != cells_[cell].values.size());
    if (self_ >= 0) thread_[self_].view.clock[self_]++;
    return v.bits;
  }

  void write(int cell, std::uint64_t bits, std::memory_order o, const internal::View* replaced) {
    auto& values = cells_[cell].values;
    if (self_ < 0) {
      values.back().bits = bits;
      return;
    }
    Thread& t = thread_[self_];
    const auto at = static_cast<std::uint16_t>(values.size());
    t.view.at[cell] = at;
    internal::Value v{bits, releases(o) ? t.view : t.released};
    v.view.at[cell] = at;
    if (replaced) v.view.join(*replaced);
    if (o == std::memory_order_seq_cst) sc_.at[cell] = std::max(sc_.at[cell], at);
    values.push_back(v);
    t.view.clock[self_]++;
  }

  // --- search ---

  int pick() {
    std::array<int, kThreadsMax> can;
    int n = 0;
    bool timed = false;
    int live = 0;
    int asleep = 0;
    for (int k = 0; k < threads_; k++) {
      const int i = (std::max(self_, 0) + k) % threads_;  // who runs comes first
      Thread& t = thread_[i];
      if (t.done) continue;
      live++;
      if (t.op.ready && !t.op.ready(t.op.arg)) {
        timed = timed || t.op.timed;
        continue;
      }
      if (options_.preemptions < 0 && (sleeping_ >> i & 1)) {
        asleep++;
        continue;
      }
      can[n++] = i;
    }
    if (n == 0) {
      stuck_ = live > 0;
      gave_up_ = gave_up_ || asleep > 0 || timed;
      return -1;
    }
    if (++steps_ > kStepsMax) fail("an execution without end");
    int at = 0;
    if (options_.preemptions < 0) {
      at = choose(n);
      std::uint32_t sleeping = sleeping_;
      for (int k = 0; k < at; k++) sleeping |= 1u << can[k];
      const internal::Op& op = thread_[can[at]].op;
      for (int i = 0; i < threads_; i++)
        if ((sleeping >> i & 1) && op.depends(thread_[i].op)) sleeping &= ~(1u << i);
      sleeping_ = sleeping;
    } else {
      const bool could_stay = can[0] == self_;
      if (could_stay && preempted_ >= options_.preemptions) n = 1;
      at = choose(n);
      if (could_stay && at != 0) preempted_++;
    }
    return can[at];
  }

  void execute() {
    depth_ = 0;
    sc_ = {};
    sleeping_ = 0;
    preempted_ = 0;
    steps_ = 0;
    stuck_ = gave_up_ = abandon_ = false;
    cells_used_ = 0;
    guard_slots_ = false;
    trace_.clear();
    self_ = -1;
    program_ = make_();
    priming_ = true;
    for (int i = 0; i < threads_; i++) {
      Thread& t = thread_[i];
      t.view = t.unacquired = t.released = {};
      t.stale = {};
      for (int k = 0; k < threads_; k++) t.view.clock[k] = k == i ? 1 : 0;
      t.done = false;
      resume(i);
    }
    priming_ = false;
    self_ = -1;
    if (!abandon_) {
      const int first = pick();
      if (first >= 0) resume(first);
    }
    self_ = -1;
    if (!abandon_ && !gave_up_) program_->after(stuck_);
    if (gave_up_) result_.redundant++;
    abandon_ = true;
    for (int i = 0; i < threads_; i++)
      if (!thread_[i].done) resume(i);
    self_ = -1;
    program_.reset();
  }

  bool backtrack() {
    choices_.resize(std::min(choices_.size(), depth_));
    while (!choices_.empty() && choices_.back().at + 1 == choices_.back().n) choices_.pop_back();
    if (choices_.empty()) return false;
    choices_.back().at++;
    return true;
  }

  // --- contexts ---

  void open() {
    arch::san_adopt_thread(main_.san);
    for (int i = 0; i < threads_; i++) {
      Thread& t = thread_[i];
      t.stack = std::make_unique<char[]>(kStackBytes);
#if WEFT_TSAN
      t.fiber.san.fiber = arch::san_create_fiber();
#endif
      arch::san_fresh_stack(t.fiber.san, t.stack.get(), kStackBytes);
      const auto top =
          reinterpret_cast<std::uintptr_t>(t.stack.get() + kStackBytes) & ~std::uintptr_t{63};
      t.fiber.ctx =
          arch::make_context(reinterpret_cast<void*>(top),
                             top - reinterpret_cast<std::uintptr_t>(t.stack.get()), entry);
    }
  }

  void close() {
    for (int i = 0; i < threads_; i++) {
#if WEFT_TSAN
      arch::san_destroy_fiber(thread_[i].fiber.san.fiber);
#endif
      thread_[i].stack.reset();
    }
  }

  WEFT_ALWAYS_INLINE void jump(Fiber& from, Fiber& to) {
#if WEFT_TSAN
    __tsan_switch_to_fiber(to.san.fiber, 0);
#else
    arch::san_start_switch(from.san, to.san, false);
#endif
    left_ = &from;
    const arch::Transfer t = arch::switch_context(to.ctx, this);
    left_->ctx = t.from;
    arch::san_finish_switch(from.san);
  }

  void resume(int i) {
    self_ = i;
    jump(main_, thread_[i].fiber);
  }

  WEFT_NOINLINE void leave(Fiber& to) {
    const int me = self_;
    for (int i = 0; i < threads_; i++)
      if (&to == &thread_[i].fiber) self_ = i;
    jump(thread_[me].fiber, to);
    self_ = me;
  }

  static void entry(arch::Transfer t) {
    WEFT_MARK_ENTRY;
    static_cast<Explorer*>(t.data)->live(t.from);
  }

  /// Out of the program's thread. Most executions of a search with sleep sets end so: exceptions would be half of its
  /// time. What the thread has on its stack is not destroyed; a program's own is in the program.
  [[noreturn]] WEFT_NOINLINE void abandon() {
    if constexpr (kLeavesByException) throw internal::Abandon{};
    __builtin_longjmp(thread_[self_].way_out, 1);
  }

  WEFT_NOINLINE void run_thread(int me) {
    if constexpr (kLeavesByException) {
      try {
        program_->thread(me);
      } catch (const internal::Abandon&) {
      }
    } else if (__builtin_setjmp(thread_[me].way_out) == 0) {
      program_->thread(me);
    }
  }

  [[noreturn]] void live(arch::Context from) {
    const int me = self_;
    left_->ctx = from;
    arch::san_finish_switch(thread_[me].fiber.san);
    for (;;) {
      run_thread(me);
      thread_[me].done = true;
      const int next = abandon_ || priming_ ? -1 : pick_or_stop(me);
      leave(next < 0 ? main_ : thread_[next].fiber);
    }
  }

  WEFT_NOINLINE int pick_or_stop(int me) {
    if constexpr (kLeavesByException) {
      try {
        return pick();
      } catch (const internal::Abandon&) {
        return -1;
      }
    }
    return __builtin_setjmp(thread_[me].way_out) == 0 ? pick() : -1;
  }

  // --- trace ---

  void note(const Site& site, int cell, std::uint64_t bits, bool stale) {
    if (self_ >= 0)
      trace_.push_back({self_, site.what, site.function, site.line, cell, bits, stale});
  }

  std::string describe() const {
    std::string s;
    char line[160];
    for (const internal::Step& t : trace_) {
      std::snprintf(line, sizeof line, "  %*sT%d %s:%d %s [%d] %llx%s\n", t.thread * 4, "",
                    t.thread, t.function, t.line, t.what, t.cell,
                    static_cast<unsigned long long>(t.bits), t.stale ? " (stale)" : "");
      s += line;
    }
    return s;
  }

  static inline Explorer* current_ = nullptr;

  int threads_;
  std::function<std::unique_ptr<Program>()> make_;
  Options options_;
  Result result_;
  std::unique_ptr<Program> program_;
  Fiber main_;
  Fiber* left_ = nullptr;
  std::array<Thread, kThreadsMax> thread_;
  std::array<internal::Cell, kCellsMax> cells_;
  int cells_used_ = 0;
  internal::View sc_;
  int self_ = -1;
  bool priming_ = false;
  bool abandon_ = false;
  bool gave_up_ = false;
  bool stuck_ = false;
  bool guard_slots_ = false;
  std::uint32_t sleeping_ = 0;
  int preempted_ = 0;
  int steps_ = 0;
  std::array<std::uintptr_t, 1021> seen_{};
  std::vector<Choice> choices_;
  std::size_t depth_ = 0;
  std::vector<internal::Step> trace_;
};

inline void check(bool holds, const char* claim) {
  if (!holds) Explorer::now().fail(claim);
}

inline int choose(int n) { return Explorer::now().choose(n); }

inline void Program::after(bool stuck) { check(!stuck, "threads sleep for ever"); }

}  // namespace weft::model
