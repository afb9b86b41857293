// Stopping at any instruction: the whole world, or one goroutine.
//
// Freeze     Sched::frozen is odd while the world is frozen. Every M that can run code is sent SIGURG and stands in the handler
//            until the word changes; the signal's frame holds its registers (M::stands_at). An M that sleeps is left alone and
//            looks at the word when it wakes:
//
//              freezer, holding Sched::freezing        M that sleeps
//              frozen++ (odd)                          asleep = true
//              mu: asleep ? skip                       ... asleep = false
//                  : count it, ask, signal             frozen odd ? wait until it changes
//                asleep now ? answer for it
//
//            All of these are seq_cst: one of the two sees the other. Who is asked on its way to sleep answers from there, or the
//            freezer does: the signal need not reach it (TSan holds it back from who sleeps). Sched::mu is held while the signals are sent, so nobody
//            stands still who holds it then; who takes it later and is hit there is why nothing may be locked inside a freeze.
//            Who answers too late, its asker having given up, does not wait: the freeze that it finds may be the next
//            one, which is about to ask it.
//            The word counts: an M that has not yet seen the end of one freeze when the next begins leaves the first one's wait,
//            takes the signal that has been held back, and answers again.
//            One whose goroutine is suspended is in the handler already, where the signal does not reach it: the question moves
//            the word that it sleeps on (M::suspended), and it answers from there.
// Turns      Sched::freezing, from the first question to the thaw; a lock of its own, not Sched::world: a freeze must not wait for
//            a safepoint. A collector begins one inside its allocator, whose lock the goroutine holds: if it had to wait there for
//            a stop of the world, which waits for it in turn, neither would come to an end; if it switched, the lock would leave
//            its thread. So freezing never switches, and who stops the world at safepoints may be frozen half way.
// Suspend    With the world stopped at safepoints every G is parked, queued, or runs without a P. Of the last the thread stands in
//            the handler (M::suspended); the others are marked special and `held`, so that whoever finds one in a queue puts it
//            aside (start_special) instead of running it.
// Left out   Threads that are not the runtime's: they run no goroutine. sysmon looks away while the world is frozen.
// Orders     [sleeps] release by who sleeps, acquire by who looks at its stack: it sees what the thread set up before.
//            [freeze] seq_cst as above; release by the handler when it stands, acquire by the freezer: it sees the registers.
//            [status] see core/g.hpp. [depth] see preempt.cpp. [run-state] see lifecycle.cpp.
#include <weft/gc_hook.hpp>
#include <weft/panic.hpp>

#include <time.h>

#include <algorithm>
#include <string>
#include <vector>

#include "arch/interrupt.hpp"
#include "arch/registers.hpp"
#include "runtime/base/check.hpp"
#include "runtime/base/collector.hpp"
#include "runtime/base/immortal.hpp"
#include "runtime/sched/freeze.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

constexpr std::int64_t kFreezeLimit = 1'000'000'000;

/// Waits until `word` is not `while_it_is`. Async-signal-safe.
void wait_while(std::atomic<std::uint32_t>& word, std::uint32_t while_it_is) {
  while (word.load(memory_order_seq_cst) == while_it_is) arch::futex_wait(word, while_it_is);  // [freeze]
}

// Each asking has a number: an answer that comes after its asker has given up counts for nothing.
std::uint32_t round_of(std::uint64_t left) { return static_cast<std::uint32_t>(left >> 32); }

/// False: its asker does not wait any more.
bool count_down(std::uint32_t round) {
  std::uint64_t left = sched.freeze_left.load(memory_order_acquire);  // [freeze]
  do {
    if (round_of(left) != round) return false;
  } while (!sched.freeze_left.compare_exchange_weak(left, left - 1, memory_order_acq_rel, memory_order_acquire));  // [freeze]
  if (static_cast<std::uint32_t>(left) == 1) sched.freeze_note.wake();
  return true;
}

/// Begins with one that keeps the count above zero while the others are asked. The caller has Sched::world.
std::uint32_t begin_asking() {
  sched.freeze_note.clear();
  const std::uint32_t round = round_of(peek(sched.freeze_left)) + 1;
  sched.freeze_left.store(std::uint64_t{round ? round : 1} << 32 | 1, memory_order_release);  // [freeze]
  return round ? round : 1;
}

/// Asks `mp`'s thread to stand still. mu held.
void ask_to_stand(M* mp, std::uint32_t round) {
  sched.freeze_left.fetch_add(1, memory_order_relaxed);
  mp->freeze_asked.store(round, memory_order_seq_cst);  // [freeze]
  if (mp->suspended.load(memory_order_seq_cst) & 1) {  // [freeze]
    mp->suspended.fetch_add(2, memory_order_seq_cst);  // [freeze]
    arch::futex_wake(mp->suspended, 1);
  }
  const bool sent = arch::interrupt_thread(mp->tid);
  const bool comes = !mp->asleep.load(memory_order_seq_cst) && sent;                             // [freeze]
  if (!comes && mp->freeze_asked.exchange(0, memory_order_seq_cst)) count_down(round);           // [freeze]
}

bool all_stand(std::uint32_t round) {
  count_down(round);
  const std::int64_t limit = arch::clock_now() + kFreezeLimit;
  auto left = [] { return static_cast<std::uint32_t>(sched.freeze_left.load(memory_order_acquire)); };  // [freeze]
  while (left() != 0) {
    if (!sched.freeze_note.sleep_until(limit) && left() != 0) return false;
    if (left() != 0) sched.freeze_note.clear();  // it was for an asker that had given up
  }
  return true;
}

}  // namespace

void on_interrupt(void* ucontext) {
  M* mp = current_m();
  if (!mp) return;
  let_go_when_asked(mp);
  std::uint32_t round = mp->freeze_asked.exchange(0, memory_order_seq_cst);  // [freeze]
  if (!round) return;
  // Where a handler runs on the stack that it interrupted, or later than the signal came (TSan), what its callers still need may
  // be in registers that the ucontext does not have.
  arch::KeptRegisters kept;
  arch::keep_registers(kept);
  mp->stands_sp = arch::stack_pointer();
  mp->stands_at.store(ucontext, memory_order_release);  // [freeze]
  for (;;) {
    // Read before the answer: the freeze that was answered, not one that begins later and asks again.
    const std::uint32_t now = sched.frozen.load(memory_order_seq_cst);  // [freeze]
    const bool waited_for = count_down(round);
    if (waited_for && (now & 1)) wait_while(sched.frozen, now);
    do {
      const std::uint32_t stays = mp->suspended.load(memory_order_seq_cst);  // [freeze]
      round = mp->freeze_asked.exchange(0, memory_order_seq_cst);            // [freeze]
      if (round != 0 || !(stays & 1)) break;
      arch::futex_wait(mp->suspended, stays);
    } while (true);
    if (round == 0) break;
  }
  mp->stands_at.store(nullptr, memory_order_release);  // [freeze]
  asm volatile("" ::"r"(&kept) : "memory");
}

namespace {

/// Asked a moment ago: asleep is as good as standing. The signal finds nothing to do.
void answer_asleep(M* mp) {
  if (mp->freeze_asked.load(memory_order_seq_cst) == 0) return;                                           // [freeze]
  if (const std::uint32_t round = mp->freeze_asked.exchange(0, memory_order_seq_cst)) count_down(round);  // [freeze]
}

}  // namespace

Asleep::Asleep(M* mp, std::uintptr_t sp) : m_(mp) {
  m_->sleeps_at.store(sp, memory_order_release);  // [sleeps]
  m_->asleep.store(true, memory_order_seq_cst);   // [freeze]
  answer_asleep(m_);
}

Asleep::~Asleep() {
  for (;;) {
    m_->asleep.store(false, memory_order_seq_cst);                      // [freeze]
    const std::uint32_t now = sched.frozen.load(memory_order_seq_cst);  // [freeze]
    if (!(now & 1)) break;
    // As good as asleep: the next freeze may begin before this thread knows that the last one is over.
    m_->asleep.store(true, memory_order_seq_cst);  // [freeze]
    answer_asleep(m_);
    wait_while(sched.frozen, now);
  }
  m_->sleeps_at.store(0, memory_order_release);  // [sleeps]
}

void never_freeze(M* mp) {
  mp->asleep.store(true, memory_order_seq_cst);  // [freeze]
  answer_asleep(mp);
}

namespace {

// Of the freeze under way. Sched::freezing held.
Immortal<std::vector<M*>> ms_there;
std::int64_t asked_at = 0, stood_at = 0;

/// Locks Sched::freezing. Not asleep in the lock itself: there TSan would hold back the signal of who has it.
void wait_for_turn() {
  const timespec nap{0, 20'000};
  while (!sched.freezing.try_lock()) ::nanosleep(&nap, nullptr);
}

/// Lists all Ms, with mu held on return. The room is made before.
void list_ms() {
  for (;;) {
    sched.mu.lock();
    std::size_t n = 0;
    for (const M* mp = sched.all_ms; mp; mp = mp->all_link) n++;
    if (n <= ms_there->capacity()) break;
    sched.mu.unlock();
    ms_there->reserve(n + n / 2 + 16);
  }
  ms_there->clear();
  for (M* mp = sched.all_ms; mp; mp = mp->all_link) ms_there->push_back(mp);
}

}  // namespace

NotFrozen::NotFrozen() { wait_for_turn(); }

FrozenMs frozen_ms() { return {ms_there->data(), ms_there->size()}; }

bool freeze_world() {
  wait_for_turn();
  asked_at = arch::clock_now();
  M* self = current_m();
  const std::uint32_t round = begin_asking();
  list_ms();
  if (!ms_there->empty() && !arch::interrupts_install(on_interrupt)) {
    sched.mu.unlock();
    sched.freezing.unlock();
    return false;
  }
  sched.frozen.fetch_add(1, memory_order_seq_cst);  // [freeze]
  for (M* mp : *ms_there)
    if (mp != self && !mp->asleep.load(memory_order_seq_cst)) ask_to_stand(mp, round);  // [freeze]
  sched.mu.unlock();
  const bool all = all_stand(round);
  stood_at = arch::clock_now();
  if (!all) thaw_world();
  return all;
}

void thaw_world() {
  sched.frozen.fetch_add(1, memory_order_seq_cst);  // [freeze]
  arch::futex_wake(sched.frozen, 1 << 30);
  sched.freezing.unlock();
}

// ---- one goroutine -------------------------------------------------------------------------------------------------

namespace {

struct Wanted {
  std::uint64_t id;
  G* found;
};

}  // namespace

G* find_g(std::uint64_t id) {
  Wanted w{id, nullptr};
  g_table_each(
      [](G* gp, void* arg) {
        auto* w = static_cast<Wanted*>(arg);
        if (gp->id == w->id && gp->status.load(memory_order_acquire) != GStatus::Dead) w->found = gp;  // [status] see core/g.hpp
      },
      &w);
  return w.found;
}

namespace {

void keep_in_queue(G* gp) {
  gp->extra->started_before = gp->started;
  gp->started = kSpecial;
}

void let_stand_end(M* mp) {
  mp->suspended.fetch_and(~1u, memory_order_seq_cst);  // [freeze]
  arch::futex_wake(mp->suspended, 1);
}

void list_held(G* gp) {
  NotFrozen alone;
  gp->extra->held_link = std::exchange(sched.held_first, gp);
  sched.held++;
}

void unlist_held(G* gp) {
  NotFrozen alone;
  G** at = &sched.held_first;
  while (*at != gp) at = &(*at)->extra->held_link;
  *at = gp->extra->held_link;
  sched.held--;
}

/// World stopped. False: its thread does not come, and runs on.
bool hold(G* gp) {
  if (!gp->extra) gp->extra = new GExtra{};
  const GStatus s = gp->status.load(memory_order_acquire);  // [status]
  if (gp->extra->held++ > 0) return true;
  if (s == GStatus::Waiting || s == GStatus::Runnable) {
    keep_in_queue(gp);
    list_held(gp);
    return true;
  }
  M* mp = gp->m;
  gp->extra->stands = mp;
  {
    NotFrozen alone;
    const std::uint32_t round = begin_asking();
    sched.mu.lock();
    mp->suspended.fetch_or(1, memory_order_seq_cst);  // [freeze]
    ask_to_stand(mp, round);
    sched.mu.unlock();
    if (!all_stand(round)) {
      let_stand_end(mp);
      gp->extra->stands = nullptr;
      gp->extra->held = 0;
      return false;
    }
  }
  if (running_on(mp) != gp) {
    // It has just been queued for want of a P.
    gp->extra->stands = nullptr;
    let_stand_end(mp);
    keep_in_queue(gp);
  }
  list_held(gp);
  return true;
}

/// World stopped.
void let_on(G* gp) {
  GExtra* x = gp->extra;
  if (--x->held > 0) return;
  unlist_held(gp);
  if (M* mp = std::exchange(x->stands, nullptr)) {
    let_stand_end(mp);
    return;
  }
  gp->started = x->started_before;
  if (std::exchange(x->aside, false)) put_global(gp, true);
}

}  // namespace

bool look_at_running_g(M* mp, G* gp, void (*f)(G* gp, const void* ucontext, void* arg), void* arg) {
  if (!sched.freezing.try_lock()) return false;
  bool seen = false;
  if (arch::interrupts_install(on_interrupt) && !mp->asleep.load(memory_order_seq_cst) && !(peek(mp->suspended) & 1)) {  // [freeze]
    const std::uint32_t round = begin_asking();
    sched.mu.lock();
    mp->suspended.fetch_or(1, memory_order_seq_cst);  // [freeze]
    ask_to_stand(mp, round);
    sched.mu.unlock();
    const bool stands = all_stand(round);
    const void* at = mp->stands_at.load(memory_order_acquire);  // [freeze]
    if (stands && at && running_on(mp) == gp) {
      f(gp, at, arg);
      seen = true;
    }
    let_stand_end(mp);
  }
  sched.freezing.unlock();
  return seen;
}

bool put_aside_if_held(G* gp) {
  if (!gp->extra || !gp->extra->held) return false;
  gp->extra->aside = true;
  return true;
}

G* held_g(std::uint64_t id) {
  const bool mine = frozen_here();
  if (!mine) wait_for_turn();
  G* gp = sched.held_first;
  while (gp && gp->id != id) gp = gp->extra->held_link;
  if (!mine) sched.freezing.unlock();
  return gp;
}

bool suspend_g(std::uint64_t id) {
  stop_world();
  G* gp = arch::interrupts_install(on_interrupt) ? find_g(id) : nullptr;
  const bool stands = gp && hold(gp);
  start_world();
  return stands;
}

bool resume_g(std::uint64_t id) {
  stop_world();
  G* gp = find_g(id);
  const bool was = gp && gp->extra && gp->extra->held;
  if (was) let_on(gp);
  start_world();
  return was;
}

}  // namespace weft::rt

namespace weft::rt {
namespace {

// Who has stopped the world at safepoints: by address, a goroutine's descriptor or a plain thread's.
thread_local char this_thread;
std::atomic<const void*> stopper{nullptr};
// Who has frozen it: a thread. A goroutine stays on its own meanwhile.
std::atomic<const void*> freezer{nullptr};

WEFT_NOINLINE const void* my_thread() {
  asm volatile("" ::: "memory");
  return &this_thread;
}

const void* me() {
  G* gp = current_g();
  return gp ? static_cast<const void*>(gp) : my_thread();
}

/// The caller keeps its P until it lets the world go on.
void keep_p(int by) {
  if (G* gp = current_g())
    gp->no_preempt.store(static_cast<std::uint8_t>(peek(gp->no_preempt) + by), memory_order_release);  // [depth] see preempt.cpp
}

// ---- how long the world was frozen -------------------------------------------------------------------------------------

/// Counts by size: eight steps for each power of two. One writer (Sched::freezing), any reader.
struct Histogram {
  static constexpr unsigned kSteps = 8, kPowers = 48;
  std::atomic<std::uint64_t> counts[kSteps * kPowers] = {};

  static unsigned place(std::uint64_t v) {
    if (v < kSteps) return static_cast<unsigned>(v);
    const unsigned power = 63u - static_cast<unsigned>(__builtin_clzll(v));  // >= 3
    const auto step = static_cast<unsigned>(v >> (power - 3)) & (kSteps - 1);
    const unsigned at = (power - 2) * kSteps + step;
    return at < kSteps * kPowers ? at : kSteps * kPowers - 1;
  }
  /// The largest value that belongs there.
  static std::uint64_t upper(unsigned at) {
    if (at < kSteps) return at;
    const unsigned power = at / kSteps + 2;
    return ((std::uint64_t{kSteps} + at % kSteps + 1) << (power - 3)) - 1;
  }
  void add(std::int64_t v) { bump(counts[place(v > 0 ? static_cast<std::uint64_t>(v) : 0)]); }
  std::int64_t percentile(unsigned percent) const {
    std::uint64_t all = 0, below = 0;
    for (const auto& c : counts) all += peek(c);
    for (unsigned i = 0; all != 0 && i < kSteps * kPowers; i++) {
      below += peek(counts[i]);
      if (below * 100 >= all * percent) return static_cast<std::int64_t>(upper(i));
    }
    return 0;
  }
  void clear() {
    for (auto& c : counts) c.store(0, memory_order_relaxed);
  }
};

struct Pauses {
  std::atomic<std::uint64_t> count{0};
  std::atomic<std::int64_t> total{0};
  std::atomic<std::int64_t> longest{0};
  Histogram pause, stop;
};
Pauses pauses;

/// Frozen here, until now.
void count_pause() {
  const std::int64_t lasted = arch::clock_now() - asked_at;
  bump(pauses.count);
  bump(pauses.total, lasted);
  if (lasted > peek(pauses.longest)) pauses.longest.store(lasted, memory_order_relaxed);
  pauses.pause.add(lasted);
  pauses.stop.add(stood_at - asked_at);
}

void end_freeze() {
  count_pause();
  freezer.store(nullptr, memory_order_relaxed);
  rt::thaw_world();
  keep_p(-1);
}

}  // namespace

bool frozen_here() { return (peek(sched.frozen) & 1) && peek(freezer) == my_thread(); }

bool stopped_here() { return peek(stopper) == me(); }

#ifndef NDEBUG
void check_not_frozen() {
  if (WEFT_LIKELY(!(peek(sched.frozen) & 1)) || !frozen_here()) return;
  end_freeze();  // else the report itself would wait for somebody who stands still
  fatalf("weft: the runtime was called, or memory asked of it, while the caller has frozen the world");
}
#endif

}  // namespace weft::rt

namespace weft::gc {

using namespace rt;

namespace {

void check_runs(const char* what) {
  const RunState s = sched.state.load(memory_order_acquire);  // [run-state] see lifecycle.cpp
  if (s == RunState::Off) fatalf("weft: gc::%s called while no runtime runs", what);
}

void begin_stop(const char* what) {
  if (frozen_here()) {
    end_freeze();  // panic() allocates
    panic(std::string("weft: gc::") + what + " while the caller has frozen the world, which goes on now");
  }
  if (peek(stopper) == me()) panic(std::string("weft: gc::") + what + " while the caller has stopped the world already");
}

[[noreturn]] void not_stopped(const char* what) {
  panic(std::string("weft: gc::") + what + " of a world that the caller has not stopped so");
}

}  // namespace

void stop_world() {
  check_runs("stop_world");
  begin_stop("stop_world");
  Inside inside;
  rt::stop_world();
  keep_p(1);
  stopper.store(me(), memory_order_relaxed);
}

void start_world() {
  {
    if (frozen_here() || peek(stopper) != me()) {
      if (frozen_here()) end_freeze();
      not_stopped("start_world");
    }
    Inside inside;
    stopper.store(nullptr, memory_order_relaxed);
    rt::start_world();
    keep_p(-1);
  }
  safepoint();
}

// Neither is a safepoint: the caller may hold locks that its thread must give back.
bool freeze_world() {
  begin_stop("freeze_world");
#ifndef NDEBUG
  value_check.store(check_not_frozen, memory_order_relaxed);
#endif
  keep_p(1);
  if (!rt::freeze_world()) {
    keep_p(-1);
    return false;
  }
  freezer.store(my_thread(), memory_order_relaxed);
  return true;
}

void thaw_world() {
  if (!frozen_here()) not_stopped("thaw_world");
  end_freeze();
}

bool frozen_by_caller() { return frozen_here(); }

PauseStats pause_stats() {
  PauseStats s;
  s.count = peek(pauses.count);
  s.total_ns = peek(pauses.total);
  s.max_ns = peek(pauses.longest);
  s.p50_ns = std::min(pauses.pause.percentile(50), s.max_ns);
  s.p99_ns = std::min(pauses.pause.percentile(99), s.max_ns);
  s.stop_p50_ns = std::min(pauses.stop.percentile(50), s.max_ns);
  s.stop_p99_ns = std::min(pauses.stop.percentile(99), s.max_ns);
  return s;
}

void clear_pause_stats() {
  NotFrozen alone;
  pauses.count.store(0, memory_order_relaxed);
  pauses.total.store(0, memory_order_relaxed);
  pauses.longest.store(0, memory_order_relaxed);
  pauses.pause.clear();
  pauses.stop.clear();
}

bool suspend(std::uint64_t goid) {
  check_runs("suspend");
  begin_stop("suspend");
  Inside inside;
  if (goid == weft::goid()) panic("weft: gc::suspend of the calling goroutine");
  return suspend_g(goid);
}

void resume(std::uint64_t goid) {
  check_runs("resume");
  begin_stop("resume");
  Inside inside;
  if (!resume_g(goid)) panic("weft: gc::resume of goroutine " + std::to_string(goid) + ", which is not suspended");
}

}  // namespace weft::gc
