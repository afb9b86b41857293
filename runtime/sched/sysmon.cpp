// sysmon: the thread without a P that looks after those that have one.
//
// It sleeps to the earliest of: the end of a slice, the next timer of a running P, the next look at a blocking call; and on a
// futex when nobody runs. At each look, for each P:
//   slice     no switch for one: the G is asked to give way (2 ms if a timer is due or somebody woken waits), also one that makes
//             short calls; if it does not, its P is taken (preempt.cpp)
//   timers    due: the P is told; an idle P, if there is one, comes and fires them. Of an idle P, and late while threads compute without
//             a P: who sleeps in the poller waits for a CPU behind them; another M comes (with turns.hpp, 8 loops on 2 CPUs: of 1,000
//             sleeps of 1 ms 1.7 were late by more than 4 ms, without this 6). Descriptors likewise.
//   runnext   lingers although a P is idle: somebody is woken for it
//   syscall   lasts and somebody could use the P: retaken
// and for everybody: descriptors that nobody has polled, threads and stacks that the kernel refused a moment ago.
//
// Protocol   sleep: next_look = kNever, then look whether all Ps are idle, then sleep. Whoever takes an idle P (its count is
//            seq_cst) looks at next_look afterwards. One of the two sees the other.
// Orders     [sysmon] seq_cst on next_look and the idle count. [sysmon-stop], [sysmon-request] release by who asks, acquire
//            by the thread: it sees what was prepared for it.
//            [clock-seen] release after the time was written: whoever sees the count sees that time or a later one.
//            [idle] see idle.cpp. [p-status] see core/p.hpp. [run-state] see lifecycle.cpp.
#include <pthread.h>

#include <algorithm>

#include "arch/thread.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/log.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/procs.hpp"
#include "runtime/sched/hibernator.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/turns.hpp"

namespace weft::rt {
namespace {

constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kSlice = 10 * kMs;
constexpr std::int64_t kShortSlice = 2 * kMs;
constexpr std::int64_t kGrace = 50'000;  // between the wish and the force
constexpr std::int64_t kLingerLook = 1 * kMs;
constexpr std::int64_t kCallLook = 200'000;
constexpr std::int64_t kLate = 300'000;  // of an idle P's timer
constexpr std::int64_t kRetryRefused = 10 * kMs;
constexpr std::int64_t kEndLook = 10 * kMs;
constexpr std::int64_t kFrozenLook = 1 * kMs;
constexpr std::int64_t kStacklessLimit = 1000 * kMs;

}  // namespace

void (*overrun_reporter)(M* mp, G* gp, std::int64_t ran_ns) = nullptr;

namespace {

struct Sysmon {
  pthread_t thread{};
  std::atomic<bool> running{false};
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> next_look{kNever};
  std::atomic<void (*)()> request{nullptr};
  Note note;
  std::int64_t polled_at = 0;
  unsigned idle_looks = 0;
};
Sysmon sysmon;

bool nobody_runs() {
  return sched.idle_ps_count.load(memory_order_seq_cst) == peek(sched.procs) &&  // [sysmon]
         peek(sched.detached) == 0 && peek(sched.stackless_count) == 0 && !sched.starved_of_threads;
}

enum class Waits : std::uint8_t {
  Nobody,
  NewOnes,       // none of them has ever run: they may wait while detached_max run without a P
  ForHere,       // who has run before, or a timer
  ForGlobal,     // the same, in the global queue
};

/// Who needs `pp` itself, or any P: there is no idle one.
Waits who_waits(P* pp, std::int64_t now) {
  if (pp->timers.earliest() <= now || pp->ring.before(peek(pp->woken_to)) || peek(pp->runnext)) return Waits::ForHere;
  if (sched.global.started_wait()) return Waits::ForGlobal;
  if (!pp->ring.empty()) return Waits::ForHere;
  return pp->has_local_work() || peek(sched.global_size) != 0 ? Waits::NewOnes : Waits::Nobody;
}

/// Whoever takes a P over can be had.
bool room_for_a_thread() {
  sched.mu.lock();
  const bool room = sched.idle_ms || peek(sched.poller_m) || sched.ms_count < static_cast<std::uint32_t>(sched.config->threads_max);
  sched.mu.unlock();
  return room && !sched.starved_of_threads;
}

/// The slice of who runs there is over. First it is asked; if it does not come to a safepoint soon, its P is taken if somebody
/// needs it. Returns when to look again.
std::int64_t end_slice(P* pp, std::int64_t now) {
  if (pp->asked_at == 0) {
    ask_running(pp);
    pp->asked_at = now;
    pp->patience = kGrace;
    return now + kGrace;
  }
  if (now - pp->asked_at < pp->patience) return pp->asked_at + pp->patience;
  pp->asked_at = now;
  if (sched.idle_ps_count.load(memory_order_seq_cst) != 0) return now + kSlice;  // [idle] look_at_running() sees to them
  const Waits who = who_waits(pp, now);
  if (who == Waits::Nobody) return now + kSlice;
  if (who == Waits::NewOnes && peek(sched.overrun) >= static_cast<std::uint32_t>(sched.config->detached_max)) return now + kSlice;
  if (!room_for_a_thread()) return now + kSlice;
  // From whoever it is that runs there, before its thread is no P's any more.
  M* mp = pp->m.seen();
  G* gp = mp ? running_on(mp) : nullptr;
  const std::int64_t ran = now - pp->seen_since;
  const bool gone = free_p(pp);
  if (gp && overrun_reporter && pp->seen_switches == peek(pp->switches)) overrun_reporter(mp, gp, ran);
  if (gone) {
    retake_p(pp, who == Waits::ForGlobal);
    return now + kShortSlice;
  }
  // Its thread is inside the runtime: for a moment, or it waits for a CPU.
  ask_running(pp);
  pp->patience = std::min(2 * pp->patience, kMs);
  return now + pp->patience;
}

/// Is somebody's turn, a G's or a timer's, overdue on this P? The G that has it is asked to give way: at its next safepoint, or
/// when it comes back from its call, however short its calls are. Returns when to look again.
std::int64_t look_at_slice(P* pp, std::int64_t now, bool in_call) {
  const std::uint64_t s = peek(pp->switches);
  if (s != pp->seen_switches) {
    pp->seen_switches = s;
    // [clock-seen] If it is the next after a look at the clock, it has run since then; else at least since now.
    const bool known = pp->clock_switches.load(memory_order_acquire) + 1 == s;
    pp->seen_since = known ? std::min(now, peek(pp->clock_at)) : now;
    pp->asked_at = 0;
  }
  std::int64_t next = kNever;
  const std::int64_t due = pp->timers.earliest();
  std::int64_t slice = pp->ring.before(peek(pp->woken_to)) || sched.global.woken_wait() ? kShortSlice : kSlice;
  if (due <= now) {
    slice = kShortSlice;
    pp->attention.fetch_or(kAttendLoop, memory_order_relaxed);
  } else {
    // Who has run for long is not about to fire it.
    const bool will_fire = !in_call && now - pp->seen_since < kShortSlice;
    next = due < now + kTimerSlack && will_fire ? now + kTimerSlack : due;
  }
  if (now - pp->seen_since < slice) {
    next = std::min(next, pp->seen_since + slice);
  } else if (in_call) {
    pp->attention.fetch_or(kAttendLoop, memory_order_relaxed);
    pp->seen_since = now;
    next = std::min(next, now + slice);
  } else {
    next = std::min(next, end_slice(pp, now));
  }
  return next;
}

std::int64_t look_at_running(P* pp, std::int64_t now) {
  const bool someone_idle = sched.idle_ps_count.load(memory_order_seq_cst) != 0;  // [idle]
  const bool moved = peek(pp->switches) != pp->seen_switches;
  std::int64_t next = look_at_slice(pp, now, false);
  if (someone_idle) {
    if (pp->timers.earliest() <= now) wake_one();
    if (!moved && pp->has_local_work()) {
      pp->lone_skip.store(0, memory_order_relaxed);
      pp->lone_left.store(0, memory_order_relaxed);
      wake_one();
    }
    if ((peek(pp->lone_skip) | peek(pp->lone_left)) != 0 && now + kLingerLook < next) next = now + kLingerLook;
  }
  return next;
}

std::int64_t look_at_call(P* pp, std::int64_t now) {
  if (peek(pp->let_go)) {
    pp->let_go.store(false, memory_order_relaxed);
    retake_p(pp);
    return now + kShortSlice;
  }
  std::int64_t next = look_at_slice(pp, now, true);
  const std::uint64_t tick = peek(pp->syscall_tick);
  if (tick != pp->seen_tick || pp->syscall_since.load(memory_order_relaxed) == 0) {
    pp->seen_tick = tick;
    pp->syscall_since.store(now, memory_order_relaxed);
    return now + kCallLook;
  }
  const std::int64_t lasts = now - peek(pp->syscall_since);
  const bool wanted = pp->has_local_work() || peek(sched.global_size) != 0 || pp->timers.earliest() <= now ||
                      sched.idle_ps_count.load(memory_order_seq_cst) == 0;  // [idle]
  if ((wanted && lasts >= kCallLook / 2) || lasts >= kSlice) {
    pp->syscall_since.store(0, memory_order_relaxed);
    retake_p(pp);
    return now + kCallLook;
  }
  const std::int64_t again = now + (wanted ? kCallLook : kMs);
  return again < next ? again : next;
}

// Returns when to look again.
std::int64_t look_at_descriptors(std::int64_t now, bool crowded) {
  if (sched.poller.waiting() == 0 || (peek(sched.poller_m) && !crowded)) return kNever;
  const std::int64_t pause = crowded ? kShortSlice : kSlice;
  if (now - sysmon.polled_at < pause) return sysmon.polled_at + pause;
  sysmon.polled_at = now;
  GList got;
  if (sched.poller.wait(0, got, false)) {
    const unsigned n = got.count;
    if (peek(sched.poller_m)) wake_one(true);
    ready_list(got);
    sched.poller.queued(n);
  }
  return now + pause;
}

// Returns when to look again.
std::int64_t look(std::int64_t now) {
  procs_look(now);
  std::int64_t next = now + kSlice;
  const bool crowded = peek(sched.detached) != 0;  // whoever sleeps may have to wait for a CPU
  const std::uint32_t n = ps_in_use();
  for (std::uint32_t i = 0; i < n; i++) {
    P* pp = sched.ps[i];
    std::int64_t t = kNever;
    switch (pp->status.load(memory_order_acquire)) {  // [p-status]
      case PStatus::Running: t = look_at_running(pp, now); break;
      case PStatus::Syscall: t = look_at_call(pp, now); break;
      case PStatus::Idle:
        if (!sched.poller.ok() || !peek(sched.poller_m)) {
          t = pp->timers.earliest();
          if (t <= now) {
            wake_one();
            t = now + kMs;
          }
        } else if (crowded && (t = pp->timers.earliest()) != kNever) {
          t += kLate;
          if (t <= now) {
            wake_one(true);
            t = now + kMs;
          }
        }
        break;
      case PStatus::Stopped:
      case PStatus::Retired: break;
    }
    if (t < next) next = t;
  }
  if (peek(sched.global_size) != 0 && sched.idle_ps_count.load(memory_order_seq_cst) != 0) wake_one();  // [idle]
  next = std::min(next, look_at_descriptors(now, crowded));
  if (sched.starved_of_threads || peek(sched.stackless_count) != 0) {
    sched.mu.lock();
    sched.starved_of_threads = false;  // start_m() says so again
    const std::int64_t since = sched.stackless_since;
    const bool stackless = sched.stackless.count != 0 && !peek(memory_short);
    G* first = sched.stackless.first;
    const bool idle = peek(sched.idle_ps_count) == peek(sched.procs);
    sched.mu.unlock();
    if (stackless && idle && since != 0 && now - since > kStacklessLimit)
      fatalf("out of memory: no stack for goroutine %llu", static_cast<unsigned long long>(first->id));
    if (stackless) {
      GList all;
      sched.mu.lock();
      std::swap(all, sched.stackless);
      sched.mu.unlock();
      put_global_list(all);
      // Counted until they are queued: never nowhere for the one who looks for a deadlock.
      sched.mu.lock();
      sched.stackless_count.store(sched.stackless.count, memory_order_relaxed);
      sched.mu.unlock();
    }
    wake_one();
    for (std::uint32_t i = 0; i < n; i++)  // a P that was given back with work in its queue
      if (sched.ps[i]->status.load(memory_order_acquire) == PStatus::Idle && sched.ps[i]->has_local_work()) wake_one();  // [p-status]
    if (now + kRetryRefused < next) next = now + kRetryRefused;
  }
  hibernator_look(now);
  next = std::min(next, stacks_trim(now));
  if (next <= now) next = now + 50'000;
  return next;
}

void* sysmon_main(void*) {
  arch::name_this_thread("weft-sysmon");
  while (!sysmon.stop.load(memory_order_acquire)) {  // [sysmon-stop]
    sysmon.note.clear();
    if (auto f = sysmon.request.exchange(nullptr, memory_order_acq_rel)) f();  // [sysmon-request]
    const std::int64_t now = arch::clock_now();
    sched.coarse_ms.store(static_cast<std::uint32_t>((now - sched.started_at) / kMs), memory_order_relaxed);
    log_flush();
    std::int64_t next = kNever;
    if (sched.state.load(memory_order_acquire) == RunState::Ending) {  // [run-state]
      if (auto watch = peek(end_watch)) watch();
      sysmon.next_look.store(now + kEndLook, memory_order_seq_cst);  // [sysmon]
      if (!sysmon.stop.load(memory_order_acquire)) sysmon.note.sleep_until(now + kEndLook);  // [sysmon-stop]
      continue;
    }
    if (peek(sched.frozen) & 1) {  // nothing moves: what looks late now is not
      sysmon.next_look.store(now + kFrozenLook, memory_order_seq_cst);  // [sysmon]
      if (!sysmon.stop.load(memory_order_acquire)) sysmon.note.sleep_until(now + kFrozenLook);  // [sysmon-stop]
      continue;
    }
    const bool keeps_time = !sched.poller.ok() && earliest_timer() != kNever;
    if (nobody_runs() && !keeps_time) {
      // One look more before the deep sleep: a program that runs for a moment every millisecond should not wake us each time.
      hibernator_look(now);
      const std::int64_t trims = stacks_trim(now);
      if (sysmon.idle_looks++ == 0) {
        next = now + kSlice;
      } else if (trims != kNever) {
        next = trims;
      } else {
        sysmon.next_look.store(kNever, memory_order_seq_cst);  // [sysmon]
        if (nobody_runs() && !sysmon.stop.load(memory_order_acquire) &&  // [sysmon-stop]
            !sysmon.request.load(memory_order_acquire))                   // [sysmon-request]
          sysmon.note.sleep();
        sysmon.idle_looks = 0;
        continue;
      }
    } else {
      sysmon.idle_looks = 0;
      next = look(now);
      sysmon_turns();
    }
    sysmon.next_look.store(next, memory_order_seq_cst);  // [sysmon]
    if (!sysmon.stop.load(memory_order_acquire)) sysmon.note.sleep_until(next);  // [sysmon-stop]
  }
  return nullptr;
}

}  // namespace

bool sysmon_start() {
  if (peek(sysmon.running)) return true;
  static SpinLock once;
  if (!once.try_lock()) return false;
  bool ok = peek(sysmon.running);
  if (!ok) {
    sysmon.stop.store(false, memory_order_relaxed);
    sysmon.note.clear();
    sysmon.idle_looks = 0;
    sysmon.polled_at = 0;
    sysmon.request.store(nullptr, memory_order_relaxed);
    sysmon.next_look.store(kNever - 1, memory_order_relaxed);
    const int err = arch::start_thread(&sysmon.thread, sysmon_main, nullptr);
    ok = err == 0;
    if (ok)
      sysmon.running.store(true, memory_order_release);  // [sysmon-stop]
    else if (!sched.thread_warned.exchange(true, memory_order_relaxed))
      log_warn("cannot start a thread (error %d); going on with fewer, trying again", err);
  }
  once.unlock();
  return ok;
}

void sysmon_stop() {
  if (!peek(sysmon.running)) return;
  sysmon.stop.store(true, memory_order_release);  // [sysmon-stop]
  sysmon.note.wake();
  pthread_join(sysmon.thread, nullptr);
  sysmon.running.store(false, memory_order_relaxed);
}

bool on_sysmon() { return peek(sysmon.running) && pthread_equal(sysmon.thread, pthread_self()); }

bool sysmon_running() { return peek(sysmon.running); }

void sysmon_wake() { sysmon.note.wake(); }

void sysmon_see_to_woken() {
  if (sched.idle_ps_count.load(memory_order_seq_cst) == 0 && sysmon_next_look() > arch::clock_now() + kShortSlice) sysmon_wake();  // [idle]
}

std::int64_t sysmon_next_look() { return sysmon.next_look.load(memory_order_seq_cst); }  // [sysmon]

void sysmon_request(void (*f)()) {
  sysmon.request.store(f, memory_order_release);  // [sysmon-request]
  sysmon.note.wake();
}

}  // namespace weft::rt
