// See cancel.hpp.
#include "runtime/sched/cancel.hpp"

#include <sched.h>

#include "arch/barrier.hpp"
#include "runtime/base/sched_point.hpp"

namespace weft::rt {

std::atomic<std::uint32_t> cancellers{0};
void (*cancel_thrower)() = nullptr;
Relaxed<bool> cancel_by_barrier;

void enter_domain(G* gp, Domain* d) {
  d->outer = gp->domain;
  if (Domain* outer = d->outer) {
    outer->lock.lock();
    outer->runner = nullptr;
    outer->lock.unlock();
  }
  d->lock.lock();
  d->runner = gp;
  gp->domain = d;
  gp->cancel.store(d->canceled, memory_order_relaxed);  // [cancel] under the lock, as every change of it
  d->lock.unlock();
}

void leave_domain(G* gp, Domain* d) {
  d->lock.lock();
  d->runner = nullptr;
  d->lock.unlock();
  Domain* outer = d->outer;
  gp->domain = outer;
  if (!outer) {
    gp->cancel.store(0, memory_order_relaxed);  // [cancel]
    return;
  }
  outer->lock.lock();
  outer->runner = gp;
  gp->cancel.store(outer->canceled, memory_order_relaxed);  // [cancel]
  outer->lock.unlock();
}

void cancellers_begin() {
  SCHED_POINT("cancel");
  cancellers.fetch_add(1, memory_order_relaxed);
  if (arch::barrier_in_all_threads()) return;
  // Counted while the world stands: who waits for cancellers comes to no safepoint.
  cancellers.fetch_sub(1, memory_order_relaxed);
  cancel_by_barrier = false;
  stop_world();
  cancellers.fetch_add(1, memory_order_relaxed);
  start_world();
}

void wait_for_cancellers() {
  // They hold no more than a few short locks; the holder of one may have lost its CPU.
  for (unsigned i = 0; cancellers.load(memory_order_acquire) != 0; i++) {  // [cancellers]
    if (i < 1000)
      arch::cpu_pause();
    else
      ::sched_yield();
  }
}

namespace {

/// Parked, with its context saved, and nobody lets it go on.
bool shielded(const G* gp) { return gp->domain->masked != 0 || gp->eh.uncaught != 0; }

/// The ticket of a wait that nobody has ended; 0: there is none.
std::uint64_t pending_ticket(const Waiter& w) {
  if (w.outcome() != Outcome::Pending) return 0;
  return peek(w.word) >> Waiter::kOutcomeBits;
}

bool win_guarded(G* gp) {
  const std::uint64_t ticket = pending_ticket(gp->waiter);
  return ticket && !shielded(gp) && gp->waiter.try_win(ticket, Outcome::Cancel);
}

/// The exclusive node's lock is held.
bool win_exclusive(G* gp) {
  WaitNode& n = gp->waiter.node;
  const std::uint64_t ticket = pending_ticket(gp->waiter);
  if (!ticket || !n.queue || shielded(gp)) return false;
  n.queue->remove(&n);
  gp->waiter.set(ticket, Outcome::Cancel);
  return true;
}

/// Domain::lock is held and gp is Waiting. True: it is the caller's to ready.
bool win_parked(G* gp) {
  WaitNode& n = gp->waiter.node;
  if (gp->select_ || n.racy) {
    gp->guard.lock();  // its commit is through
    const bool won = win_guarded(gp);
    gp->guard.unlock();
    return won;
  }
  SpinLock* lock = n.lock;
  if (!lock || pending_ticket(gp->waiter) == 0) return false;
  lock->lock();
  const bool won = win_exclusive(gp);
  lock->unlock();
  return won;
}

}  // namespace

void cancel_runner(Domain* d) {
  SCHED_POINT("cancel look");
  d->lock.lock();
  G* gp = d->runner;
  const bool won = gp && d->canceled && gp->status.load(memory_order_acquire) == GStatus::Waiting && win_parked(gp);  // [status]
  d->lock.unlock();
  if (won) ready(gp);
}

void end_guarded_commit(G* from) {
  const bool won = WEFT_UNLIKELY(peek(from->cancel)) && win_guarded(from);
  from->guard.unlock();
  if (won) ready(from);
}

void unlock_canceled(G* from, SpinLock* lock) {
  const bool won = from->waiter.node.lock == lock && win_exclusive(from);
  lock->unlock();
  if (won) ready(from);
}

void pass_domain(G* gp) {
  gp->domain->lock.lock();
  gp->domain->lock.unlock();
}

}  // namespace weft::rt
