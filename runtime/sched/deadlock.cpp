// All asleep: is it a deadlock?
//
// Called by an M that is about to sleep with no timer and no descriptor pending. It is one only if no P runs, no G is in a
// blocking call, none waits for a stack or in a queue, and there are goroutines at all (or goroutine 1 has called goexit).
// In run() it is fatal if the process has no thread but the runtime's own; another thread could still call us, so then, and
// always under Runtime, it is a report, once per silence.
#include <ctime>

#include "arch/thread.hpp"
#include "runtime/base/check.hpp"
#include "runtime/sched/hibernator.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {

void (*stuck_reporter)(bool fatal_in_run, const char* headline) = nullptr;
int (*helper_threads)() = nullptr;

namespace {

std::atomic<std::uint64_t> reported_at{~std::uint64_t{0}};

std::uint64_t switches_so_far() {
  std::uint64_t n = 0;
  for (std::uint32_t i = 0; i < ps_there(); i++) n += peek(sched.ps[i]->switches);
  return n;
}

/// `live`: how many goroutines there are at the same moment.
bool all_quiet(std::uint64_t* live) {
  sched.mu.lock();
  *live = live_goroutines();
  const bool quiet = sched.state.load(memory_order_acquire) == RunState::Running &&  // [run-state]
                     !sched.stopping && peek(sched.idle_ps_count) == peek(sched.procs) && peek(sched.detached) == 0 && sched.held == 0 &&
                     peek(sched.global_size) == 0 && peek(sched.stackless_count) == 0 && !sched.starved_of_threads &&
                     sched.poller.waiting() == 0 && earliest_timer() == kNever;
  sched.mu.unlock();
  return quiet;
}

}  // namespace

void check_all_asleep() {
  const std::uint64_t switches = switches_so_far();
  std::uint64_t live = 0;
  if (!all_quiet(&live)) return;
  if (live == 0 && !(sched.in_run && sched.main_goexit)) return;
  bool fatal = false;
  if (sched.in_run && !peek(sched.panicking)) {
    join_parting();
    const int own = static_cast<int>(sched.ms_count) + (sysmon_running() ? 1 : 0) + hibernator_threads() + (helper_threads ? helper_threads() : 0);
    // A thread that has just been joined may still be listed for a moment.
    for (int tries = 0; tries < 5 && !fatal; tries++) {
      if (tries) {
        const timespec nap{0, 500'000};
        ::nanosleep(&nap, nullptr);
      }
      const int all = arch::count_process_threads();
      fatal = all >= 0 && all <= own;
    }
    // A thread may have come and gone between the looks: whoever it woke has run, and may have started another.
    if (!all_quiet(&live) || switches_so_far() != switches) return;
  }
  if (!fatal) {
    // Silence is normal for a program with threads of its own; only who asked for it is told.
    if (!sched.config->on_stuck) return;
    // Of this runtime: the next one may be as far when it falls silent.
    const std::uint64_t now = switches_so_far() ^ static_cast<std::uint64_t>(sched.started_at);
    if (reported_at.exchange(now, memory_order_relaxed) == now) return;
  }
  if (!stuck_reporter) return;
  stuck_reporter(fatal, live == 0 ? "no goroutines (main called runtime.Goexit) - deadlock!"
                                                       : "all goroutines are asleep - deadlock!");
}

}  // namespace weft::rt
