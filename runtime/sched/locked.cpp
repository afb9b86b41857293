// Goroutines that are locked to their thread.
//
// Protocol   A locked G is special (GStart), as one on a copyable or segmented stack is, and one whose stack is hibernated: only g0 starts it, and whoever finds it in a queue on another M gives that M's P to its
//            owner, which sleeps on its note meanwhile and runs nobody else:
//
//              finder (execute)                   owner (only_locked)
//              owner->next_p = its own P          gives its P back
//              owner->note.wake()                 sleeps on its note
//              looks for a P and work again       takes next_p, runs the G
//
//            There is one finder per time that the G becomes runnable, so one wake per sleep; the note is cleared when the lock is
//            taken and after each sleep.
// Ends       A G that ends while locked takes the thread with it: nobody knows in what state it is. run()'s caller only waits for
//            the end of the run.
// Orders     [run-state] see lifecycle.cpp.
#include <new>
#include <utility>

#include "runtime/base/check.hpp"
#include "runtime/core/hibernate.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/core/segments.hpp"
#include "runtime/sched/switch.hpp"

namespace weft::rt {
namespace {

constexpr std::int64_t kRetry = 10'000'000;

bool ending() { return sched.state.load(memory_order_acquire) == RunState::Ending; }  // [run-state]

/// Until somebody wakes this M. The kernel may have refused all threads, sysmon's too: then nobody but us can try again.
void sleep_for_turn(M* mp) {
  Asleep asleep(mp);
  while (!sysmon_running() && !mp->note.sleep_until(arch::clock_now() + kRetry)) sysmon_start();
  mp->note.sleep();
  mp->note.clear();
}

void give_back_p(M* mp) {
  P* pp = mp->p;
  if (!pp) return;
  if (mp->chosen) put_back(pp, std::exchange(mp->chosen, nullptr));
  handoff_p(unbind_p(mp));
}

}  // namespace

G* only_locked(M* mp) {
  for (;;) {
    if (mp->bound == Bound::Leaves) {
      give_back_p(mp);
      if (!mp->is_main) return nullptr;
      while (!ending()) {
        Asleep asleep(mp);
        mp->note.sleep();
        mp->note.clear();
      }
      return nullptr;
    }
    give_back_p(mp);
    if (ending()) return nullptr;
    // With this P given back everybody may be asleep, and nobody else about to look.
    if (sched.idle_ps_count.load(memory_order_seq_cst) == peek(sched.procs)) check_all_asleep();  // [idle] see idle.cpp
    sleep_for_turn(mp);
    if (ending()) return nullptr;
    P* pp = std::exchange(mp->next_p, nullptr);
    if (!pp) continue;
    bind_p(mp, pp);
    G* gp = mp->locked_g;
    if (!(peek(pp->attention) & kAttendStop)) return gp;
    put_global(gp, true);  // after the stop
  }
}

bool start_special(M* mp, G* gp) {
  if (put_aside_if_held(gp)) return false;
  M* owner = gp->extra ? gp->extra->locked_m : nullptr;
  if (is_copyable(gp) && (!owner || owner == mp)) return enter_run_slot(mp, gp);
  if constexpr (arch::kSegmented)
    if (is_segmented(gp) && (!owner || owner == mp)) return enter_segments(mp, gp);
  if (!owner) {  // its stack was hibernated, or it has been held
    bring_back(gp->stack);
    gp->started = kStarted;
    return true;
  }
  if (owner == mp) {
    if (gp->ctx) return true;
    if (!bind_stack(mp->p, gp)) {
      wait_for_stack(gp);
      return false;
    }
    gp->started = kSpecial;
    return true;
  }
  if (owner == sched.host_m) {
    give_to_host(mp, gp);
    return false;
  }
  owner->next_p = unbind_p(mp);
  owner->note.wake();
  return false;
}

void end_locked(M* mp, G* gp) {
  if (mp == sched.host_m) return;
  gp->extra->locks = 0;
  mp->locked_g = nullptr;
  mp->bound = Bound::Leaves;
}

}  // namespace weft::rt

namespace weft {

using namespace rt;

void lock_os_thread() {
  Inside inside;
  G* gp = current_g();
  if (!gp) return;
  M* mp = current_m();
  if (!gp->extra) gp->extra = new GExtra{};
  if (gp->extra->locks++ > 0) return;  // locked already, or pinned to the host's thread
  gp->extra->locked_m = mp;
  gp->started = kSpecial;
  mp->note.clear();
  mp->locked_g = gp;
  mp->bound = Bound::Locked;
}

void unlock_os_thread() {
  Inside inside;
  G* gp = current_g();
  if (!gp || !gp->extra || gp->extra->locks == 0 || (gp->extra->locks == 1 && gp->extra->spawn.main_thread) ||
      --gp->extra->locks > 0)
    return;
  M* mp = current_m();
  gp->extra->locked_m = nullptr;
  if (!is_copyable(gp) && !is_segmented(gp)) gp->started = kStarted;
  mp->locked_g = nullptr;
  mp->bound = Bound::No;
}

}  // namespace weft
