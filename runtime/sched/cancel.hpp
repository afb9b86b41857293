// Cancelling the waits of a goroutine that runs in a task or scope (a *domain*), without cost for those that nobody cancels.
//
// Protocol   A domain knows the goroutine that runs in it, its runner; the runner has a byte, G::cancel, that says whether its
//            innermost domain is cancelled. The runner looks at the byte in the commit of each park, when its context is saved,
//            and when it goes on. A canceller sets it, then makes every thread of the process pass a memory barrier, then looks
//            whether the runner is parked:
//
//              runner                                  canceller
//              status = Waiting                        domain: canceled = true, byte = 1     (Domain::lock)
//              (compiler barrier)                      membarrier: a full barrier in every running thread
//              commit: byte set? wins its own wait     Domain::lock: Waiting? wins its wait, readies it
//
//            If the runner's status came before its thread's barrier, the canceller sees it parked. If after, so does its look
//            at the byte, which is set then. The asymmetry is the point, as in preempt.cpp: a wait in a scope costs what it
//            costs outside. Who is woken meanwhile goes the same way backwards:
//
//              runner goes on                          canceller
//              status = Running                        byte = 1, membarrier
//              (compiler barrier)                      Domain::lock: Waiting? ... looks at the waiter ... unlock
//              byte set? passes Domain::lock           (not Waiting: leaves it alone)
//
//            So while a canceller looks at a waiter its owner does not go on.
// Winning    A wait is of one of two kinds. *Guarded*: its node is racy, and G::guard is held until its commit is through; then
//            the word decides. All waits of a domain are of this kind, but for a plain send or receive, which is *exclusive*
//            (core/waiter.hpp): the canceller takes the channel's lock, as the stop does, and takes the node out if it is still
//            there. An operation that has happened keeps its result either way.
// Lifetime   The channel of an exclusive wait may go as soon as somebody has popped the node, by whoever holds its last handle.
//            So a canceller counts itself in `cancellers` before its barrier, and who frees a channel waits until there is none.
// Level      The byte stays. Each later wait that would park ends in its commit, unless the runner is shielded then: `masked`
//            (an end of a scope, a deferred call), or an exception that unwinds it.
// Fallback   Where the kernel refuses membarrier the world is stopped and started instead; it is a full barrier too.
// Rejected   A node per wait in a list of the domain's (block/wait.hpp does that for contexts): four locked instructions per park.
//            Racy nodes for channels: one CAS per wake, 1.15 of the ping-pong outside.
// Locks      Domain::lock, then G::guard or a channel's lock. One domain at a time. Nobody who holds one of the latter takes
//            the first.
// Orders     [cancel] the byte is relaxed: the barrier orders it. What the canceller reads of a parked G comes by [status] and
//            the lock that its commit has released.
//            [cancellers] release by a canceller that is done, acquire by who frees: the channel is not touched any more.
#pragma once

#include <cstdint>

#include "runtime/sched/sched.hpp"

namespace weft::rt {

struct Domain {
  SpinLock lock;
  bool canceled = false;        // under lock; for good
  bool throws = false;          // throw_on_cancel; set before it is shared
  std::uint16_t masked = 0;     // the runner's own: above zero nothing cancels its waits
  G* runner = nullptr;          // under lock: the G whose innermost domain this is
  Domain* outer = nullptr;      // the runner's before it entered; its own business
};

/// The calling G enters `d`, which becomes its innermost domain; leaves it for the one that it was in before.
void enter_domain(G* gp, Domain* d);
void leave_domain(G* gp, Domain* d);

/// Between these two cancellers look at waits. Any number of them at once.
extern std::atomic<std::uint32_t> cancellers;
void cancellers_begin();  // with the barrier; after G::cancel has been set. No lock. Switches: maybe
inline void cancellers_end() { cancellers.fetch_sub(1, memory_order_release); }  // [cancellers]
void wait_for_cancellers();
/// Before a channel's memory goes.
WEFT_ALWAYS_INLINE void pass_cancellers() {
  if (WEFT_UNLIKELY(cancellers.load(memory_order_acquire) != 0)) wait_for_cancellers();  // [cancellers]
}

/// The canceller's look: ends the wait of d's runner, if it is parked and not shielded.
void cancel_runner(Domain* d);

/// The commit of a guarded wait ends with this; `from` may run as soon as it does.
void end_guarded_commit(G* from);
/// The commit of a park under a lock when the byte is set: releases the lock. (switch.hpp)
void unlock_canceled(G* from, SpinLock* lock);

/// Throws weft::Canceled: set by block/, for the one wait of this layer that users see.
extern void (*cancel_thrower)();
extern Relaxed<bool> cancel_by_barrier;  // else the world is stopped for each cancel: not on g0

void pass_domain(G* gp);
/// First thing of whoever comes back from a wait: its canceller may still look at it.
WEFT_ALWAYS_INLINE void pass_canceller(G* gp) {
  if (WEFT_UNLIKELY(peek(gp->cancel))) pass_domain(gp);
}

/// Nothing cancels the waits of this goroutine while one lives. On plain threads and outside domains: nothing.
class Masked {
 public:
  explicit Masked(G* gp) : d_(gp ? gp->domain : nullptr) {
    if (d_) d_->masked++;
  }
  ~Masked() {
    if (d_) d_->masked--;
  }
  Masked(const Masked&) = delete;
  Masked& operator=(const Masked&) = delete;

 private:
  Domain* d_;
};

}  // namespace weft::rt
