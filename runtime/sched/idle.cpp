// Idle Ms: who sleeps, who searches, who wakes whom.
//
// Protocol   A producer publishes work, then looks for an idle P and a searcher; if there is an idle P and nobody searches it
//            wakes one M as searcher. An M that goes idle gives its P back, stops counting as searcher, then looks once more
//            at everything that can hold work. One of the two always sees the other:
//
//              producer                              M going idle
//              publish work                          idle_ps_count++        (its P is idle)
//              load idle_ps_count == 0: done         searching--
//              load searching != 0: done             look at all queues  -> work: take a P again
//              else CAS searching 0 -> 1, wake       else sleep
//
//            All of these are seq_cst. The producer that finds a searcher leaves the work to it: a searcher that finds work
//            wakes the next one (stop_searching), so the chain goes on while there is surplus.
// Lone       A single readied G in an otherwise empty P will run there in a moment, when the current one parks: waking a thread
//            for it costs 4 us and is mostly in vain. So each search in vain doubles the number of such wake-ups that are
//            left out (P::lone_skip), a steal resets it, and sysmon looks after a runnext that lingers.
// Sleep      One idle M sleeps in the poller, until the earliest timer; the others on their notes. A waker hands over a P.
// Rejected   Waking on every ready: threads thrash. Dropping the last look: loses wake-ups.
// Invariants searching <= procs; an M in idle_ms holds no P and no lock; a P in idle_ps has no M.
// Locks      Sched::mu guards both lists, next_p and poller_m's hand-over.
// Orders     [idle] seq_cst as above.
//            [p-status] see core/p.hpp.
#include <unistd.h>

#include "runtime/base/check.hpp"
#include "runtime/base/log.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/turns.hpp"

namespace weft::rt {
namespace {

constexpr std::uint32_t kLoneSkipMax = 16'384;

P* pop_idle_p() {  // mu held
  P* pp = sched.idle_ps;
  if (!pp) return nullptr;
  sched.idle_ps = pp->idle_link;
  sched.idle_ps_count.fetch_sub(1, memory_order_seq_cst);  // [idle]
  pp->idle_link = nullptr;
  pp->status.store(PStatus::Running, memory_order_release);  // [p-status] reserved for whoever gets it
  return pp;
}

bool ending() { return sched.state.load(memory_order_acquire) == RunState::Ending; }  // [run-state] see lifecycle.cpp

/// The last look: is there work that a producer may have published before it could see our P idle?
bool anything_runnable() {
  if (sched.global_size.load(memory_order_seq_cst) != 0) return true;  // [idle]
  const std::uint32_t n = ps_in_use();
  for (std::uint32_t i = 0; i < n; i++)
    if (sched.ps[i]->has_local_work()) return true;
  return false;
}

// Everybody may be idle now: coarse time stands still meanwhile, and is set right on the way back.
void refresh_coarse(std::int64_t now) {
  sched.coarse_ms.store(static_cast<std::uint32_t>((now - sched.started_at) / 1'000'000), memory_order_relaxed);
}

/// Nobody has needed this M for long. False: somebody has just taken it.
bool leaves_idle_list(M* mp) {
  sched.mu.lock();
  M** at = &sched.idle_ms;
  while (*at && *at != mp) at = &(*at)->idle_link;
  const bool there = *at == mp;
  if (there) {
    *at = mp->idle_link;
    sched.idle_ms_count--;
  }
  sched.mu.unlock();
  return there;
}

/// Sleeps on the note until somebody hands over a P, or the run ends.
void sleep_on_note(M* mp) {
  mp->note.clear();
  sched.mu.lock();
  if (ending()) {
    sched.mu.unlock();
    return;
  }
  mp->idle_link = sched.idle_ms;
  sched.idle_ms = mp;
  sched.idle_ms_count++;
  const bool one_of_many = may_leave(mp);
  sched.mu.unlock();
  Asleep asleep(mp);
  if (one_of_many && !mp->note.sleep_until(arch::clock_now() + idle_m_patience) && leaves_idle_list(mp)) {
    mp->bound = Bound::Leaves;
    return;
  }
  mp->note.sleep();
  if (P* pp = std::exchange(mp->next_p, nullptr)) {
    bind_p(mp, pp);
    mp->searching = std::exchange(mp->next_searching, false);
    fit_turns(mp);
  }
}

/// Sleeps in the poller. Returns a G that became ready there, if it got a P for it.
G* sleep_in_poller(M* mp, std::int64_t until) {
  GList got;
  // Work or an earlier timer that came before poller_m could be seen: look again. [idle]
  const bool again = earliest_timer() < until || ending() ||
                     (sched.idle_ps_count.load(memory_order_seq_cst) != 0 && anything_runnable());
  {
    Asleep asleep(mp);
    sched.poller.wait(again ? 0 : until, got, true);
  }
  sched.mu.lock();
  sched.poller_m.store(nullptr, memory_order_seq_cst);  // [idle]
  P* pp = std::exchange(mp->next_p, nullptr);
  bool searching = std::exchange(mp->next_searching, false);
  if (!pp && !sched.stopping && !ending()) {
    pp = pop_idle_p();
    if (pp && !got.first) {
      searching = true;
      sched.searching.fetch_add(1, memory_order_seq_cst);  // [idle]
    }
  }
  sched.mu.unlock();
  refresh_coarse(arch::clock_now());
  for (G* gp = got.first; gp; gp = gp->link) set_status(gp, GStatus::Waiting, GStatus::Runnable);
  const unsigned n = got.count;
  if (!pp) {
    put_global_list(got, true);
    sched.poller.queued(n);
    wake_one();
    return nullptr;
  }
  bind_p(mp, pp);
  mp->searching = searching;
  fit_turns(mp);
  G* first = got.pop();
  while (G* gp = got.pop()) put_back(pp, gp);
  sched.poller.queued(n);
  if (first) {
    if (!mp->searching) {
      publish_fence(pp->ring.fence_word());  // [idle]
      wake_one();
    }
    stop_searching(mp);
  }
  return first;
}

}  // namespace

// A run that ended without this M does not get it back: not its P, not its G, not its counters.
void stay_if_abandoned(M* mp) {
  check_not_forked();
  sched.mu.lock();  // against abandon_ms()
  const bool abandoned = peek(mp->abandoned);
  sched.mu.unlock();
  while (abandoned) ::pause();
}

// ---- Ps ------------------------------------------------------------------------------------------------------------

void bind_p(M* mp, P* pp) {
  WEFT_DCHECK(!mp->p && !pp->m);
  pp->clock_switches.store(P::kUnknown, memory_order_relaxed);  // it may have been idle since
  mp->p = pp;
  pp->m = mp;
  pp->status.store(PStatus::Running, memory_order_release);  // [p-status]
  if (WEFT_UNLIKELY(sysmon_next_look() == kNever)) sysmon_wake();
}

P* unbind_p(M* mp) {
  P* pp = mp->p;
  mp->p = nullptr;
  pp->m = nullptr;
  return pp;
}

P* acquire_idle_p(M* mp) {
  sched.mu.lock();
  P* pp = sched.stopping || ending() ? nullptr : pop_idle_p();
  sched.mu.unlock();
  if (pp) bind_p(mp, pp);
  return pp;
}

void push_idle_p(P* pp) {  // mu held
  pp->status.store(PStatus::Idle, memory_order_release);  // [p-status]
  pp->idle_link = sched.idle_ps;
  sched.idle_ps = pp;
  sched.idle_ps_count.fetch_add(1, memory_order_seq_cst);  // [idle] our P is idle: producers see it from here on
}

// ---- waking --------------------------------------------------------------------------------------------------------

/// Gives `pp` to a sleeping M, or starts one. mu held on entry, released.
void give_p_locked(P* pp, bool searching, bool but_poller) {
  M** at = &sched.idle_ms;
  if (M* before = std::exchange(pp->last_m, nullptr)) {
    while (*at && *at != before) at = &(*at)->idle_link;
    if (!*at) at = &sched.idle_ms;
  }
  M* mp = *at;
  if (mp) {
    *at = mp->idle_link;
    sched.idle_ms_count--;
    mp->next_p = pp;
    mp->next_searching = searching;
    sched.mu.unlock();
    mp->note.wake();
    return;
  }
  mp = peek(sched.poller_m);
  if (mp && !mp->next_p && !but_poller) {
    mp->next_p = pp;
    mp->next_searching = searching;
    sched.mu.unlock();
    sched.poller.wake();
    return;
  }
  sched.mu.unlock();
  start_m(pp, searching);
}

void wake_one(bool but_poller) {
  SCHED_POINT("wake");
  if (sched.idle_ps_count.load(memory_order_seq_cst) == 0) return;  // [idle]
  std::uint32_t none = 0;
  if (sched.searching.load(memory_order_seq_cst) != 0 ||                    // [idle]
      !sched.searching.compare_exchange_strong(none, 1, memory_order_seq_cst))  // [idle]
    return;
  sched.mu.lock();
  P* pp = sched.stopping || ending() ? nullptr : pop_idle_p();
  if (!pp) {
    // Under the lock: a P that becomes idle after this is looked after by its own last look.
    sched.searching.fetch_sub(1, memory_order_seq_cst);  // [idle]
    sched.mu.unlock();
    return;
  }
  give_p_locked(pp, true, but_poller);
}

void wake_for_lone(P* pp) {
  if (const std::uint32_t left = peek(pp->lone_left)) {
    pp->lone_left.store(left - 1, memory_order_relaxed);
    return;
  }
  pp->lone_left.store(peek(pp->lone_skip), memory_order_relaxed);
  wake_one();
}

void stop_searching(M* mp) {
  if (!mp->searching) return;
  mp->searching = false;
  // The last searcher found work: somebody else must look for more.
  if (sched.searching.fetch_sub(1, memory_order_seq_cst) == 1) wake_one();  // [idle]
}

namespace {

/// A search in vain: the Ps that asked for it should ask less often.
void count_vain_search() {
  const std::uint32_t n = ps_in_use();
  for (std::uint32_t i = 0; i < n; i++) {
    P* pp = sched.ps[i];
    if (pp->status.load(memory_order_acquire) != PStatus::Running) continue;  // [p-status]
    const std::uint32_t skip = peek(pp->lone_skip) * 2 + 1;
    pp->lone_skip.store(skip < kLoneSkipMax ? skip : kLoneSkipMax, memory_order_relaxed);
  }
}

}  // namespace

// ---- going to sleep ------------------------------------------------------------------------------------------------

G* sleep_until_work(M* mp) {
  P* pp = mp->p;
  if (pp && mp->chosen) put_back(pp, std::exchange(mp->chosen, nullptr));
  log_flush();
  sched.mu.lock();
  if (pp) {
    if (sched.stopping && (peek(pp->attention) & kAttendStop)) {
      unbind_p(mp);
      pp->last_m = mp;
      pp->status.store(PStatus::Stopped, memory_order_release);  // [p-status]
      pp->attention.fetch_and(~static_cast<std::uint32_t>(kAttendStop), memory_order_relaxed);
      if (--sched.stop_wait == 0) sched.stop_note.wake();
    } else if (!ending() && peek(sched.global_size) != 0) {
      sched.mu.unlock();
      return take_global(pp, kRunQueueCapacity / 2);
    } else {
      unbind_p(mp);
      push_idle_p(pp);
    }
  }
  sched.mu.unlock();
  if (mp->searching) {
    mp->searching = false;
    sched.searching.fetch_sub(1, memory_order_seq_cst);  // [idle]
    count_vain_search();
  }
  if (ending()) return nullptr;
  __atomic_store_n(&mp->from, nullptr, __ATOMIC_RELAXED);  // its context is saved: the hibernator may have it
  SCHED_POINT("last look");
  if (anything_runnable() && (pp = acquire_idle_p(mp))) {
    mp->searching = true;
    sched.searching.fetch_add(1, memory_order_seq_cst);  // [idle]
    return nullptr;
  }
  const std::int64_t until = earliest_timer();
  if (sched.idle_ps_count.load(memory_order_seq_cst) == 0) {  // [idle]
    // Every P has an M: timers and descriptors are theirs, and sysmon's. Without a P we could run nothing.
  } else if (until != kNever || sched.poller.waiting() != 0) {
    if (sched.poller.ok()) {
      sched.mu.lock();
      const bool free = !peek(sched.poller_m) && !ending();
      if (free) {
        sched.poller_until.store(until, memory_order_seq_cst);  // [idle]
        sched.poller_m.store(mp, memory_order_seq_cst);         // [idle]
      }
      sched.mu.unlock();
      if (free) return sleep_in_poller(mp, until);
      // Somebody sleeps there already: does it sleep too long for a timer of ours?
      if (until < sched.poller_until.load(memory_order_seq_cst)) sched.poller.wake();  // [idle]
    } else if (until != kNever) {
      // No poller: sysmon keeps the time. It looks at every due timer while it is awake.
      if (until < sysmon_next_look()) sysmon_wake();
    }
  } else {
    check_all_asleep();
  }
  sleep_on_note(mp);
  return nullptr;
}

}  // namespace weft::rt
