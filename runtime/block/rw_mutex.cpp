// RwMutex.
//
// Word       readers | writer | queued. The fast paths are one read-modify-write each: a reader counts itself, then looks; one
//            that finds a writer or a queue is *transient*: it takes the guard, takes itself out of the count and queues.
// Invariants Under the guard: queued exactly while a queue holds somebody. While a writer writes, whoever is counted is
//            transient. Readers wait only behind a writer that writes or waits.
//            Whoever makes the word "no writer, no reader, queued" lets the next in: the last reader to leave (it sees queued),
//            a transient that was the last to be counted, a writer that leaves, a waiter that has given up.
// Policy     A writer that leaves lets all waiting readers in, else the oldest writer. The last reader lets the oldest writer in.
//
//              last reader                       newcomer reader
//              count 2 -> 1, queued: not last    counted: 1 -> 2, sees queued
//              (returns)                         guard: 2 -> 1 ... -> 0, no writer: lets the writer in
//
// Giving up  A timed or cancelled waiter leaves its queue and then lets in whoever it held up.
// Orders     [rw-mutex] acquire by who gets in, release by who leaves; under the guard acq_rel, since it passes on for others.
#include <weft/rw_mutex.hpp>

#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/locks.hpp"

namespace weft {

using rt::ContextWait, rt::describe_waiters, rt::fatalf, rt::Inside, rt::Limit, rt::lock_in, rt::my_waiter, rt::Outcome, rt::peek;
using rt::plain_node, rt::prepare_wait, rt::queue_in, rt::SpinLock, rt::timed, rt::WaitNode, rt::WaitQueue;
using rt::WaitReason, rt::wait_within, rt::wake_waiter;
using std::memory_order_acq_rel, std::memory_order_acquire, std::memory_order_relaxed, std::memory_order_release;

struct RwMutexImpl {
  static constexpr std::uint32_t kReaders = RwMutex::kReaders, kWriter = RwMutex::kWriter, kQueued = RwMutex::kQueued;

  std::atomic<std::uint32_t>& word;
  SpinLock& guard;
  WaitQueue& writers;
  WaitQueue& readers;
  explicit RwMutexImpl(RwMutex& m)
      : word(m.word_), guard(lock_in(m.guard_)), writers(queue_in(m.writers_)), readers(queue_in(m.readers_)) {}

  /// The fast halves, for locks.hpp.
  static bool release_writer(RwMutex& m) {
    std::uint32_t held = kWriter;
    return m.word_.compare_exchange_strong(held, 0, memory_order_release, memory_order_relaxed);  // [rw-mutex]
  }
  static std::uint32_t release_reader(RwMutex& m) { return m.word_.fetch_sub(1, memory_order_release); }  // [rw-mutex]

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

  // ---- under the guard ----

  void take_readers(Woken& woken) {
    while (WaitNode* n = readers.pop_winner(Outcome::Wake)) woken.add(n);
  }

  void update_queued() {
    if (writers.empty() && readers.empty() && (peek(word) & kQueued)) word.fetch_and(~kQueued, memory_order_acq_rel);  // [rw-mutex]
  }

  /// Lets in whoever may enter now.
  void let_in(Woken& woken) {
    const std::uint32_t w = word.load(memory_order_acquire);  // [rw-mutex]
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

  /// Wake: locked. Else what the limit says.
  Outcome lock(RwMutex* self, Limit limit) {
    SCHED_POINT("rw mutex lock");
    prepare_wait(rt::current_g(), limit, self);
    guard.lock();
    for (;;) {
      std::uint32_t w = peek(word);
      if (w == 0) {
        if (!word.compare_exchange_strong(w, kWriter, memory_order_acquire, memory_order_relaxed)) continue;  // [rw-mutex]
        guard.unlock();
        return Outcome::Wake;
      }
      if ((w & kQueued) || word.compare_exchange_strong(w, w | kQueued, memory_order_relaxed)) break;
    }
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
      std::uint32_t w = word.load(memory_order_acquire);  // [rw-mutex]
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

  void unlock_shared(std::uint32_t before) {
    SCHED_POINT("rw mutex read unlock");
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

void RwMutex::lock_shared_slow() {
  Inside inside;
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

void RwMutex::unlock_shared_slow(std::uint32_t before) {
  Inside inside;
  RwMutexImpl(*this).unlock_shared(before);
}

void RwMutex::destroyed_in_use() {
  char who[256];
  RwMutexImpl m(*this);
  m.guard.lock();
  describe_waiters(m.writers.empty() ? m.readers : m.writers, who, sizeof who);
  fatalf("weft: RwMutex destroyed while %s%s", who[0] ? "waited for by " : "locked", who);
}

namespace rt {

void unlock_inside(weft::RwMutex& mu) {
  if (!RwMutexImpl::release_writer(mu)) RwMutexImpl(mu).unlock();
}

void unlock_shared_inside(weft::RwMutex& mu) {
  const std::uint32_t before = RwMutexImpl::release_reader(mu);
  if ((before & (RwMutexImpl::kWriter | RwMutexImpl::kQueued)) || !(before & RwMutexImpl::kReaders))
    RwMutexImpl(mu).unlock_shared(before);
}

}  // namespace rt
}  // namespace weft
