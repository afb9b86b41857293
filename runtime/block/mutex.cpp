// Mutex.
//
// Word       locked | queued (there may be waiters) | woken (a waiter or spinner is on its way) | starving | shared,
//            rounds.
// Protocol   lock: one CAS. Contended: a few spins while others run, then into the queue and park. unlock: a store, or
//            in the shared mode one CAS. With waiters: ready the oldest; in normal mode the lock is free meanwhile and
//            a newcomer may barge in, in starving mode it is handed over locked and newcomers queue.
// Shared     A mutex for which nobody waits is unlocked by a section (detail/section_x86_64.hpp): a look whether the
//            word is `locked` and nothing else, and a plain store of 0. Whoever wants to set more than that in a locked
//            word would be overwritten. So it first makes the word `shared`, under the guard, and has a barrier undo
//            the sections that are under way; sections find another word from then on, and unlocks are CASes:
//
//              unlock                                waiter, under the guard
//              section: word == locked ?             word: locked -> locked | shared
//                       word = 0                     barrier: the section is through, or has not happened
//              not a section: CAS                    word shared still? queues: every unlock from here on sees it
//                                                    else it was unlocked: tries again
//
//            The barrier is dear (a microsecond to thirty), so the mode stays: each unlock for which nobody waits takes
//            one round off, and the last of kRounds ends it.
// Invariants Under the guard: a word that is shared has had its barrier, until an unlock makes it 0. Queued, woken and
//            starving only in a shared word, or where there are no sections.
// Starving   A waiter that comes back after more than 1 ms and finds the lock taken switches the mode on; the one that
//            is handed the lock switches it off if it is the last, or has waited for less.
// Lifetime   The CAS or store that unlocks is unlock()'s last touch. With waiters, they keep the object alive.
// Measured   Uncontended lock and unlock, to two CASes: 0.5. A look at waiters after the store instead of a section
//            would be as fast, but a touch of an object that its next holder may have freed.
// Orders     [mutex] acquire by who locks, release by who unlocks.
#include <weft/mutex.hpp>

#include "arch/section.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/locks.hpp"
#include "runtime/sched/sched.hpp"

namespace weft {

// Not all of rt: it has a Mutex of its own.
using rt::G, rt::kNever, rt::Limit, rt::M, rt::P, rt::Outcome, rt::SpinLock, rt::Waiter, rt::WaitNode, rt::WaitQueue, rt::WaitReason;
using rt::current_m, rt::describe_waiters, rt::fatalf, rt::lock_in, rt::prepare_wait, rt::my_waiter, rt::peek, rt::plain_node;
using rt::queue_in, rt::timed, rt::wait_within, rt::wake_before_park, rt::wake_waiter;
using std::memory_order_acquire, std::memory_order_relaxed, std::memory_order_release;


struct MutexImpl {
  static constexpr std::int64_t kStarvingAfter = 1'000'000;
  static constexpr std::uint32_t kLocked = Mutex::kLocked, kQueued = Mutex::kQueued, kIdle = Mutex::kIdle;
  static constexpr std::uint32_t kShared = Mutex::kShared, kRound = Mutex::kRound;
  static constexpr std::uint32_t kRounds = 16'384;
  // Each spin is twice as long as the one before: a holder that comes back soon has the word's line to itself meanwhile. All
  // of them together are about what a park and a wake-up through the kernel take.
  static constexpr int kSpins = 5;
  static constexpr int kFirstSpin = 30;  // pauses

  std::atomic<std::uint32_t>& word;
  SpinLock& guard;
  WaitQueue& queue;
  explicit MutexImpl(Mutex& m) : word(m.word_), guard(lock_in(m.guard_)), queue(queue_in(m.waiters_)) {}

  /// The fast half of an unlock, for locks.hpp.
  static bool release(Mutex& m) { return m.unlock_fast(); }

  /// Spinning pays only while somebody else runs and we keep nobody waiting.
  static bool may_spin() {
    M* mp = current_m();
    if (!mp) return true;
    P* pp = mp->p;
    return pp && !pp->solo && pp->ring.empty() && pp->fresh.empty() && !peek(pp->runnext);
  }

  static std::uint32_t queued(std::uint32_t w, std::uint32_t mine, bool starving) {
    const std::uint32_t rounds = w & kShared ? kRounds * kRound : 0;
    return ((w | kQueued | rounds) & ~mine) | (starving ? Mutex::kStarving : 0);
  }

  bool try_take(std::uint32_t& w, std::uint32_t clear) {
    return word.compare_exchange_strong(w, (w | Mutex::kLocked) & ~clear, memory_order_acquire, memory_order_relaxed);  // [mutex]
  }

  /// Guard held, `w` the word, locked: what is set beside kLocked from here on stays. False: the word has changed.
  bool share(std::uint32_t& w) {
    if (WEFT_LIKELY(w & kShared)) return true;
    if (!detail::has_sections()) {
      arch::section_barrier();  // if there were some a moment ago
      return true;
    }
    if (!word.compare_exchange_strong(w, w | kShared | kRounds * kRound, memory_order_relaxed)) return false;
    SCHED_POINT("mutex shared");
    arch::section_barrier();
    w = peek(word);
    return w & kShared;
  }

  /// Wake: locked. Else what the limit says.
  /// `resumed`: the caller's node, which a Cond has moved into the queue and an unlock has woken.
  Outcome lock(Mutex* self, Limit limit, const WaitNode* resumed = nullptr) {
    SCHED_POINT("mutex lock");
    prepare_wait(rt::current_g(), limit, self);
    std::int64_t started = 0;
    bool starving = false;
    std::uint32_t mine = 0;  // kWoken while this caller is the one that is on its way
    int spins = 0;
    bool first = true;  // not in the queue before: at its end
    if (resumed) {
      if (handed_over(resumed, 0)) return Outcome::Wake;
      mine = Mutex::kWoken;
      first = false;
    }
    for (;;) {
      std::uint32_t w = peek(word);
      if (!(w & (Mutex::kLocked | Mutex::kStarving))) {
        if (try_take(w, mine)) return Outcome::Wake;
        continue;
      }
      if ((w & Mutex::kLocked) && !(w & Mutex::kStarving) && spins < kSpins && may_spin()) {
        if (!mine && (w & Mutex::kQueued) && !(w & Mutex::kWoken) &&
            word.compare_exchange_weak(w, w | Mutex::kWoken, memory_order_relaxed))
          mine = Mutex::kWoken;
        for (int i = 0; i < kFirstSpin << spins; i++) arch::cpu_pause();
        spins++;
        continue;
      }
      if (limit.deadline != kNever && started && arch::clock_now() >= limit.deadline) {
        give_up(mine);
        return Outcome::Timeout;
      }
      guard.lock();
      w = peek(word);
      // Free, and not reserved for a starving waiter: try again. Free and starving cannot be: it is handed over locked.
      if (!(w & kLocked) || !share(w) || !(w & kLocked) ||
          !word.compare_exchange_strong(w, queued(w, mine, starving), memory_order_relaxed)) {
        guard.unlock();
        continue;
      }
      Waiter* waiter = my_waiter();
      WaitNode* n = plain_node(waiter, limit.any());
      if (first)
        queue.push(n, &guard);
      else
        push_front(n);  // it was the oldest
      first = false;
      if (!started) started = arch::clock_now();
      const Outcome o = wait_within(waiter, n->ticket, WaitReason::Mutex, self, &guard, limit);
      if (o != Outcome::Wake) return o;
      if (handed_over(n, started)) return Outcome::Wake;
      starving = starving || arch::clock_now() - started > kStarvingAfter;
      mine = Mutex::kWoken;
      spins = 0;
    }
  }

  /// Woken by an unlock: with the lock, or only to try again. `started`: 0 if that is not known.
  bool handed_over(const WaitNode* n, std::int64_t started) {
    if (!n->success) return false;
    if ((started && arch::clock_now() - started < kStarvingAfter) || !(peek(word) & Mutex::kQueued))
      word.fetch_and(~Mutex::kStarving, memory_order_acquire);  // [mutex]
    else
      (void)word.load(memory_order_acquire);  // [mutex]
    return true;
  }

  void push_front(WaitNode* n) {
    WaitNode* old = peek(queue.first);
    if (!old) {
      queue.push(n, &guard);
      return;
    }
    n->queue = &queue;
    n->lock = &guard;
    n->prev = nullptr;
    n->next = old;
    old->prev = n;
    queue.first.store(n, memory_order_relaxed);
  }

  /// A timed waiter was woken but did not get the lock in time: the wake-up must not be lost.
  void give_up(std::uint32_t mine) {
    if (!mine) return;
    word.fetch_and(~mine, memory_order_relaxed);
    std::uint32_t w = peek(word);
    if ((w & Mutex::kQueued) && !(w & Mutex::kLocked) && try_take(w, 0)) unlock();
  }

  /// What an unlock that wakes nobody leaves of `w`. The last round ends the shared mode.
  static std::uint32_t unlocked(std::uint32_t w) {
    if (w & (kQueued | Mutex::kWoken)) return w & ~kLocked;
    return w >= 2 * kRound ? w - kLocked - kRound : 0;
  }

  /// Nobody waits, or whoever is on its way will find the lock free.
  static bool wakes_nobody(std::uint32_t w) {
    return (w & ~kIdle) == kLocked || (w & (kLocked | Mutex::kWoken | Mutex::kStarving)) == (kLocked | Mutex::kWoken);
  }

  /// The unlock of a shared word that need not enter the runtime.
  static bool unlock_quietly(std::atomic<std::uint32_t>& word) {
    std::uint32_t w = peek(word);
    while (wakes_nobody(w))
      if (word.compare_exchange_strong(w, unlocked(w), memory_order_release, memory_order_relaxed)) return true;  // [mutex]
    return false;
  }

  /// `parks`: the caller parks next.
  void unlock(bool parks = false) {
    SCHED_POINT("mutex unlock");
    rt::Outside outside(current_m());
    for (;;) {
      std::uint32_t w = peek(word);
      if (!(w & Mutex::kLocked)) fatalf("sync: unlock of unlocked mutex");
      if (wakes_nobody(w)) {
        if (unlock_quietly(word)) return;
        continue;
      }
      guard.lock();
      WaitNode* n = queue.pop_winner(Outcome::Wake);
      if (!n) {
        // All have given up. The word is released without the guard held, by the CAS above: it may be the last touch.
        word.fetch_and(~(Mutex::kQueued | Mutex::kStarving), memory_order_relaxed);
        guard.unlock();
        continue;
      }
      const std::uint32_t left = queue.empty() ? 0 : Mutex::kQueued;
      if (peek(word) & Mutex::kStarving) {
        n->success = true;
        if (!left) word.fetch_and(~Mutex::kQueued, memory_order_release);  // [mutex]
        else word.fetch_or(0, memory_order_release);                       // [mutex]
      } else {
        // Others may set kWoken (spinners) meanwhile; everything else changes under the guard or needs the lock.
        word.store((peek(word) & kIdle) | left | Mutex::kWoken, memory_order_release);  // [mutex]
      }
      guard.unlock();
      if (parks)
        wake_before_park(n->waiter);
      else
        wake_waiter(n->waiter);
      return;
    }
  }
};

void Mutex::lock_slow() {
  rt::Inside inside;
  rt::must_not_be_canceled(MutexImpl(*this).lock(this, {}));
}

bool Mutex::lock_until(std::int64_t deadline) {
  if (deadline <= arch::clock_now()) return false;
  rt::Inside inside;
  return rt::has_happened(MutexImpl(*this).lock(this, {.deadline = timed(deadline)}));
}

std::error_code Mutex::lock(const Context& ctx) {
  rt::ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  if (try_lock()) return {};
  rt::Inside inside;
  return rt::error_of(MutexImpl(*this).lock(this, by.limit()), by);
}

void Mutex::unlock_slow() {
  if (WEFT_LIKELY(MutexImpl::unlock_quietly(word_))) return;
  rt::Inside inside;
  MutexImpl(*this).unlock();
}

namespace rt {

void unlock_inside(weft::Mutex& mu) {
  if (!MutexImpl::release(mu)) MutexImpl(mu).unlock(true);
}

bool move_waiter(WaitQueue& from, WaitNode* n, weft::Mutex& mu) {
  MutexImpl m(mu);
  m.guard.lock();
  for (std::uint32_t w = peek(m.word);;) {
    if (!(w & MutexImpl::kLocked)) {
      m.guard.unlock();
      return false;
    }
    if (!m.share(w)) continue;
    if ((w & MutexImpl::kLocked) && m.word.compare_exchange_strong(w, w | MutexImpl::kQueued, memory_order_relaxed)) break;
  }
  from.remove(n);
  n->index = kMoved;
  m.queue.push(n, &m.guard);
  if (G* gp = n->waiter->g()) {
    gp->reason = WaitReason::Mutex;
    gp->wait_object = &mu;
  }
  m.guard.unlock();
  return true;
}

void lock_resumed(weft::Mutex& mu, const WaitNode* n) {
  Masked masked(current_g());
  MutexImpl(mu).lock(&mu, {}, n);
}

}  // namespace rt

void Mutex::destroyed_in_use() {
  char who[256];
  MutexImpl m(*this);
  m.guard.lock();
  describe_waiters(m.queue, who, sizeof who);
  fatalf("weft: Mutex destroyed while %s%s", who[0] ? "waited for by " : "locked", who);
}

}  // namespace weft
