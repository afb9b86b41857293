// Stealing: how an M without work finds some on other Ps.
//
// Order      Each pass visits every other P exactly once, in an order drawn at random (steal_order.hpp).
// What       Half of a ring (rounded up), a few of the oldest never-started Gs, due timers; last a lone runnext, and only one
//            that lingers: the same G with no switch in between, so a ping-pong pair stays on its P.
// Searchers  At most half as many as busy Ps (idle.cpp has the protocol of waking them).
// Orders     [p-status], [runnext] see core/p.hpp.
#include "runtime/base/sched_point.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/steal_order.hpp"

namespace weft::rt {
namespace {

constexpr unsigned kPasses = 4;
constexpr unsigned kFreshAtOnce = 16;
/// How long a runnext must linger before it is taken: about 5 us of pauses.
constexpr unsigned kLingerPauses = 200;
constexpr unsigned kPausesBetweenPasses = 100;

/// Moves what `victim` can spare to `pp`, returns one of it.
G* steal_queued(P* pp, P* victim) {
  G* got[kRunQueueCapacity / 2];
  std::uint32_t n = victim->ring.empty() ? 0 : victim->ring.steal(got);
  if (n == 0) {
    std::uint32_t want = victim->fresh.size();
    want -= want / 2;
    if (want > kFreshAtOnce) want = kFreshAtOnce;
    while (n < want) {
      G* gp = victim->fresh.steal();
      if (!gp) break;
      got[n++] = gp;
    }
  }
  if (n == 0) return nullptr;
  victim->lone_skip.store(0, memory_order_relaxed);
  victim->lone_left.store(0, memory_order_relaxed);
  // Ours was empty: there is room. The last one runs first, the rest keeps its order.
  for (std::uint32_t i = 0; i + 1 < n; i++) put_back(pp, got[i]);
  return got[n - 1];
}

G* steal_runnext(P* victim) {
  G* gp = peek(victim->runnext);
  if (!gp) return nullptr;
  if (victim->status.load(memory_order_acquire) == PStatus::Running) {  // [p-status]
    const std::uint64_t before = peek(victim->switches);
    for (unsigned i = 0; i < kLingerPauses; i++) arch::cpu_pause();
    if (peek(victim->switches) != before || peek(victim->runnext) != gp) return nullptr;
  }
  if (!victim->runnext.compare_exchange_strong(gp, nullptr, memory_order_acq_rel, memory_order_relaxed))  // [runnext]
    return nullptr;
  victim->lone_skip.store(0, memory_order_relaxed);
  victim->lone_left.store(0, memory_order_relaxed);
  return gp;
}

/// Fires timers of `victim` that are due; what they readied is ours.
G* steal_timers(P* pp, P* victim) {
  if (victim->timers.idle()) return nullptr;
  const std::int64_t now = arch::clock_now();
  if (victim->timers.earliest() > now) return nullptr;
  run_timers(victim, now);
  if (G* gp = pp->runnext.exchange(nullptr, memory_order_acq_rel)) return gp;  // [runnext]
  return pp->ring.pop(false);
}

}  // namespace

G* steal_work(M* mp, P* pp) {
  const std::uint32_t n = peek(sched.procs);
  if (n == 1) return nullptr;
  if (!mp->searching) {
    const std::uint32_t busy = n - peek(sched.idle_ps_count);
    if (2 * peek(sched.searching) >= busy) return nullptr;
    mp->searching = true;
    sched.searching.fetch_add(1, memory_order_seq_cst);  // [idle]
  }
  for (unsigned pass = 0; pass < kPasses; pass++) {
    StealOrder order(pp->rng, n);
    for (std::uint32_t k = 0; k < n; k++) {
      if (peek(pp->attention) & kAttendStop) return nullptr;
      P* victim = sched.ps[order.next()];
      if (victim == pp) continue;
      SCHED_POINT("steal");
      if (G* gp = steal_queued(pp, victim)) return gp;
      if (pass == kPasses - 1) {
        if (G* gp = steal_timers(pp, victim)) return gp;
        if (G* gp = steal_runnext(victim)) return gp;
      }
    }
    if (peek(sched.global_size) != 0)
      if (G* gp = take_global(pp, kRunQueueCapacity / 2)) return gp;
    for (unsigned i = 0; i < kPausesBetweenPasses; i++) arch::cpu_pause();
  }
  return nullptr;
}

}  // namespace weft::rt
