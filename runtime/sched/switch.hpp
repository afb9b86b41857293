// The switch itself, and the fast half of choosing who comes next.
//
// Commit     A G that leaves must not be found by anybody before its context is saved, and the handle of the saved context
//            is only known on the other side. So the leaver says in its M what is to be done for it (unlock the channel,
//            queue it, free it), and the next context does that first thing: landed().
//            Between an object's lock and its commit there is no timer, no steal, no poll, no cold start of a stack.
// Straight   A G that parks goes straight to the next G only if one is at hand: runnext or the local queues, with a context
//            or a hot stack; no timer is due, it is not the 61st pick and nobody asked for attention. Everything else goes
//            through g0 and find_work().
// Orders     [runnext] see core/p.hpp. G::cancel, read in the commit: see cancel.hpp.
#pragma once

#include "arch/context.hpp"
#include "arch/sanitizer.hpp"
#include "runtime/base/probe.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/sched/cancel.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {

WEFT_ALWAYS_INLINE arch::SanStack& san_of(G* gp) { return gp->stack ? gp->stack->san : gp->san; }

/// First thing of every context that resumes or starts. Returns the M it runs on now.
WEFT_ALWAYS_INLINE M* landed(arch::Transfer t) {
  M* mp = static_cast<M*>(t.data);
  arch::san_take_over(mp);
  arch::san_finish_switch(san_of(mp->curg));
  G* from = mp->from;
  from->ctx = t.from;
  if (mp->commit == Commit::Unlock) {
    if (WEFT_UNLIKELY(peek(from->cancel)))
      unlock_canceled(from, mp->commit_lock);
    else
      mp->commit_lock->unlock();
  } else if (mp->commit == Commit::Call) {
    mp->commit_call(mp, from, mp->commit_arg);
  }
#ifndef NDEBUG
  probe::landed(mp);
#endif
  return mp;
}

/// What switch_to() does before it jumps.
WEFT_ALWAYS_INLINE void set_out(M* mp, G* from, G* to) {
  check_inside(mp);
  mp->from = from;
  mp->curg = to;
  from->eh = *mp->eh;
  *mp->eh = to->eh;
}

WEFT_ALWAYS_INLINE arch::Transfer jump(M* mp, G* from, G* to) {
  arch::SanStack& old_stack = san_of(from);
  arch::SanStack& new_stack = san_of(to);
  const bool leaves = mp->leaves;
  const arch::Context next = to->ctx;
  arch::san_start_switch(old_stack, new_stack, leaves, mp);
  return arch::switch_context(next, mp);
}

/// Leaves `from` for `to`; returns when `from` is resumed, with the M it runs on then. The caller has set mp->commit.
WEFT_ALWAYS_INLINE M* switch_to(M* mp, G* from, G* to) {
  set_out(mp, from, to);
  return landed(jump(mp, from, to));
}

WEFT_ALWAYS_INLINE G* take_runnext(P* pp) {
  G* gp = peek(pp->runnext);
  if (!gp) return nullptr;
  if (pp->solo) {
    pp->runnext.store(nullptr, memory_order_relaxed);
    return gp;
  }
  return pp->runnext.exchange(nullptr, memory_order_acq_rel);  // [runnext] a thief may have been faster
}

/// The next of the P's own queues: Gs that have run and those that have not take turns.
WEFT_ALWAYS_INLINE G* take_queued(P* pp) {
  if (pp->fresh.empty()) return pp->ring.pop(pp->solo);
  if ((pp->fresh_turn = !pp->fresh_turn))
    if (G* gp = pp->fresh.pop(pp->solo)) return gp;
  if (G* gp = pp->ring.pop(pp->solo)) return gp;
  return pp->fresh.pop(pp->solo);
}

/// Who comes next without g0; it may never have run. Null: ask find_work().
WEFT_ALWAYS_INLINE G* pick(M*, P* pp) {
  if (WEFT_UNLIKELY(--pp->picks_left == 0 || peek(pp->attention))) {
    pp->picks_left = 1;  // find_work() does the round
    return nullptr;
  }
  G* gp = take_runnext(pp);
  return gp ? gp : take_queued(pp);
}

/// Binds a hot stack to a G that has never run. False: none at hand; a cold one is g0's business.
WEFT_ALWAYS_INLINE bool hot_stack(P* pp, G* gp) {
  return pp->stacks.count > 0 && gp->stack_cls == pp->stacks.cls && bind_stack(pp, gp);
}

/// pick(), ready to be switched to. A G that needs a cold stack, or is special, is left in mp->chosen for find_work().
WEFT_ALWAYS_INLINE G* pick_straight(M* mp, P* pp) {
  G* gp = pick(mp, pp);
  if (gp && WEFT_UNLIKELY(gp->started != kStarted) && (gp->started == kSpecial || !hot_stack(pp, gp))) {
    mp->chosen = gp;
    return nullptr;
  }
  return gp;
}

/// `gp` is about to run on this M.
WEFT_ALWAYS_INLINE void now_running(M* mp, P* pp, G* gp) {
  set_status(gp, GStatus::Runnable, GStatus::Running);
  gp->m = mp;
  bump(pp->switches);
}

/// Leaves the running G for whoever comes next. The caller has set its status and mp->commit.
WEFT_ALWAYS_INLINE M* leave(M* mp, G* gp) {
  P* pp = mp->p;
  // Whoever is locked to this thread leaves it to nobody.
  G* next = WEFT_LIKELY(pp != nullptr && gp->started == kStarted) ? pick_straight(mp, pp) : nullptr;
  if (WEFT_LIKELY(next != nullptr))
    now_running(mp, pp, next);
  else
    next = &mp->g0;
  return switch_to(mp, gp, next);
}

// ---- park and ready, for the operations whose cost they are -------------------------------------------------------------

WEFT_ALWAYS_INLINE void mark_waiting(G* gp, WaitReason reason, const void* object) {
  gp->reason = reason;
  gp->wait_object = object;
  gp->since = peek(sched.coarse_ms);
  probe::parked(gp->id, reason);
  set_status(gp, GStatus::Running, GStatus::Waiting);
}

/// park() without a look at how the wait ended. Returns the M that it goes on on.
WEFT_ALWAYS_INLINE M* park_here(M* mp, G* gp, WaitReason reason, const void* object, SpinLock* lock) {
  mark_waiting(gp, reason, object);
  mp->commit = lock ? Commit::Unlock : Commit::None;
  mp->commit_lock = lock;
  return leave(mp, gp);
}

WEFT_ALWAYS_INLINE void put_next_here(P* pp, G* gp) {
  if (!pp->solo) {
    put_next_shared(pp, gp);
    return;
  }
  G* old = peek(pp->runnext);
  pp->runnext.store(gp, memory_order_release);  // [runnext]
  if (old) put_back(pp, old);
}

/// The bytes of a copied-out stack are wanted soon and lie anywhere, on huge pages: fetched while others still run. (A growable
/// stack's page is rarely in the TLB, where asking ahead does nothing.)
WEFT_ALWAYS_INLINE void expect(const G* gp) {
  constexpr std::size_t kLines = 8;
  if (WEFT_LIKELY(gp->started == kStarted)) return;
  const auto* bytes = static_cast<const char*>(__atomic_load_n(&gp->block, __ATOMIC_RELAXED));
  for (std::size_t i = 0; i < kLines; i++) __builtin_prefetch(bytes + i * arch::kCacheLine);
}

/// wake_waiter() on an M, which runs a G.
WEFT_ALWAYS_INLINE void wake_here(M* mp, Waiter* w) {
  G* gp = w->g();
  P* pp = mp->p;
  if (WEFT_UNLIKELY(!gp || !pp)) {
    wake_waiter(w);
    return;
  }
  SCHED_POINT("ready");
  check_inside(mp);
  set_status(gp, GStatus::Waiting, GStatus::Runnable);
  expect(gp);
  put_next_here(pp, gp);
}

}  // namespace weft::rt
