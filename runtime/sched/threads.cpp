// Ms: how threads of the runtime start, leave and are used again.
//
// Start      when a P has work and no M sleeps. From a thread in a clean state only: one that is locked to a goroutine, or is not the
//            runtime's, may have changed what a new thread inherits (affinity, namespaces, capabilities); sysmon starts it then.
//            A refused thread is no error: the P is idle with its queue, where thieves find it, and sysmon tries again.
// Leave      An M that has slept for seconds while more than `procs` others sleep ends (Go keeps its threads for ever); so does one
//            whose locked goroutine has ended, since nobody knows what state that left it in. The next one to leave joins it.
// Again      M objects are never freed while a runtime runs: sysmon follows P::m without a lock.
// Orders     [m-gone] release by an M that leaves, acquire by who waits for it.
//            [idle] see idle.cpp. [p-status] see core/p.hpp. [run-state] see lifecycle.cpp.
#include <signal.h>

#include <cstdio>
#include <new>
#include <utility>

#include "arch/interrupt.hpp"
#include "arch/signal.hpp"
#include "arch/thread.hpp"
#include "arch/tls_block.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/collector.hpp"
#include "runtime/base/log.hpp"
#include "runtime/sched/freeze.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/turns.hpp"

namespace weft::rt {
namespace {

// Signals are the host's business: an M takes only those that its own instructions raise, the preemption signal and, if
// run() answers it, SIGQUIT: else a goroutine that raises it would wait for ever.
void block_signals() {
  sigset_t set;
  sigfillset(&set);
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGURG, SIGPROF}) sigdelset(&set, s);
  if (sched.takes_quit) sigdelset(&set, SIGQUIT);
  pthread_sigmask(SIG_SETMASK, &set, nullptr);
}

gc::ThreadView view_of(const M* mp) {
  std::uintptr_t lo, hi;
  arch::signal_stack_range(mp->signal_stack, &lo, &hi);
  return {static_cast<int>(mp->id), mp->stack_lo, mp->stack_hi, reinterpret_cast<void*>(lo), reinterpret_cast<void*>(hi)};
}

/// Before it counts for a freeze: the collector may let it wait for one to end.
WEFT_COLD void tell_collector_began(M* mp) {
  if (!arch::own_thread_stack(&mp->stack_lo, &mp->stack_hi)) log_warn("a thread's stack is not known: a collector may miss what lies there");
  if (arch::is_first_thread() && arch::probe_tls_block()) {
    const arch::TlsBlock tls = arch::tls_block();
    mp->tls_lo = tls.lo;
    mp->tls_hi = tls.hi;
  }
  if (collector.thread_began) collector.thread_began(view_of(mp));
}

void set_up_m(M* mp) {
  mp->g0.system = true;
  mp->g0.started = kStarted;
  mp->g0.status.store(GStatus::Running, memory_order_relaxed);
  mp->curg = &mp->g0;
  mp->eh = arch::thread_eh_globals();
  mp->tid = arch::thread_id();
  arch::san_adopt_thread(mp->g0.san);
  mp->signal_stack = arch::install_signal_stack();
  arch::set_current_m(mp);
  mp->stack_lo = nullptr;
  mp->stack_hi = __builtin_frame_address(0);
  mp->tls_lo = mp->tls_hi = 0;
  if (collector_attached) tell_collector_began(mp);
  Asleep until_thawed(mp);
}

void take_down_m(M* mp) {
  never_freeze(mp);
  if (collector.thread_ends) collector.thread_ends(view_of(mp));
  arch::set_current_m(nullptr);
  arch::remove_signal_stack(mp->signal_stack);
}

/// mu held.
void unlist_m(M* mp) {
  for (M** at = &sched.all_ms; *at; at = &(*at)->all_link)
    if (*at == mp) {
      *at = mp->all_link;
      break;
    }
  sched.ms_count--;
}

void make_like_new(M* mp) {
  mp->from = nullptr;
  mp->commit = Commit::None;
  mp->searching = mp->next_searching = mp->leaves = false;
  mp->chosen = nullptr;
  mp->idle_link = nullptr;
  mp->next_p = mp->old_p = nullptr;
  mp->call_depth = 0;
  mp->tid = 0;
  mp->turns = Turns::Usual;
  mp->cpu_at_end = -1;
  mp->bound = Bound::No;
  mp->locked_g = nullptr;
  mp->freeze_asked.store(0, memory_order_relaxed);
  mp->suspended.store(0, memory_order_relaxed);
  mp->asked_to_let_go.store(false, memory_order_relaxed);
  mp->gone.store(false, memory_order_relaxed);
  mp->note.clear();
}

M* new_m(bool is_main, bool counts = true) {
  sched.mu.lock();
  M* mp = sched.spare_ms;
  if (mp) sched.spare_ms = mp->all_link;
  sched.mu.unlock();
  if (mp)
    make_like_new(mp);
  else if (!(mp = new (std::nothrow) M))
    return nullptr;
  mp->is_main = is_main;
  sched.mu.lock();
  mp->id = sched.next_m_id++;
  mp->all_link = sched.all_ms;
  sched.all_ms = mp;
  if (counts) sched.ms_count++;
  sched.mu.unlock();
  mp->rng.seed(sched.seed + 0x51ed270b * (mp->id + 1));
  return mp;
}

/// No thread belongs to it (any more).
void set_aside(M* mp) {
  sched.mu.lock();
  mp->all_link = sched.spare_ms;
  sched.spare_ms = mp;
  sched.mu.unlock();
}

void forget_m(M* mp) {
  sched.mu.lock();
  unlist_m(mp);
  sched.mu.unlock();
  set_aside(mp);
}

/// The thread ends although the run goes on.
void part(M* mp) {
  sched.mu.lock();
  unlist_m(mp);
  M* before = std::exchange(sched.parting, mp);
  sched.mu.unlock();
  if (before) {
    pthread_join(before->thread, nullptr);
    set_aside(before);
  }
}

void* m_main(void* arg) {
  M* mp = static_cast<M*>(arg);
  char name[16];
  std::snprintf(name, sizeof name, "weft-m%u", mp->id);
  arch::name_this_thread(name);
  block_signals();
  set_up_m(mp);
  if (P* pp = std::exchange(mp->next_p, nullptr)) {
    bind_p(mp, pp);
    mp->searching = std::exchange(mp->next_searching, false);
    fit_turns(mp);
  }
  schedule(mp);
  const bool parts = mp->bound == Bound::Leaves;
  take_down_m(mp);
  mp->gone.store(true, memory_order_release);  // [m-gone]
  if (parts) part(mp);
  return nullptr;
}

/// Whoever starts a thread hands its state on. Without sysmon there is nobody else to do it.
bool in_a_clean_state() {
  if (!sysmon_running() && !sysmon_start()) return true;
  const M* mp = current_m();
  return mp ? mp->bound == Bound::No : on_sysmon() || sched.ms_count == 0;
}

}  // namespace

std::int64_t idle_m_patience = 5'000'000'000;

bool caller_takes_quit() {
  sigset_t now;
  return pthread_sigmask(SIG_BLOCK, nullptr, &now) == 0 && !sigismember(&now, SIGQUIT);
}

bool start_m(P* pp, bool searching) {
  bool at_limit = false;
  if (sched.ms_count >= static_cast<std::uint32_t>(sched.config->threads_max)) {
    at_limit = true;
    if (sched.in_run) {
      log_flush();
      fatalf("thread exhaustion\nruntime: program exceeds %d-thread limit", sched.config->threads_max);
    }
  }
  const bool here = in_a_clean_state();
  M* mp = at_limit || !here ? nullptr : new_m(false);
  int err = EAGAIN;
  if (mp) {
    mp->next_p = pp;
    mp->next_searching = searching;
    err = arch::start_thread(&mp->thread, m_main, mp);
    if (err == 0) return true;
    forget_m(mp);
  }
  // Nothing is lost: the P keeps its queue, where thieves find it, and sysmon tries again.
  sched.mu.lock();
  if (sched.stopping) {
    pp->status.store(PStatus::Stopped, memory_order_release);  // [p-status]
    pp->attention.fetch_and(~static_cast<std::uint32_t>(kAttendStop), memory_order_relaxed);
    if (--sched.stop_wait == 0) sched.stop_note.wake();
  } else {
    push_idle_p(pp);
  }
  if (searching) sched.searching.fetch_sub(1, memory_order_seq_cst);  // [idle]
  sched.starved_of_threads = true;
  const bool warn = here && !sched.thread_warned.exchange(true, memory_order_relaxed);
  sched.mu.unlock();
  if (warn) log_warn("cannot start a thread (error %d); going on with fewer, trying again", err);
  if (!here || sysmon_next_look() > arch::clock_now() + 20'000'000) sysmon_wake();
  return false;
}

M* enter_as_m() {
  M* mp = new_m(true);
  if (!mp) fatalf("out of memory: no room for the first M");
  mp->thread = pthread_self();
  mp->urgent_was_blocked = arch::interrupts_unblock();
  set_up_m(mp);
  acquire_idle_p(mp);
  return mp;
}

void leave_as_m(M* mp) {
  take_down_m(mp);
  take_usual_turns(mp);
  arch::interrupts_block_again(mp->urgent_was_blocked);
  mp->gone.store(true, memory_order_release);  // [m-gone]
}

M* new_host_m() {
  M* mp = new_m(true, false);
  if (mp) mp->gone.store(true, memory_order_relaxed);  // nobody waits for it at the end of the run
  return mp;
}

void enter_host_m(M* mp) {
  mp->thread = pthread_self();
  mp->urgent_was_blocked = arch::interrupts_unblock();
  set_up_m(mp);
}

void leave_host_m(M* mp) { leave_as_m(mp); }

void join_parting() {
  sched.mu.lock();
  M* mp = std::exchange(sched.parting, nullptr);
  sched.mu.unlock();
  if (!mp) return;
  pthread_join(mp->thread, nullptr);
  set_aside(mp);
}

bool may_leave(const M* mp) { return !mp->is_main && sched.idle_ms_count > peek(sched.procs); }

void free_spare_ms() {
  join_parting();
  while (M* mp = sched.spare_ms) {
    NotFrozen alone;
    sched.spare_ms = mp->all_link;
    delete mp;
  }
}

}  // namespace weft::rt
