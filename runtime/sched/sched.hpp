// The scheduler: its one object, and the closed set of verbs.
//
// Reading order: loop.cpp (what an M does), park.cpp (how a G stops and goes on), spawn.cpp (birth and death), steal.cpp,
// idle.cpp (who sleeps, who searches, who wakes whom), handoff.cpp (blocking calls), sysmon.cpp, world.cpp (stopping all of
// it), procs.cpp (how many Ps), lifecycle.cpp (start and end), deadlock.cpp.
//
// Orders     [run-state] Sched::state: release by whoever changes it, acquire by readers: they see what was set up or given up.
//            [idle] see idle.cpp. [depth] see preempt.cpp.
//            [safepoint] seq_cst: whoever asks counts (to_come), then sets `preempt`; who clears `preempt` looks at the count
//            afterwards. One of the two sees the other.
//            [procs] release by who makes a P or takes it into use, acquire by those whom the stop of the world does not stop
//            (sysmon, Ms without a P, plain threads): what is counted is there.
//
// A G is parked and readied; an M searches, sleeps, is woken; a P is acquired, released, handed off.
#pragma once

#include <weft/runtime.hpp>

#include <cstdint>

#include "arch/clock.hpp"
#include "arch/registers.hpp"
#include "arch/tls.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/lock.hpp"
#include "runtime/base/log.hpp"
#include "runtime/base/note.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/core/g.hpp"
#include "runtime/core/global_queue.hpp"
#include "runtime/core/m.hpp"
#include "runtime/core/p.hpp"
#include "runtime/core/poller.hpp"

namespace weft::rt {

inline constexpr std::uint32_t kProcsMax = 1024;

enum class RunState : std::uint8_t {
  Off,
  Running,
  Unwinding,  // stop(): parked Gs are being unwound; whoever parks now is unwound too
  Ending,     // no G runs user code any more; Ms leave
};

struct Sched {
  // --- read often, written rarely ---
  std::atomic<RunState> state{RunState::Off};
  std::atomic<std::uint32_t> procs{0};  // of `ps`, those in use
  P* ps[kProcsMax] = {};
  std::atomic<std::uint32_t> ps_made{0};
  bool in_run = false;  // run(), else Runtime
  bool forked = false;      // this is a child: its runtime is a corpse (fork.cpp)
  bool takes_quit = false;  // SIGQUIT reaches the Ms: under run(), unless its caller blocks it
  std::atomic<std::uint32_t> coarse_ms{0};  // since start; written by sysmon and idle Ms
  std::int64_t started_at = 0;
  std::uint64_t seed = 0;
  std::uint8_t default_stack_cls = 2;
  bool hibernates = false;  // who does not say otherwise
  bool hibernates_safely = false;  // the kernel's own accesses are served, too
  Config* config = nullptr;  // of the run under way

  // --- [idle] ---
  alignas(arch::kCacheLine) std::atomic<std::uint32_t> searching{0};
  std::atomic<std::uint32_t> idle_ps_count{0};

  // --- under mu ---
  alignas(arch::kCacheLine) Mutex mu{Rank::Sched};
  GlobalQueue global;
  std::atomic<std::uint32_t> global_size{0};
  P* idle_ps = nullptr;
  M* idle_ms = nullptr;
  std::uint32_t idle_ms_count = 0;
  M* all_ms = nullptr;
  M* spare_ms = nullptr;  // without a thread, to be used again
  M* parting = nullptr;   // the last one whose thread has ended by itself: to be joined
  Relaxed<std::uint32_t> ms_count;  // threads of the runtime that run or sleep in the loop (run()'s caller included)
  std::uint32_t next_m_id = 0;
  std::atomic<std::uint32_t> detached{0};  // Gs in blocking calls or otherwise running without a P
  std::atomic<std::uint32_t> overrun{0};   // of these, in user code: their Ps were taken (preempt.cpp)
  GList stackless;               // never-started Gs for which no stack could be had
  std::atomic<std::uint32_t> stackless_count{0};
  std::int64_t stackless_since = 0;
  std::atomic<std::int64_t> starts_allowed{0};  // new stacks while memory is short (hibernator.cpp)
  Relaxed<bool> starved_of_threads;  // a thread could not be started: sysmon tries again
  std::atomic<bool> thread_warned{false};

  // --- the poller's sleeper ---
  std::atomic<M*> poller_m{nullptr};
  std::atomic<std::int64_t> poller_until{0};
  Poller poller;

  // --- world ---
  Mutex world{Rank::World};
  bool stopping = false;        // under mu
  std::uint32_t stop_wait = 0;  // under mu: Ps still running
  Note stop_note;

  // --- standing still (freeze.cpp) ---
  Mutex freezing{Rank::Freeze};               // who freezes, or makes one thread stand; what a look into a frozen world reads
  std::atomic<std::uint32_t> frozen{0};       // odd: the world is; a futex word
  std::atomic<std::uint64_t> freeze_left{0};  // number of the asking, and how many are yet to stand
  Note freeze_note;
  Relaxed<std::uint32_t> held;  // suspended goroutines; changed with the world stopped
  G* held_first = nullptr;      // they themselves; changed with the world stopped, too, and under `freezing`
  std::atomic<std::uint32_t> to_come{0};  // goroutines asked to say when they are at a safepoint (gc::at_next_safepoint)

  // --- the host's event loop (host_loop.cpp) ---
  M* host_m = nullptr;  // under Runtime
  int host_fd = -1;
  GList host_pending;       // under mu
  bool host_waits = false;  // under mu: for a P
  G* host_next = nullptr;   // under mu: who came with it

  // --- ends ---
  G* main_g = nullptr;
  int main_result = 0;
  bool main_goexit = false;
  std::atomic<bool> panicking{false};
  std::atomic<int> settlers{0};

  // --- plain threads' share ---
  std::atomic<std::uint32_t> outsiders{0};  // plain threads that are waking somebody now (Outside)
  std::atomic<std::uint64_t> outside_created{0};
};

extern Sched sched;

/// How many entries of Sched::ps are in use, and how many are there at all (set_procs may have retired some).
inline std::uint32_t ps_in_use() { return sched.procs.load(memory_order_acquire); }   // [procs]
inline std::uint32_t ps_there() { return sched.ps_made.load(memory_order_acquire); }  // [procs]

// ---- who runs here -------------------------------------------------------------------------------------------------

using arch::current_m;

/// The G that runs on this thread; null on plain threads and on g0.
WEFT_ALWAYS_INLINE G* current_g() {
  M* mp = current_m();
  if (!mp) return nullptr;
  G* gp = mp->curg;
  return gp->system ? nullptr : gp;
}

/// The G that runs on another thread's M; null: its loop, or it is only starting. May be stale: descriptors are never freed
/// while a runtime runs, so asking a G that runs elsewhere by now to give way costs a needless yield.
/// By address, not by G::system: that is g0's own business while its thread starts.
inline G* running_on(const M* mp) {
  G* gp = mp->curg.seen();
  return gp == &mp->g0 ? nullptr : gp;
}

/// The G that runs on `pp`, if any, is to come to a safepoint. Any thread; Ms are freed only after all that ask have ended.
inline void ask_running(const P* pp) {
  if (const M* mp = pp->m.seen())
    if (G* gp = running_on(mp)) gp->preempt.store(1, memory_order_relaxed);
}

// ---- park, ready, yield (park.cpp) ---------------------------------------------------------------------------------

/// Parks the current G. `lock` (may be null) is released after its context is saved: nobody can find the G before.
/// Throws the unwinding token if the runtime stops meanwhile (then nothing is queued any more).
/// Stack: G. P: any. Locks: only `lock`. Switches: yes (may resume on another M).
void park(M* mp, WaitReason reason, const void* object, SpinLock* lock);

/// The same, with a function that runs on the next context once this one is saved.
void park_call(M* mp, WaitReason reason, const void* object, void (*commit)(M*, G*, void*), void* arg);

/// A parked G whose wait the caller has won becomes runnable: next on this P, or in the global queue.
/// Stack: any. P: any, also none (plain threads, sysmon). Locks: none of the scheduler's.
void ready(G* gp);
/// The same for those whose time has come: next on this P if nobody is, else at the back of its queue, so that they keep their
/// order. No wake-up.
void ready_back(G* gp);
/// Several at once, in order, to the back of this P's queue.
void ready_list(GList& list);
/// Whoever waits there goes on: ready for a G, the note for a plain thread.
void wake_waiter(Waiter* w);

/// Blocks the caller, G or plain thread, in the wait `ticket` that is already queued under `lock`; releases the lock.
/// Timed if deadline is not kNever. The nodes must be racy then, and of a G in a domain. Returns how it ended.
Outcome wait_on(Waiter* w, std::uint64_t ticket, WaitReason reason, const void* object, SpinLock* lock, std::int64_t deadline);

/// The caller has looked at the clock and parks next, without doing anything else first: whoever follows it here has run since then.
inline void parks_at(std::int64_t now) {
  M* mp = current_m();
  if (P* pp = mp ? static_cast<P*>(mp->p) : nullptr) pp->clock_seen(now);
}

/// Parks until `deadline`; at once if that has passed. Timeout, or Cancel. (park.cpp)
Outcome sleep_until(std::int64_t deadline);

/// A deadline that a user gave: even the farthest is a pending timer, not "no limit".
inline std::int64_t timed(std::int64_t deadline) { return deadline < kNever ? deadline : kNever - 1; }

/// Sets the G's own timer up to end the wait `ticket`; the commit arms it.
void set_timeout(G* gp, std::uint64_t ticket, std::int64_t deadline);

/// This caller's waiter: the G's, or the plain thread's.
Waiter* my_waiter();

#ifndef NDEBUG
/// Builds with checks: whoever has frozen the world does not call the runtime before it thaws. (freeze.cpp)
void check_not_frozen();
#endif

/// Slow half of a safepoint: switches out if asked to.
void safepoint_now(M* mp);

/// First thing of every runtime call that uses the P or may switch: the G's runtime depth is above zero while it lives, so that
/// nobody takes the P from under it by force; and it is a safepoint. The depth is the G's: it goes along to another M. A G that
/// parks is inside, so whoever resumes is as well. Cost: two additions to the descriptor's first line.
class Inside {
 public:
  WEFT_ALWAYS_INLINE Inside() : m(current_m()), gp_(nullptr) {
#ifndef NDEBUG
    check_not_frozen();
#endif
    if (WEFT_UNLIKELY(!m)) return;
    gp_ = m->curg;
    go_in(gp_);
#ifndef NDEBUG
    if (perturb_seed && !peek(gp_->preempt) && m->p && static_cast<P*>(m->p)->rng.below(8) == 0)
      gp_->preempt.store(1, memory_order_relaxed);
#endif
    if (WEFT_UNLIKELY(peek(gp_->preempt))) {
      safepoint_now(m);
      m = current_m();
    }
  }
  WEFT_ALWAYS_INLINE ~Inside() {
    if (WEFT_LIKELY(gp_ != nullptr)) go_out(gp_);
  }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

  static WEFT_ALWAYS_INLINE void go_in(G* gp) {
    gp->depth.store(static_cast<std::uint8_t>(peek(gp->depth) + 1), memory_order_relaxed);
    arch::order_for_signals();
  }
  static WEFT_ALWAYS_INLINE void go_out(G* gp) {
    gp->depth.store(static_cast<std::uint8_t>(peek(gp->depth) - 1), memory_order_release);  // [depth]
  }

  M* m;  // this thread's at the call; null: a plain thread. After a switch: current_m()

 private:
  G* gp_;
};

/// The P is only touched from inside.
WEFT_ALWAYS_INLINE void check_inside([[maybe_unused]] M* mp) {
  WEFT_DCHECK(mp->curg->system || peek(mp->curg->depth) != 0);
}

/// While a plain thread holds a goroutine that it took out of a queue, or uses the Ps, the end of the run waits for it.
/// Not held while the thread blocks. Cost on an M: a branch.
class Outside {
 public:
  explicit Outside(M* mp) : on_(!mp) {
    if (WEFT_UNLIKELY(on_)) sched.outsiders.fetch_add(1, memory_order_seq_cst);  // [run-state] before it takes anybody
  }
  ~Outside() { leave(); }
  void leave() {
    if (WEFT_UNLIKELY(on_)) sched.outsiders.fetch_sub(1, memory_order_release);  // [run-state]
    on_ = false;
  }
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;

 private:
  bool on_;
};

// ---- birth and death (spawn.cpp) -----------------------------------------------------------------------------------

/// Unwinds the current G: destructors run, then it ends. Thrown as a token that only the G's entry catches.
[[noreturn]] void unwind_current(bool because_of_stop);
/// Entry of a fresh context.
void g_entry(arch::Transfer t);
/// A never-started G waits until a stack is given back, or the kernel has memory again. Stack: g0.
void wait_for_stack(G* gp);
void retry_stackless();
/// Gives `gp` a stack and a context. False: none to be had now.
bool bind_stack(P* pp, G* gp);
/// The context of a G that has got its stack.
void begin_on_stack(G* gp);
std::uint64_t live_goroutines();
/// Somebody waits for goroutines to end (block/settle.cpp): a G has just ended.
extern void (*settle_hook)();
WEFT_ALWAYS_INLINE void settle_check() {
  if (settle_hook) settle_hook();
}

// ---- copyable stacks (copyable.cpp) ------------------------------------------------------------------------------------

/// Puts gp on its stack's slot, for this M to switch to it. False: gp waits for it. Stack: g0. P: held.
bool enter_run_slot(M* mp, G* gp);
/// Who lay on it has left: its context is saved, its commit has run. Stack: g0.
void leave_run_slot(M* mp);
/// Who lies on it has ended. Before leave_run_slot().
void end_in_run_slot(M* mp, G* gp);

// ---- segmented stacks (segmented.cpp) ----------------------------------------------------------------------------------

/// Gives gp its first segment if it has none, and the thread gp's guard word: gp is what it switches to next. False: gp waits for a
/// stack. Stack: g0. P: held.
bool enter_segments(M* mp, G* gp);

// ---- queues --------------------------------------------------------------------------------------------------------

/// Runnable: next on this P, which has thieves; who was next goes to the back. (park.cpp; switch.hpp has put_next_here())
void put_next_shared(P* pp, G* gp);
/// Runnable: at the back of this P's queue, or in the global queue if that is full. No wake-up.
void put_back(P* pp, G* gp);
/// `woken`: what they waited for has come, so that they do not wait behind whoever computes for long.
void put_global(G* gp, bool woken = false);
void put_global_batch(G* const* gs, std::uint32_t n, bool woken = false);
void put_global_list(GList& list, bool woken = false);
/// Takes a batch for `pp` from the global queue: runs the first, queues the others. (loop.cpp)
G* take_global(P* pp, std::uint32_t at_most);

// ---- the loop (loop.cpp) -------------------------------------------------------------------------------------------

/// What an M does until the run ends. Stack: g0.
void schedule(M* mp);
/// A G to run; null: the run has ended. Sleeps until there is one. Stack: g0. P: held on return of a G.
G* find_work(M* mp);
G* steal_work(M* mp, P* pp);
/// Runs `gp` until it switches back to g0.
void execute(M* mp, G* gp);

// ---- idle (idle.cpp) -----------------------------------------------------------------------------------------------

/// Work was published: wakes a searcher if a P is idle and nobody searches. `but_poller`: another M than the one that sleeps in the poller.
void wake_one(bool but_poller = false);
/// The same for a lone runnext, which its P will probably run itself in a moment.
void wake_for_lone(P* pp);
/// Gives the P back and sleeps until there is work; null: the run has ended. Stack: g0.
G* sleep_until_work(M* mp);
void stop_searching(M* mp);
/// Any idle P, or null. Caller: no lock.
P* acquire_idle_p(M* mp);
void bind_p(M* mp, P* pp);
/// Does not return for an M that its run has given up.
void stay_if_abandoned(M* mp);
P* unbind_p(M* mp);
/// A P without an M gets one if it is worth it, else becomes idle. (handoff.cpp)
void handoff_p(P* pp);
/// What a bound M does: sleeps until its goroutine is runnable; null: the thread ends. Stack: g0. (locked.cpp)
G* only_locked(M* mp);
/// A special G was found in a queue. False: the P has gone to the M that may run it.
bool start_special(M* mp, G* gp);
/// A special G that was found in a queue belongs to the host's thread: it is pending there now, or has this M's P. (host_loop.cpp)
void give_to_host(M* mp, G* gp);
/// `gp`, which is locked to this M's thread, ends.
void end_locked(M* mp, G* gp);
/// Starts an M for `pp`. False: the kernel refuses threads; pp is idle then, and sysmon tries again.
bool start_m(P* pp, bool searching);
/// Mu held on entry, released: `pp` goes to the M that stopped with it, another sleeping one, or a new one.
void give_p_locked(P* pp, bool searching, bool but_poller = false);
void push_idle_p(P* pp);  // mu held
/// More Ms sleep than can be of use soon. mu held. (threads.cpp)
bool may_leave(const M* mp);
/// How long such an M sleeps before its thread ends.
extern std::int64_t idle_m_patience;
/// A thread that has ended by itself is not counted by the kernel any more after this.
void join_parting();

// ---- timers --------------------------------------------------------------------------------------------------------

/// Arms t on this P's heap (or the first P's from outside). (timers.cpp)
void timer_arm(TimerNode* t);
/// Fires what is due on `pp`. Returns how many. Stack: g0 or none.
unsigned run_timers(P* pp, std::int64_t now);
std::int64_t earliest_timer();

// ---- blocking calls (handoff.cpp) ----------------------------------------------------------------------------------

/// A new run: nobody is in blocking().
void reset_gate();
/// A G that runs without a P gets one, or waits for it in the global queue. Switches: maybe.
void reacquire_p(M* mp);
/// Takes the P of a call that lasts. False: the call is over, or somebody was faster. `global_first`: somebody in the global
/// queue has waited for long.
bool retake_p(P* pp, bool global_first = false);

// ---- overruns (preempt.cpp) ----------------------------------------------------------------------------------------

void preempt_start(const Config& config);
void preempt_stop();
/// Makes a goroutine in user code let go of `pp`, which is in Syscall then and anybody's to take. False: it is inside the runtime,
/// under NoPreempt, gone, or has only been asked.
bool free_p(P* pp);
/// Slow half of entering the runtime: nobody takes the P any more; has somebody?
bool keeps_p(M* mp);
/// In the signal's handler: lets go of this M's P if it was asked to and may.
void let_go_when_asked(M* mp);

/// While an M sleeps it runs nothing, and a freeze does not wait for it; it does not go on before the freeze is over. (freeze.cpp)
class Asleep {
 public:
  /// Inlined: where it stands is where the caller does.
  WEFT_ALWAYS_INLINE explicit Asleep(M* mp) : Asleep(mp, arch::stack_pointer()) {}
  ~Asleep();
  Asleep(const Asleep&) = delete;
  Asleep& operator=(const Asleep&) = delete;

 private:
  Asleep(M* mp, std::uintptr_t sp);
  M* m_;
};
/// A special G that was found in a queue is suspended: it is out of it now, until it is resumed.
bool put_aside_if_held(G* gp);

/// Set by runtime/gc, called by a goroutine that has run without a P and comes to a safepoint while Sched::to_come is not zero.
extern void (*safepoint_reporter)(G* gp);
WEFT_ALWAYS_INLINE void report_safepoint(G* gp) {
  if (WEFT_UNLIKELY(sched.to_come.load(memory_order_seq_cst) != 0)) safepoint_reporter(gp);  // [safepoint]
}

/// Set by runtime/obs, called by sysmon: `gp` has run on `mp` for so long without a safepoint.
extern void (*overrun_reporter)(M* mp, G* gp, std::int64_t ran_ns);

/// From the first start on, fork() is looked after. (fork.cpp)
void fork_prepare();
[[noreturn]] void fatal_in_forked_child();
WEFT_ALWAYS_INLINE void check_not_forked() {
  if (WEFT_UNLIKELY(sched.forked)) fatal_in_forked_child();
}

// ---- the world (world.cpp) -----------------------------------------------------------------------------------------

/// Brings every P to a safepoint. False (only with a limit): somebody did not come in time; the world runs on.
/// Callable from a G, g0's callers and plain threads. Nested: fatal.
bool stop_world(std::int64_t limit_ns = kNever);
void start_world();
/// Waits for its turn to stop the world: comes to safepoints meanwhile if it has a P.
void lock_world();

// ---- sysmon (sysmon.cpp) -------------------------------------------------------------------------------------------

bool sysmon_start();
void sysmon_stop();
bool sysmon_running();
/// Is this its thread?
bool on_sysmon();
/// Somebody runs again, or has a timer that is due before sysmon's next look.
void sysmon_wake();
/// Somebody was put into the global queue who should not wait for the end of a long slice.
void sysmon_see_to_woken();
/// How much later than a timer sysmon may look at the P that it belongs to. A P that switches fires its timers itself, and
/// nobody is asked to give way before a short slice is over: this saves sysmon from being woken for each timer.
inline constexpr std::int64_t kTimerSlack = 1'000'000;
/// When it will look next; kNever: asleep until woken.
std::int64_t sysmon_next_look();
/// Runs `f` on sysmon's thread soon. Async-signal-safe; one request of a kind at a time.
void sysmon_request(void (*f)());

// ---- start and end (lifecycle.cpp) ---------------------------------------------------------------------------------

std::error_code sched_start(const Config& config, bool in_run);
/// Ends the loop: every M leaves at its next safepoint.
void begin_ending();

// ---- deadlock (deadlock.cpp) ---------------------------------------------------------------------------------------

/// The last M is about to sleep: is everybody asleep for ever? Called on g0 without locks.
void check_all_asleep();
/// Set by runtime/obs: explains who waits on what. The string is the report's body.
extern void (*stuck_reporter)(bool fatal_in_run, const char* headline);
/// Threads of the layers above (reporting) that are the runtime's own.
extern int (*helper_threads)();

}  // namespace weft::rt
