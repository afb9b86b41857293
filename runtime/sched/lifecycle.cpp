// Start and end of the machine.
//
// Start      boot: Ps, poller, sysmon. An M is the caller of run(), or the first thread under Runtime; more start as work comes.
// End        begin_ending() says Ending and asks every P to stop; each M that comes to its loop leaves it and its thread ends.
//            An M in the kernel parks for ever when it comes back (`abandoned`); one in user code is the caller's decision.
// Unwinding  stop() wins the wait of every parked G with Outcome::Stop, the world stopped: an exclusive node is taken out of
//            its queue under that queue's lock, a racy one is won like by anybody. The G then throws from its wait.
// After      Gs that are still parked when run() ends are dropped without a statement of theirs: their nodes leave all queues
//            first, then their stacks go.
// Orders     [run-state] release by whoever changes it, acquire by readers: they see what was set up or given up before.
//            [m-gone] release by an M that leaves, acquire by who waits for it.
//            [idle] see idle.cpp. [p-status], [runnext] see core/p.hpp. [status] see core/g.hpp.
#include "runtime/sched/lifecycle.hpp"

#include <weft/detail/value.hpp>

#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <new>
#include <random>
#include <utility>

#include "arch/barrier.hpp"
#include "arch/signal.hpp"
#include "arch/thread.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/knobs.hpp"
#include "runtime/base/log.hpp"
#include "runtime/core/hibernate.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/core/segments.hpp"
#include "runtime/sched/cancel.hpp"
#include "runtime/sched/freeze.hpp"
#include "runtime/sched/hibernator.hpp"
#include "runtime/sched/procs.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/turns.hpp"

namespace weft::rt {

std::atomic<void (*)()> end_watch{nullptr};

// ---- boot ----------------------------------------------------------------------------------------------------------

bool make_p() {
  if (ps_there() >= kProcsMax) return false;
  auto* pp = new (std::nothrow) P;
  if (!pp) return false;
  pp->id = ps_there();
  pp->rng.seed(sched.seed + 0x9e3779b97f4a7c15ULL * (pp->id + 1));
  pp->stacks.cls = sched.default_stack_cls;
  pp->status.store(PStatus::Stopped, memory_order_relaxed);
  sched.ps[pp->id] = pp;
  sched.ps_made.store(pp->id + 1, memory_order_release);  // [procs]
  return true;
}

void retire_p(P* pp) {
  GList all;
  while (G* gp = pp->ring.pop(false)) all.push(gp);
  while (G* gp = pp->fresh.pop(false)) all.push(gp);
  if (G* gp = pp->runnext.exchange(nullptr, memory_order_acq_rel)) all.push(gp);  // [runnext]
  put_global_list(all);
  pp->timers.drain_to(sched.ps[0]->timers);
  stack_flush(&pp->stacks, pp->stacks.cls);
  g_table_give(pp->free_gs, std::exchange(pp->free_count, 0u));
  pp->status.store(PStatus::Retired, memory_order_release);  // [p-status]
}

std::error_code sched_boot(const Config& config, bool in_run) {
  sched.config = new Config(config);
  sched.in_run = in_run;
  sched.takes_quit = in_run && caller_takes_quit();
  sched.seed = config.seed ? config.seed : (std::uint64_t{std::random_device{}()} << 32 | std::random_device{}());
  sched.started_at = arch::clock_now();
  sched.coarse_ms.store(0, memory_order_relaxed);
  sched.default_stack_cls = stack_class(config.stack_bytes);
  run_slots_start(debug_has(config, "copytraps"));
  sched.main_g = nullptr;
  sched.main_goexit = false;
  sched.main_result = 0;
  sched.thread_warned.store(false, memory_order_relaxed);
  sched.starved_of_threads = false;
  sched.detached.store(0, memory_order_relaxed);
  sched.overrun.store(0, memory_order_relaxed);
  arch::probe_context_layout();
  if (!stacks_start(static_cast<GuardKind>(config.guard), config.stacks_bytes_max)) return Errc::refused;
  const int want = procs_at_boot(config);
  sched.ps_made.store(0, memory_order_relaxed);
  while (ps_there() < static_cast<std::uint32_t>(want) && make_p()) {
  }
  if (ps_there() == 0) {
    stacks_stop();
    return Errc::refused;
  }
  sched.procs.store(ps_there(), memory_order_release);  // [procs]
  if (!sched.poller.start()) log_warn("no poller (errno %d): waiting for descriptors will fail, sleeps are sysmon's", errno);
  sched.mu.lock();
  for (std::uint32_t i = ps_there(); i-- > 0;) {
    sched.ps[i]->solo = ps_there() == 1;
    push_idle_p(sched.ps[i]);
  }
  sched.mu.unlock();
  if (!in_run && !host_loop_start()) return Errc::refused;
  hibernator_boot(config, in_run);  // knows the guards by now
  reset_gate();
  sched.to_come.store(0, memory_order_relaxed);
  preempt_start(config);
  turns_start(!debug_has(config, "sameturns"));
  cancel_by_barrier = arch::barrier_start();
  fork_prepare();
  sched.state.store(RunState::Running, memory_order_release);  // [run-state]
  sysmon_start();
  return {};
}

bool sched_first_m() {
  sched.mu.lock();
  P* pp = sched.idle_ps;
  sched.idle_ps = pp->idle_link;
  sched.idle_ps_count.fetch_sub(1, memory_order_seq_cst);  // [idle]
  pp->status.store(PStatus::Running, memory_order_release);  // [p-status]
  sched.mu.unlock();
  return start_m(pp, false);
}

// ---- ending --------------------------------------------------------------------------------------------------------

void begin_ending() {
  sched.mu.lock();
  sched.state.store(RunState::Ending, memory_order_release);  // [run-state]
  for (std::uint32_t i = 0; i < ps_there(); i++) {
    P* pp = sched.ps[i];
    pp->attention.fetch_or(kAttendStop, memory_order_relaxed);
    ask_running(pp);
  }
  sched.idle_ms = nullptr;
  sched.idle_ms_count = 0;
  // The idle ones, and those that wait for the goroutine that they are locked to. Those that run clear their note before they sleep.
  for (M* mp = sched.all_ms; mp; mp = mp->all_link) mp->note.wake();
  sched.mu.unlock();
  sched.poller.wake();
}

namespace {

/// What an M does that has not left although the run has ended.
enum class Lingers : std::uint8_t { OnItsWay, InKernel, InUserCode };

Lingers lingering(const G* gp) {
  if (!gp) return Lingers::OnItsWay;  // starting, or about to find the end in its loop
  return gp->status.load(memory_order_acquire) == GStatus::Syscall ? Lingers::InKernel : Lingers::InUserCode;  // [status]
}

/// On a busy machine a thread may get no CPU for longer than anybody's patience: it is late, not stuck.
bool starved_of_cpu(M* mp) {
  constexpr long long kFairShare = 20'000'000;
  if (!mp->tid || !arch::thread_is_runnable(mp->tid)) return false;
  const long long used = arch::thread_cpu_ns(mp->thread);
  if (mp->cpu_at_end < 0) mp->cpu_at_end = used;
  return used >= 0 && used - mp->cpu_at_end < kFairShare;
}

}  // namespace

bool main_lingers() {
  bool stuck = false;
  sched.mu.lock();
  for (M* mp = sched.all_ms; mp; mp = mp->all_link)
    if (mp->is_main && lingering(running_on(mp)) != Lingers::OnItsWay && !starved_of_cpu(mp)) stuck = true;
  sched.mu.unlock();
  return stuck;
}

bool wait_for_ms(std::int64_t patience_ns) {
  constexpr std::int64_t kKernelPatience = 1'000'000;
  const std::int64_t began = arch::clock_now();
  M* self = current_m();
  for (;;) {
    bool any = false, user_code = false, on_its_way = false;
    const bool late = arch::clock_now() - began >= patience_ns;
    sched.mu.lock();
    for (M* mp = sched.all_ms; mp; mp = mp->all_link) {
      if (mp == self || mp->gone.load(memory_order_acquire) || peek(mp->abandoned)) continue;  // [m-gone]
      any = true;
      G* gp = running_on(mp);
      const Lingers how = lingering(gp);
      if (how == Lingers::OnItsWay) {
        on_its_way = true;
      } else if (how == Lingers::InUserCode) {
        gp->preempt.store(1, memory_order_relaxed);
        if (mp->cpu_at_end < 0) mp->cpu_at_end = arch::thread_cpu_ns(mp->thread);
        // One without a fair chance counts as on its way.
        if (late && starved_of_cpu(mp))
          on_its_way = true;
        else
          user_code = true;
      }
      if (P* pp = mp->p) pp->attention.fetch_or(kAttendStop, memory_order_relaxed);
    }
    sched.mu.unlock();
    if (!any) return true;
    if (late && user_code && !on_its_way) return false;
    // Those that are only in the kernel get no more than a first chance to come back.
    if (!user_code && !on_its_way && arch::clock_now() - began >= kKernelPatience) {
      abandon_ms();
      return true;
    }
    timespec nap{0, 50'000};
    ::nanosleep(&nap, nullptr);
  }
}

void abandon_ms() {
  M* self = current_m();
  sched.mu.lock();
  for (M* mp = sched.all_ms; mp; mp = mp->all_link)
    if (mp != self && !mp->gone.load(memory_order_acquire)) {  // [m-gone]
      mp->abandoned.store(true, memory_order_relaxed);
      if (G* gp = running_on(mp)) gp->preempt.store(1, memory_order_relaxed);
    }
  // One that comes back from its call must not find its P waiting for it.
  for (std::uint32_t i = 0; i < ps_there(); i++) {
    PStatus in_call = PStatus::Syscall;
    sched.ps[i]->status.compare_exchange_strong(in_call, PStatus::Stopped, memory_order_acq_rel, memory_order_relaxed);  // [p-status]
  }
  sched.mu.unlock();
}

namespace {

/// The lock that guards a queued node, taken. A plain thread may just be moving the node to another queue.
SpinLock* lock_of(const WaitNode* n) {
  for (;;) {
    SpinLock* lock = n->lock;
    lock->lock();
    if (n->lock == lock) return lock;
    lock->unlock();
  }
}

/// Wins a parked G's wait, if nobody has. World stopped.
bool win_for_stop(G* gp) {
  Waiter& w = gp->waiter;
  if (w.outcome() != Outcome::Pending) return false;
  const std::uint64_t ticket = peek(w.word) >> Waiter::kOutcomeBits;
  if (gp->select_ || !w.node.lock || w.node.racy) return w.try_win(ticket, Outcome::Stop);
  SpinLock* lock = lock_of(&w.node);
  const bool ours = w.node.queue != nullptr;
  if (ours) {
    w.node.queue->remove(&w.node);
    w.set(ticket, Outcome::Stop);
  }
  lock->unlock();
  return ours;
}

GoroutineInfo info_of(const G* gp) {
  GoroutineInfo i;
  i.id = gp->id;
  if (gp->extra) i.name = gp->extra->spawn.name;
  const GStatus s = gp->status.load(memory_order_acquire);  // [status]
  i.reason = s == GStatus::Waiting ? wait_reason_text(gp->reason) : status_text(s);
  return i;
}

}  // namespace

void unwind_parked(std::vector<GoroutineInfo>& woken) {
  struct Found {
    GList list;
    std::vector<GoroutineInfo>* woken;
  } found{{}, &woken};
  const bool stopped = stop_world(100'000'000);
  if (!stopped) return;
  g_table_each(
      [](G* gp, void* arg) {
        auto* f = static_cast<Found*>(arg);
        if (gp->status.load(memory_order_acquire) != GStatus::Waiting || gp->unwinding != Unwinding::No) return;  // [status]
        // The end of a scope or task waits for others that are unwound, and must not be left before they are.
        if (gp->reason == WaitReason::ScopeEnd) return;
        GoroutineInfo info = info_of(gp);
        if (!win_for_stop(gp)) return;
        f->woken->push_back(std::move(info));
        f->list.push(gp);
      },
      &found);
  for (G* gp = found.list.first; gp; gp = gp->link) set_status(gp, GStatus::Waiting, GStatus::Runnable);
  put_global_list(found.list);
  start_world();
}

std::vector<GoroutineInfo> list_alive() {
  std::vector<GoroutineInfo> all;
  g_table_each(
      [](G* gp, void* arg) {
        // Id 0: abandoned by an earlier run.
        if (gp->status.load(memory_order_acquire) != GStatus::Dead && gp->id != 0)  // [status]
          static_cast<std::vector<GoroutineInfo>*>(arg)->push_back(info_of(gp));
      },
      &all);
  return all;
}

// ---- taking down ---------------------------------------------------------------------------------------------------

namespace {

/// Nothing points at this G any more: no queue, no heap.
void detach_g(G* gp, void*) {
  if (gp->status.load(memory_order_acquire) != GStatus::Waiting) return;  // [status]
  timer_remove(&gp->timer);
  auto unlink = [](WaitNode* n) {
    if (!n->lock) return;
    SpinLock* lock = lock_of(n);
    if (n->queue) n->queue->remove(n);
    lock->unlock();
  };
  // A select does not use the waiter's own node; a plain wait that may be cancelled uses both.
  for (unsigned i = 0; i < gp->nodes_count; i++) unlink(&gp->nodes[i]);
  unlink(&gp->waiter.node);
}

void drop_g_at_end(G* gp, void*) {
  const GStatus s = gp->status.load(memory_order_acquire);  // [status]
  if (s == GStatus::Running || s == GStatus::Syscall) {
    gp->id = 0;  // abandoned: its id may come again, its descriptor not
    return;
  }
  if (s != GStatus::Dead) {
    // One that never ran still owns its closure.
    const bool never_ran = !gp->ctx;
    if (never_ran && gp->ops) gp->ops->destroy(gp->closure);
    if (void* c = std::exchange(gp->closure, nullptr); (never_ran || gp->ops) && c && c != gp->inline_closure)
      weft::detail::value_free(c, gp->closure_align());
    gp->status.store(GStatus::Dead, memory_order_relaxed);
  }
  if (gp->stack) {
    NotFrozen alone;  // an own mapping is gone after this
    if (is_segmented(gp) && gp->ctx) end_segments(gp);
    if (StackSlot* s = std::exchange(gp->stack, nullptr); !is_copyable(gp)) stack_release(nullptr, s);
  }
  delete std::exchange(gp->extra, nullptr);
  delete[] std::exchange(gp->nodes, nullptr);
  gp->nodes_log = 0;
}

}  // namespace

void sched_shutdown() {
  sysmon_stop();
  hibernator_stop();
  bool abandoned = false;
  for (const M* mp = sched.all_ms; mp; mp = mp->all_link)
    if (!peek(mp->abandoned) && !mp->is_main) pthread_join(mp->thread, nullptr);
  for (M** at = &sched.all_ms; *at;) {
    NotFrozen alone;
    M* mp = *at;
    *at = mp->all_link;
    if (peek(mp->abandoned)) {
      // Its thread, its G and its Ps stay as they are, for ever.
      abandoned = true;
      if (!mp->is_main) pthread_detach(mp->thread);
    } else {
      delete mp;
    }
  }
  host_loop_stop();
  free_spare_ms();
  preempt_stop();
  g_table_each(detach_g, nullptr);
  // Whoever took a G out of a queue before that is about to wake it.
  while (sched.outsiders.load(memory_order_acquire) != 0) ::sched_yield();  // [run-state]
  g_table_each(drop_g_at_end, nullptr);
  for (std::uint32_t i = 0; i < ps_there(); i++) {
    stack_flush(&sched.ps[i]->stacks, sched.ps[i]->stacks.cls);
    // Timers that are still armed are forgotten; their owners find them disarmed.
    sched.ps[i]->timers.forget_all();
    if (!abandoned) delete sched.ps[i];
    sched.ps[i] = nullptr;
  }
  faults_stop();
  {
    NotFrozen alone;
    run_slots_stop();
    stacks_stop();
    g_table_reset(abandoned);
  }
  sched.poller.stop();
  sched.ps_made.store(0, memory_order_relaxed);
  sched.procs.store(0, memory_order_relaxed);
  sched.idle_ps = nullptr;
  sched.idle_ms = nullptr;
  sched.all_ms = nullptr;
  sched.idle_ms_count = sched.next_m_id = 0;
  sched.ms_count = 0;
  sched.idle_ps_count.store(0, memory_order_relaxed);
  sched.searching.store(0, memory_order_relaxed);
  sched.global.free_all();
  sched.global_size.store(0, memory_order_relaxed);
  sched.held = 0;
  sched.held_first = nullptr;
  sched.stackless = {};
  sched.stackless_count.store(0, memory_order_relaxed);
  sched.stackless_since = 0;
  memory_short.store(false, memory_order_relaxed);
  sched.settlers.store(0, memory_order_relaxed);
  sched.outside_created.store(0, memory_order_relaxed);
  sched.poller_m.store(nullptr, memory_order_relaxed);
  delete std::exchange(sched.config, nullptr);
  sched.state.store(RunState::Off, memory_order_release);  // [run-state]
}

}  // namespace weft::rt
