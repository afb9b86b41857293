// What an M does: find a goroutine, run it, again.
//
// The order of preference in find_work() is the scheduler's policy; each source is one line. Sources that cost a clock read or
// a lock of others come after the P's own queues, but once every 61 picks they come first, so that nothing waits for ever
// behind a local queue that never empties.
//
//   source                  why here
//   stop, timers            whoever asked waits for us; a timer that is due is late already
//   each 61st pick          the global queue, the oldest local one, the poller, in turn: none starves behind the others
//   runnext, local queues   hot
//   global batch            work that nobody has
//   poller, not sleeping    descriptors that are ready
//   steal                   others' surplus, their due timers too
//   sleep                   releases the P, looks once more, sleeps (idle.cpp)
//
// Locks      none held on entry or exit; Sched::mu inside.
// Orders     [run-state] see lifecycle.cpp.
#include <unistd.h>

#include <utility>

#include "arch/more_stack.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/log.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/sched/switch.hpp"

namespace weft::rt {

constinit Sched sched;

// ---- the loop ------------------------------------------------------------------------------------------------------

void schedule(M* mp) {
  while (G* gp = find_work(mp)) execute(mp, gp);
}

void execute(M* mp, G* gp) {
  P* pp = mp->p;
  if (WEFT_UNLIKELY(gp->started != kStarted)) {
    if (gp->started == kSpecial) {
      if (!start_special(mp, gp)) return;
    } else if (!bind_stack(pp, gp)) {
      wait_for_stack(gp);
      return;
    }
  }
  now_running(mp, pp, gp);
  mp->commit = Commit::None;
  switch_to(mp, &mp->g0, gp);
  if (WEFT_UNLIKELY(mp->run_slot != nullptr)) leave_run_slot(mp);
  if constexpr (arch::kSegmented) arch::set_guard_word(0);  // segmented.cpp
}

// ---- find work -----------------------------------------------------------------------------------------------------

namespace {

// [run-state] acquire: see lifecycle.cpp.
bool run_has_ended() { return sched.state.load(memory_order_acquire) == RunState::Ending; }

bool stop_requested(P* pp) { return peek(pp->attention) & kAttendStop; }

// Fires what is due on this P; reads the clock only if it has timers at all.
void attend_timers(P* pp) {
  pp->attention.fetch_and(~static_cast<std::uint32_t>(kAttendLoop), memory_order_relaxed);
  if (pp->timers.idle()) return;
  const std::int64_t now = arch::clock_now();
  pp->clock_seen(now);
  run_timers(pp, now);
}

// What has waited longest in the P's queues, which take turns: neither a runnext chain nor a stream of newcomers, the newest
// of which run first, keeps anybody waiting for ever.
G* take_oldest(P* pp) {
  if ((pp->fresh_turn = !pp->fresh_turn))
    if (G* gp = pp->fresh.steal()) return gp;
  if (G* gp = pp->ring.pop(pp->solo)) return gp;
  return pp->fresh.steal();
}

G* poll_now() {
  if (sched.poller.waiting() == 0 || peek(sched.poller_m)) return nullptr;
  GList got;
  if (!sched.poller.wait(0, got, false)) return nullptr;
  const unsigned n = got.count;
  G* gp = got.pop();
  set_status(gp, GStatus::Waiting, GStatus::Runnable);
  ready_list(got);
  sched.poller.queued(n);
  return gp;
}

// After a slice, some of those that were woken, before the next one that computes: in the P's own queue each of them may take a slice.
G* take_woken(P* pp) {
  G* gp = nullptr;
  if (sched.global.woken_wait()) {
    pp->woken_first--;
    sched.mu.lock();
    gp = sched.global.pop_woken();
    if (gp) sched.global_size.fetch_sub(1, memory_order_relaxed);
    sched.mu.unlock();
  }
  if (!gp) pp->woken_first = 0;
  return gp;
}

// The P was taken from who computed because somebody who has run before waits in the global queue. Newcomers wait for some more: each
// may be one more that computes.
G* take_started(P* pp) {
  pp->started_first--;
  sched.mu.lock();
  G* gp = sched.global.pop_started();
  if (gp) sched.global_size.fetch_sub(1, memory_order_relaxed);
  sched.mu.unlock();
  if (!gp) pp->started_first = 0;
  return gp;
}

// Once per round: the sources that the fast path never sees. They take turns at being first: each of them can be one that never
// runs dry (goroutines that yield to the global queue while it is not empty, say), and must not starve the others.
G* round_of(P* pp) {
  pp->picks_left = kPicksPerRound;
  if (WEFT_UNLIKELY(!sysmon_running())) sysmon_start();
  log_flush();
  constexpr unsigned kSources = 3;
  const unsigned first = pp->round_turn = static_cast<std::uint8_t>((pp->round_turn + 1) % kSources);
  for (unsigned i = 0; i < kSources; i++) {
    G* gp = nullptr;
    switch ((first + i) % kSources) {
      case 0: gp = take_global(pp, 1); break;
      case 1: gp = take_oldest(pp); break;
      case 2: gp = poll_now(); break;
    }
    if (gp) return gp;
  }
  return nullptr;
}

// Whoever searched and found must say so, or nobody else is woken for the rest.
G* found_work(M* mp, G* gp) {
  stop_searching(mp);
  return gp;
}

}  // namespace

G* take_global(P* pp, std::uint32_t at_most) {
  if (peek(sched.global_size) == 0) return nullptr;
  sched.mu.lock();
  std::uint32_t n = peek(sched.global_size);
  if (n == 0) {
    sched.mu.unlock();
    return nullptr;
  }
  // A fair share, so that one P does not carry everything away.
  const std::uint32_t share = n / peek(sched.procs) + 1;
  n = n < share ? n : share;
  n = n < at_most ? n : at_most;
  if (n > kRunQueueCapacity / 2) n = kRunQueueCapacity / 2;
  G* batch[kRunQueueCapacity / 2];
  sched.global.pop(batch, n);
  sched.global_size.fetch_sub(n, memory_order_relaxed);
  sched.mu.unlock();
  // Our queues have room: they were empty, or n is 1. Those that have never run go in backwards: newest-first taking makes
  // them run in order.
  // Each is looked at before it is queued: from then on a thief may run it.
  G* fresh[kRunQueueCapacity / 2];
  std::uint32_t n_fresh = 0;
  for (std::uint32_t i = 1; i < n; i++) {
    if (batch[i]->started)
      put_back(pp, batch[i]);
    else
      fresh[n_fresh++] = batch[i];
  }
  while (n_fresh > 0) put_back(pp, fresh[--n_fresh]);
  return batch[0];
}

G* find_work(M* mp) {
  SCHED_POINT("find_work");
  for (;;) {
    if (WEFT_UNLIKELY(peek(mp->abandoned)))
      for (;;) ::pause();
    if (WEFT_UNLIKELY(mp->bound != Bound::No)) return only_locked(mp);
    P* pp = mp->p;
    if (WEFT_UNLIKELY(!pp)) {  // handed off, taken away, stopped, or never had one
      if (run_has_ended()) return nullptr;
      if (G* gp = sleep_until_work(mp)) return found_work(mp, gp);
      continue;
    }
    if (WEFT_UNLIKELY(stop_requested(pp))) {
      if (G* gp = sleep_until_work(mp)) return found_work(mp, gp);
      continue;
    }
    if (WEFT_UNLIKELY(mp->chosen != nullptr)) return std::exchange(mp->chosen, nullptr);
    attend_timers(pp);
    G* gp = nullptr;
    if (WEFT_UNLIKELY(pp->started_first != 0)) gp = take_started(pp);
    if (!gp && (--pp->picks_left == 0 || pp->picks_left > kPicksPerRound)) gp = round_of(pp);
    if (WEFT_UNLIKELY(pp->woken_first != 0) && !gp) gp = take_woken(pp);
    if (!gp) gp = take_runnext(pp);
    if (!gp) gp = take_queued(pp);
    if (!gp) gp = take_global(pp, kRunQueueCapacity / 2);
    if (!gp) gp = poll_now();
    if (!gp) gp = steal_work(mp, pp);
    if (gp) {
      found_work(mp, gp);
      // A timer of ours that is due before sysmon looks again: nobody else would notice while gp runs.
      if (WEFT_UNLIKELY(pp->timers.earliest() < sysmon_next_look() - kTimerSlack)) sysmon_wake();
      return gp;
    }
    if (G* gp = sleep_until_work(mp)) return found_work(mp, gp);
  }
}

}  // namespace weft::rt
