// RwMutex.
//
// Word       readers | writer | queued | spread | reads since the last writer. The fast paths are one read-modify-write
//            each: a reader counts itself, then looks; one that finds a writer or a queue is *transient*: it takes the
//            guard, takes itself out of the count and queues.
// Invariants Under the guard: queued exactly while a queue holds somebody. While a writer writes, whoever is counted is
//            transient. Readers wait only behind a writer that writes or waits. Whoever makes the word "no writer, no
//            reader, queued" lets the next in: the last reader to leave (it sees queued), a transient that was the last
//            to be counted, a writer that leaves, a waiter that has given up.
// Policy     A writer that leaves lets all waiting readers in, else the oldest writer. The last reader lets the oldest
//            writer in.
//
//              last reader                       newcomer reader
//              count 2 -> 1, queued: not last    counted: 1 -> 2, sees queued
//              (returns)                         guard: 2 -> 1 ... -> 0, no writer: lets the writer in
//
// Spread     After kManyReads reads without a writer readers count themselves per CPU, by sections
//            (detail/section_x86_64.hpp): a look whether the counts are there and an addition to this CPU's, as one
//            step, without a locked instruction. Who cannot counts in the word as always, so only the sum says how many
//            read; the word has kOffset on top, since one may come by the one and leave by the other. A spread word is
//            not free to a writer, and not without readers to a reader that leaves. A writer *gathers* first, under the
//            guard:
//
//              reader                                writer, under the guard
//              section: counts there ?               counts gone
//                       count of this CPU + 1        barrier: the section is through, or has not happened
//              not a section: the word               word: readers + all counts - kOffset, not spread
//
//            From then on nobody changes a count, and all is as it was before. A reader that leaves on a CPU whose
//            count is zero leaves by the word; if nobody has come by that, it gathers, so that an unlock too many is
//            found as ever. The barrier is dear: it comes once in kManyReads reads at most.
// Invariants Spread changes under the guard, and never together with writer or queued. The counts are zero while not
//            spread.
// Rejected   Counts per thread: they need a barrier as well, and readers that are half in or half out when it comes.
// Giving up  A timed or cancelled waiter leaves its queue and then lets in whoever it held up.
// Orders     [rw-mutex] acquire by who gets in, release by who leaves; under the guard acq_rel, since it passes on for
//            others. The barrier orders what those who left by a count have read before what the writer writes.
//            So are the counts: release by who makes them, acquire by who finds them.
#include <weft/rw_mutex.hpp>

#include <unistd.h>

#include <new>

#include "arch/section.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/locks.hpp"

namespace weft {

namespace detail {

/// As section_x86_64.hpp says. Lives while a lock is spread.
struct PerCpu {
  struct alignas(64) Line {
    std::atomic<std::int64_t> count{0};
  };

  explicit PerCpu(std::uint32_t n) : cpus(n) {
    for (std::uint32_t i = 0; i < n; i++) new (&lines()[i]) Line;
  }
  /// Null: no memory for it, or no sections.
  static PerCpu* make() {
    if (!has_sections()) return nullptr;
    static const long cpus = ::sysconf(_SC_NPROCESSORS_CONF);
    if (cpus < 1 || cpus > kCpusMax) return nullptr;
    const auto n = static_cast<std::uint32_t>(cpus);
    void* at = ::operator new(sizeof(Line) * (n + 1), std::align_val_t{alignof(Line)}, std::nothrow);
    return at ? new (at) PerCpu(n) : nullptr;
  }
  static void end(PerCpu* p) {
    if (p) ::operator delete(p, std::align_val_t{alignof(Line)});
  }
  std::int64_t sum() {
    std::int64_t n = 0;
    for (std::uint32_t i = 0; i < cpus; i++) n += lines()[i].count.load(std::memory_order_relaxed);
    return n;
  }

  const std::uint32_t cpus;

 private:
  static constexpr long kCpusMax = 1024;
  Line* lines() { return reinterpret_cast<Line*>(this) + 1; }
};

static_assert(offsetof(PerCpu, cpus) == 0 && sizeof(PerCpu) <= sizeof(PerCpu::Line) && sizeof(PerCpu::Line) == 64);

}  // namespace detail

using detail::PerCpu;
using rt::ContextWait, rt::describe_waiters, rt::fatalf, rt::Inside, rt::Limit, rt::lock_in, rt::my_waiter, rt::Outcome, rt::peek;
using rt::plain_node, rt::prepare_wait, rt::queue_in, rt::SpinLock, rt::timed, rt::WaitNode, rt::WaitQueue;
using rt::WaitReason, rt::wait_within, rt::wake_waiter;
using std::memory_order_acq_rel, std::memory_order_acquire, std::memory_order_relaxed, std::memory_order_release;

struct RwMutexImpl {
  static constexpr std::uint64_t kReaders = RwMutex::kReaders, kWriter = RwMutex::kWriter, kQueued = RwMutex::kQueued;
  static constexpr std::uint64_t kSpread = RwMutex::kSpread, kReads = RwMutex::kReads;
  static constexpr std::uint64_t kOffset = std::uint64_t{1} << 31;

  std::atomic<std::uint64_t>& word;
  std::atomic<PerCpu*>& spread;
  SpinLock& guard;
  WaitQueue& writers;
  WaitQueue& readers;
  explicit RwMutexImpl(RwMutex& m)
      : word(m.word_),
        spread(m.spread_),
        guard(lock_in(m.guard_)),
        writers(queue_in(m.writers_)),
        readers(queue_in(m.readers_)) {}

  /// The fast halves, for locks.hpp.
  static bool release_writer(RwMutex& m) {
    std::uint64_t held = kWriter;
    return m.word_.compare_exchange_strong(held, 0, memory_order_release, memory_order_relaxed);  // [rw-mutex]
  }
  /// False: `before` is for unlock_shared().
  static bool release_reader(RwMutex& m, std::uint64_t& before) {
    if (detail::section_count_out(m.spread_)) return true;
    before = m.word_.fetch_sub(1, memory_order_release);  // [rw-mutex]
    return !(before & (kWriter | kQueued | kSpread)) && (before & kReaders);
  }

  /// Those to be woken once the guard is free.
  struct Woken {
    WaitNode* first = nullptr;
    WaitNode** end = &first;
    std::uint32_t count = 0;
    void add(WaitNode* n) {
      n->next = nullptr;
      *end = n;
      end = &n->next;
      count++;
    }
    void wake() {
      for (WaitNode* n = first; n;) {
        WaitNode* next = n->next;
        wake_waiter(n->waiter);
        n = next;
      }
    }
  };

  /// How many read when the word says `w` and the counts together `counted`.
  static std::int64_t readers_in(std::uint64_t w, std::int64_t counted) {
    return static_cast<std::int64_t>(w & kReaders) - static_cast<std::int64_t>(kOffset) + counted;
  }

  // ---- under the guard ----

  /// Readers are counted in the word alone from here on. The caller ends what this returns, without the guard.
  PerCpu* gather() {
    std::uint64_t w = peek(word);
    if (!(w & kSpread)) return nullptr;
    PerCpu* counts = peek(spread);
    spread.store(nullptr, memory_order_relaxed);  // sections see it by the barrier
    SCHED_POINT("rw mutex gather");
    arch::section_barrier();
    const std::int64_t counted = counts->sum();
    // Only a word that is no older than the counts goes with them.
    w = peek(word);
    for (;;) {
      const auto readers = static_cast<std::uint64_t>(readers_in(w, counted)) & kReaders;
      if (word.compare_exchange_strong(w, readers, memory_order_acq_rel, memory_order_relaxed)) break;  // [rw-mutex]
    }
    if (readers_in(w, counted) < 0) fatalf("sync: RUnlock of unlocked RWMutex");
    return counts;
  }

  void take_readers(Woken& woken) {
    while (WaitNode* n = readers.pop_winner(Outcome::Wake)) woken.add(n);
  }

  void update_queued() {
    if (writers.empty() && readers.empty() && (peek(word) & kQueued)) word.fetch_and(~kQueued, memory_order_acq_rel);  // [rw-mutex]
  }

  /// Lets in whoever may enter now.
  void let_in(Woken& woken) {
    const std::uint64_t w = word.load(memory_order_acquire);  // [rw-mutex]
    if (!(w & kWriter)) {
      WaitNode* writer = (w & kReaders) == 0 ? writers.pop_winner(Outcome::Wake) : nullptr;
      if (writer) {
        word.fetch_or(kWriter, memory_order_acq_rel);  // [rw-mutex]
        woken.add(writer);
      } else if (writers.empty()) {
        take_readers(woken);
        word.fetch_add(woken.count, memory_order_acq_rel);  // [rw-mutex]
      }
    }
    update_queued();
  }

  // ---- whole operations ----

  void let_in() {
    Woken woken;
    guard.lock();
    let_in(woken);
    guard.unlock();
    woken.wake();
  }

  /// The node is queued; releases the guard.
  Outcome wait(RwMutex* self, WaitNode* n, WaitReason reason, const Limit& limit) {
    const Outcome o = wait_within(n->waiter, n->ticket, reason, self, &guard, limit);
    if (o != Outcome::Wake) {
      rt::Outside outside(rt::current_m());
      let_in();
    }
    return o;
  }

  bool try_take() {
    std::uint64_t w = peek(word);
    while (!(w & ~kReads))
      if (word.compare_exchange_strong(w, kWriter, memory_order_acquire, memory_order_relaxed)) return true;  // [rw-mutex]
    return false;
  }

  bool try_lock() {
    SCHED_POINT("rw mutex try lock");
    guard.lock();
    PerCpu* const counts = gather();
    const bool took = try_take();
    guard.unlock();
    PerCpu::end(counts);
    return took;
  }

  /// Many have read since the last writer; the caller does, counted in the word.
  void spread_out() {
    SCHED_POINT("rw mutex spread");
    PerCpu* counts = PerCpu::make();
    guard.lock();
    std::uint64_t w = peek(word);
    while (!(w & (kWriter | kQueued))) {
      const bool spreads = counts && !(w & kSpread);
      const std::uint64_t next = (w & ~kReads) + (spreads ? kSpread + kOffset : 0);
      if (!word.compare_exchange_strong(w, next, memory_order_acq_rel, memory_order_relaxed)) continue;  // [rw-mutex]
      if (spreads) spread.store(std::exchange(counts, nullptr), memory_order_release);                   // [rw-mutex]
      break;
    }
    guard.unlock();
    PerCpu::end(counts);
  }

  /// Wake: locked. Else what the limit says.
  Outcome lock(RwMutex* self, Limit limit) {
    SCHED_POINT("rw mutex lock");
    prepare_wait(rt::current_g(), limit, self);
    guard.lock();
    PerCpu* const counts = gather();
    for (;;) {
      if (try_take()) {
        guard.unlock();
        PerCpu::end(counts);
        return Outcome::Wake;
      }
      std::uint64_t w = peek(word);
      if (!(w & ~kReads)) continue;
      if ((w & kQueued) || word.compare_exchange_strong(w, (w & ~kReads) | kQueued, memory_order_relaxed)) break;
    }
    PerCpu::end(counts);  // under the guard: we keep it until we are parked
    WaitNode* n = plain_node(my_waiter(), limit.any());
    writers.push(n, &guard);
    return wait(self, n, WaitReason::RwMutexWrite, limit);
  }

  void unlock() {
    SCHED_POINT("rw mutex unlock");
    rt::Outside outside(rt::current_m());
    Woken woken;
    guard.lock();
    if (!(peek(word) & kWriter)) fatalf("sync: Unlock of unlocked RWMutex");
    take_readers(woken);
    if (woken.count != 0) {
      word.fetch_add(woken.count - kWriter, memory_order_acq_rel);  // [rw-mutex]
    } else if (WaitNode* writer = writers.pop_winner(Outcome::Wake)) {
      word.fetch_or(0, memory_order_acq_rel);  // [rw-mutex] handed over as it is
      woken.add(writer);
    } else {
      word.fetch_and(~kWriter, memory_order_acq_rel);  // [rw-mutex]
    }
    update_queued();
    guard.unlock();
    woken.wake();
  }

  /// The caller is counted.
  Outcome lock_shared(RwMutex* self, Limit limit) {
    SCHED_POINT("rw mutex read lock");
    prepare_wait(rt::current_g(), limit, self);
    rt::Outside outside(rt::current_m());
    guard.lock();
    for (;;) {
      std::uint64_t w = word.load(memory_order_acquire);  // [rw-mutex]
      if (!(w & (kWriter | kQueued))) {
        guard.unlock();
        return Outcome::Wake;
      }
      if (!(w & kWriter) && (w & kReaders) == 1) {
        // The last reader has left while we were counted: it is up to us to let the next in.
        if (WaitNode* writer = writers.pop_winner(Outcome::Wake)) {
          word.fetch_add(kWriter - 1, memory_order_acq_rel);  // [rw-mutex]
          wake_waiter(writer->waiter);  // under the guard, which we keep until we are parked
          break;
        }
        Woken woken;  // all writers have given up
        take_readers(woken);
        word.fetch_add(woken.count, memory_order_acq_rel);  // [rw-mutex]
        update_queued();
        guard.unlock();
        woken.wake();
        return Outcome::Wake;
      }
      if (word.compare_exchange_strong(w, (w - 1) | kQueued, memory_order_acq_rel, memory_order_relaxed)) break;  // [rw-mutex]
    }
    outside.leave();
    WaitNode* n = plain_node(my_waiter(), limit.any());
    readers.push(n, &guard);
    return wait(self, n, WaitReason::RwMutexRead, limit);
  }

  void unlock_shared(std::uint64_t before) {
    SCHED_POINT("rw mutex read unlock");
    if (before & kSpread) {
      if ((before & kReaders) > kOffset) return;
      // Counted elsewhere, or not at all: gather() finds out, this one or a writer's that was faster. Nobody is queued.
      guard.lock();
      PerCpu* const counts = gather();
      guard.unlock();
      PerCpu::end(counts);
      return;
    }
    if (!(before & kReaders) || (before & kWriter)) fatalf("sync: RUnlock of unlocked RWMutex");
    if ((before & kReaders) != 1) return;
    rt::Outside outside(rt::current_m());
    let_in();
  }
};

void RwMutex::lock_slow() {
  Inside inside;
  rt::must_not_be_canceled(RwMutexImpl(*this).lock(this, {}));
}

bool RwMutex::lock_until(std::int64_t deadline) {
  if (deadline <= arch::clock_now()) return false;
  Inside inside;
  return rt::has_happened(RwMutexImpl(*this).lock(this, {.deadline = timed(deadline)}));
}

std::error_code RwMutex::lock(const Context& ctx) {
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  if (try_lock()) return {};
  Inside inside;
  return rt::error_of(RwMutexImpl(*this).lock(this, by.limit()), by);
}

void RwMutex::unlock_slow() {
  Inside inside;
  RwMutexImpl(*this).unlock();
}

bool RwMutex::try_lock_slow() {
  Inside inside;
  return RwMutexImpl(*this).try_lock();
}

void RwMutex::lock_shared_slow(std::uint64_t before) {
  Inside inside;
  if (!(before & (kWriter | kQueued))) {
    RwMutexImpl(*this).spread_out();
    return;
  }
  rt::must_not_be_canceled(RwMutexImpl(*this).lock_shared(this, {}));
}

bool RwMutex::lock_shared_until(std::int64_t deadline) {
  if (deadline <= arch::clock_now()) return false;
  Inside inside;
  if (!(word_.fetch_add(1, memory_order_acquire) & (kWriter | kQueued))) return true;  // [rw-mutex]
  return rt::has_happened(RwMutexImpl(*this).lock_shared(this, {.deadline = timed(deadline)}));
}

std::error_code RwMutex::lock_shared(const Context& ctx) {
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  if (!(word_.fetch_add(1, memory_order_acquire) & (kWriter | kQueued))) return {};  // [rw-mutex]
  Inside inside;
  return rt::error_of(RwMutexImpl(*this).lock_shared(this, by.limit()), by);
}

void RwMutex::unlock_shared_slow(std::uint64_t before) {
  Inside inside;
  RwMutexImpl(*this).unlock_shared(before);
}

// Whoever has read here has told the caller so: nothing is under way, and no barrier needed.
void RwMutex::end_use() {
  char who[256];
  RwMutexImpl m(*this);
  m.guard.lock();
  if (const std::uint64_t w = peek(word_); w & kSpread) {
    PerCpu* const counts = peek(spread_);
    if (m.readers_in(w, counts->sum()) == 0) {
      PerCpu::end(counts);
      return;
    }
  }
  describe_waiters(m.writers.empty() ? m.readers : m.writers, who, sizeof who);
  fatalf("weft: RwMutex destroyed while %s%s", who[0] ? "waited for by " : "locked", who);
}

namespace rt {

void unlock_inside(weft::RwMutex& mu) {
  if (!RwMutexImpl::release_writer(mu)) RwMutexImpl(mu).unlock();
}

void unlock_shared_inside(weft::RwMutex& mu) {
  std::uint64_t before = 0;
  if (!RwMutexImpl::release_reader(mu, before)) RwMutexImpl(mu).unlock_shared(before);
}

}  // namespace rt
}  // namespace weft
