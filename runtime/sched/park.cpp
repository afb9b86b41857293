// How a G stops and goes on: park, ready, yield, the safepoint's slow half.
//
// Protocol   park: the G sets its wait up under the object's lock, marks itself Waiting, and leaves; the lock is released by
//            the next context (switch.hpp). Whoever wins the wait calls ready(): it becomes runnext of the waker's P, because
//            what it waits for is hot there; outside a P it goes to the global queue.
// Preempt    sysmon sets G::preempt of a G that has run a slice; the G looks at it in every runtime call and gives way to
//            the global queue's tail.
// Orders     [idle] see idle.cpp: publishing is the exchange on runnext, or the fence after a push.
//            [runnext] see core/p.hpp.
#include <thread>

#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/sched/switch.hpp"
#include "runtime/sched/unwind.hpp"

namespace weft::rt {

// ---- queues --------------------------------------------------------------------------------------------------------

void put_global_batch(G* const* gs, std::uint32_t n, bool woken) {
  sched.mu.lock();
  sched.global.push(gs, n, woken);
  // [idle] seq_cst: a publication that last looks check; pairs with the load in sleep_until_work().
  sched.global_size.fetch_add(n, memory_order_seq_cst);
  sched.mu.unlock();
}

void put_global(G* gp, bool woken) { put_global_batch(&gp, 1, woken); }

void put_global_list(GList& list, bool woken) {
  constexpr std::uint32_t kAtOnce = 128;
  G* some[kAtOnce];
  while (list.first) {
    std::uint32_t n = 0;
    while (n < kAtOnce && list.first) some[n++] = list.pop();
    put_global_batch(some, n, woken);
  }
}

namespace {

// The older half of a full queue goes to the global one, then `gp`: as one batch.
WEFT_NOINLINE void overflow(P* pp, G* gp) {
  G* batch[kRunQueueCapacity / 2 + 1];
  std::uint32_t n = gp->started ? pp->ring.take_half(batch) : pp->fresh.take_half(batch);
  batch[n++] = gp;
  put_global_batch(batch, n);
}

}  // namespace

void put_back(P* pp, G* gp) {
  if (WEFT_LIKELY(gp->started ? pp->ring.push(gp) : pp->fresh.push(gp))) return;
  overflow(pp, gp);
}

void put_next_shared(P* pp, G* gp) {
  // [idle] [runnext] seq_cst: publishes gp before the loads of the counters in wake_*().
  G* old = pp->runnext.exchange(gp, memory_order_seq_cst);
  if (old) {
    put_back(pp, old);
    if (sched.idle_ps_count.load(memory_order_seq_cst) != 0) wake_one();  // [idle]
  } else if (sched.idle_ps_count.load(memory_order_seq_cst) != 0) {       // [idle]
    wake_for_lone(pp);
  }
}

// ---- park ----------------------------------------------------------------------------------------------------------

namespace {

WEFT_NOINLINE void unwind_for_stop() { unwind_current(true); }

}  // namespace

void park(M* mp, WaitReason reason, const void* object, SpinLock* lock) {
  SCHED_POINT("park");
  G* gp = mp->curg;
  park_here(mp, gp, reason, object, lock);
  if (WEFT_UNLIKELY(gp->waiter.outcome() == Outcome::Stop)) unwind_for_stop();
}

void park_call(M* mp, WaitReason reason, const void* object, void (*commit)(M*, G*, void*), void* arg) {
  SCHED_POINT("park");
  G* gp = mp->curg;
  mark_waiting(gp, reason, object);
  mp->commit = Commit::Call;
  mp->commit_call = commit;
  mp->commit_arg = arg;
  leave(mp, gp);
}

void ready(G* gp) {
  SCHED_POINT("ready");
  set_status(gp, GStatus::Waiting, GStatus::Runnable);
  M* mp = current_m();
  if (WEFT_LIKELY(mp && mp->p)) {
    put_next_here(mp->p, gp);
  } else {
    put_global(gp, true);
    wake_one();
  }
}

void ready_back(G* gp) {
  set_status(gp, GStatus::Waiting, GStatus::Runnable);
  M* mp = current_m();
  if (P* pp = mp ? mp->p : nullptr) {
    // First come, first served, but before those that have a slice of their own to begin.
    G* none = nullptr;
    if (!peek(pp->runnext) && pp->runnext.compare_exchange_strong(none, gp, memory_order_seq_cst)) return;  // [runnext] [idle]
    put_back(pp, gp);
    pp->woken_to.store(pp->ring.tail(), memory_order_relaxed);
  } else {
    put_global(gp, true);
    wake_one();
  }
}

void ready_list(GList& list) {
  if (!list.first) return;
  for (G* gp = list.first; gp; gp = gp->link) set_status(gp, GStatus::Waiting, GStatus::Runnable);
  M* mp = current_m();
  P* pp = mp ? mp->p : nullptr;
  if (!pp) {
    put_global_list(list, true);
    wake_one();
    return;
  }
  while (G* gp = list.pop()) put_back(pp, gp);
  pp->woken_to.store(pp->ring.tail(), memory_order_relaxed);
  publish_fence(pp->ring.fence_word());  // [idle] before wake_one() looks
  wake_one();
}

void wake_waiter(Waiter* w) {
  if (G* gp = w->g())
    ready(gp);
  else
    w->note.wake();
}

// ---- waits with everything -----------------------------------------------------------------------------------------

namespace {

// A plain thread never switches, so its waiter may live in thread-local storage.
WEFT_NOINLINE Waiter* thread_waiter() {
  static thread_local Waiter w;
  w.node.of_thread = true;
  return &w;
}

void fire_timeout(TimerNode* t, std::uint64_t ticket, std::int64_t) {
  G* gp = g_of_timer(t);
  if (gp->waiter.try_win(ticket, Outcome::Timeout)) ready_back(gp);
}

// Arms the timeout once the context is saved: it may fire at once.
void commit_timed(M* mp, G* from, void* arg) {
  // The G may run again as soon as the timer is armed or the lock released, so nothing of it is read after either.
  auto* lock = static_cast<SpinLock*>(arg);
  const std::int64_t due = from->timer.when;
  timer_arm(&from->timer);
  if (lock) lock->unlock();
  // Straight to another G, which may never come to a safepoint: sysmon is to look in time. (Through g0: find_work() says so.)
  if (!mp->curg->system && WEFT_UNLIKELY(due < sysmon_next_look() - kTimerSlack)) sysmon_wake();
}

void leave_queue(WaitNode* n) {
  // `queue` is cleared by whoever pops, under this lock; the object outlives the wait.
  if (!n->lock) return;
  n->lock->lock();
  if (n->queue) n->queue->remove(n);
  n->lock->unlock();
}

// The same for a G in a domain, with G::guard held: more than its object may end the wait.
void commit_guarded(M* mp, G* from, void* arg) {
  auto* lock = static_cast<SpinLock*>(arg);
  const std::int64_t due = from->timer.when;
  const bool timed = from->timer.ticket != 0;
  if (lock) lock->unlock();
  if (timed) timer_arm(&from->timer);
  end_guarded_commit(from);
  if (timed && !mp->curg->system && WEFT_UNLIKELY(due < sysmon_next_look() - kTimerSlack)) sysmon_wake();
}

Outcome thread_wait(Waiter* w, std::uint64_t ticket, SpinLock* lock, std::int64_t deadline) {
  check_not_forked();
  if (lock) lock->unlock();
  if (deadline == kNever) {
    w->note.sleep();
  } else if (!w->note.sleep_until(deadline)) {
    if (!w->try_win(ticket, Outcome::Timeout)) w->note.sleep();  // the winner is about to wake us
  }
  return w->outcome();
}

}  // namespace

void set_timeout(G* gp, std::uint64_t ticket, std::int64_t deadline) {
  static constexpr TimerNode::Ops kOps{fire_timeout, nullptr};
  gp->timer.when = deadline;
  gp->timer.ops = &kOps;
  gp->timer.ticket = ticket;
}

namespace {

/// The timer is set up if there is a deadline.
void park_guarded(M* mp, G* gp, std::uint64_t ticket, WaitReason reason, const void* object, SpinLock* lock,
                  std::int64_t deadline) {
  if (deadline != kNever)
    set_timeout(gp, ticket, deadline);
  else
    gp->timer.ticket = 0;
  gp->guard.lock();
  park_call(mp, reason, object, commit_guarded, lock);
  gp->guard.lock();  // its commit may still be at work on another thread
  gp->guard.unlock();
  pass_canceller(gp);
  if (deadline != kNever) timer_remove(&gp->timer);
}

}  // namespace

Waiter* my_waiter() {
  if (G* gp = current_g()) return &gp->waiter;
  Waiter* w = thread_waiter();
  w->note.clear();
  return w;
}

Outcome wait_on(Waiter* w, std::uint64_t ticket, WaitReason reason, const void* object, SpinLock* lock,
                std::int64_t deadline) {
  G* gp = w->g();
  if (WEFT_UNLIKELY(!gp)) {
    const Outcome o = thread_wait(w, ticket, lock, deadline);
    if (o == Outcome::Timeout) leave_queue(&w->node);
    return o;
  }
  M* mp = current_m();
  if (WEFT_UNLIKELY(gp->domain != nullptr)) {
    park_guarded(mp, gp, ticket, reason, object, lock, deadline);
  } else if (WEFT_LIKELY(deadline == kNever)) {
    park_here(mp, gp, reason, object, lock);
  } else {
    set_timeout(gp, ticket, deadline);
    park_call(mp, reason, object, commit_timed, lock);
    timer_remove(&gp->timer);
  }
  const Outcome o = w->outcome();
  if (WEFT_UNLIKELY(o != Outcome::Wake && o != Outcome::Close)) {
    leave_queue(&w->node);
    if (o == Outcome::Stop) unwind_for_stop();
  }
  return o;
}

Outcome sleep_until(std::int64_t deadline) {
  deadline = timed(deadline);
  const std::int64_t now = arch::clock_now();
  if (deadline <= now) return Outcome::Timeout;
  Waiter* w = my_waiter();
  parks_at(now);
  const std::uint64_t ticket = w->begin();
  w->node.racy = true;
  return wait_on(w, ticket, WaitReason::Sleep, nullptr, nullptr, deadline);
}

// ---- yield and safepoints ------------------------------------------------------------------------------------------

namespace {

void commit_yield(M* mp, G* from, void*) {
  P* pp = mp->p;
  if (peek(sched.global_size) != 0) {
    put_global(from);
  } else {
    put_back(pp, from);
    // Whoever is idle may have this one; but a yield with nobody else runnable never gets here, so no thrashing.
    if (!pp->solo) {
      publish_fence(pp->ring.fence_word());                                // [idle]
      if (sched.idle_ps_count.load(memory_order_seq_cst) != 0) wake_one();  // [idle]
    }
  }
}

void commit_preempted(M* mp, G* from, void*) {
  // For a stop of the world it stays next where it is: it has done nothing wrong, and is hot there.
  if (peek(mp->p->attention) & kAttendStop) {
    put_next_here(mp->p, from);
    return;
  }
  put_global(from);
  mp->p->woken_first = kWokenAfterSlice;
  wake_one();
}

WEFT_ALWAYS_INLINE void yield_now(M* mp) {
  SCHED_POINT("yield");
  G* gp = mp->curg;
  P* pp = mp->p;
  if (WEFT_UNLIKELY(!pp)) {
    reacquire_p(mp);
    return;
  }
  if (!peek(pp->runnext) && pp->ring.empty() && pp->fresh.empty() && peek(sched.global_size) == 0 &&
      !peek(pp->attention)) {
    if (--pp->picks_left != 0) return;
    pp->picks_left = 1;  // time for a round: timers and descriptors
  }
  gp->reason = WaitReason::Yield;
  set_status(gp, GStatus::Running, GStatus::Runnable);
  mp->commit = Commit::Call;
  mp->commit_call = commit_yield;
  leave(mp, gp);
}

}  // namespace

void safepoint_now(M* mp) {
  G* gp = mp->curg;
  if (gp->system) return;
  if (WEFT_UNLIKELY(peek(mp->abandoned))) stay_if_abandoned(mp);
  if (!keeps_p(mp)) {
    reacquire_p(mp);
    return;
  }
  report_safepoint(gp);
  if (WEFT_UNLIKELY(peek(gp->no_preempt))) return;  // again when its guard ends
  gp->preempt.store(0, memory_order_relaxed);
  gp->reason = WaitReason::Preempted;
  set_status(gp, GStatus::Running, GStatus::Runnable);
  mp->commit = Commit::Call;
  mp->commit_call = commit_preempted;
  // Through g0: whoever asked may want the world, or a timer is due.
  switch_to(mp, gp, &mp->g0);
}

}  // namespace weft::rt

namespace weft {

void yield() {
  rt::Inside inside;
  if (!inside.m || inside.m->curg->system) {
    std::this_thread::yield();
    return;
  }
  rt::yield_now(inside.m);
}

namespace detail {

void safepoint_slow() { rt::Inside inside; }

bool preempt_requested_call() noexcept {
  rt::M* mp = rt::current_m();
  return mp && rt::peek(mp->curg->preempt);
}

}  // namespace detail
}  // namespace weft
