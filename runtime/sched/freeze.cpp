// Stopping at any instruction: the whole world, or one goroutine.
//
// Freeze     Sched::frozen is odd while the world is frozen. Every M that can run code is sent SIGURG and stands in the handler
//            until the word changes; the signal's frame holds its registers (M::stands_at). An M that sleeps is left alone and
//            looks at the word when it wakes:
//
//              freezer, holding Sched::world           M that sleeps
//              frozen++ (odd)                          asleep = true
//              mu: asleep ? skip                       ... asleep = false
//                  : count it, ask, signal             frozen odd ? wait until it changes
//
//            All of these are seq_cst: one of the two sees the other. Sched::mu is held while the signals are sent, so nobody
//            stands still who holds it then; who takes it later and is hit there is why nothing may be locked inside a freeze.
//            The word counts: an M that has not yet seen the end of one freeze when the next begins leaves the first one's wait,
//            takes the signal that has been held back, and answers again.
// Suspend    With the world stopped at safepoints every G is parked, queued, or runs without a P. Of the last the thread stands in
//            the handler (M::suspended); the others are marked special and `held`, so that whoever finds one in a queue puts it
//            aside (start_special) instead of running it.
// Left out   Threads that are not the runtime's: they run no goroutine.
// Orders     [freeze] seq_cst as above; release by the handler when it stands, acquire by the freezer: it sees the registers.
//            [status] see core/g.hpp. [depth] see preempt.cpp. [run-state] see lifecycle.cpp.
#include <weft/gc_hook.hpp>
#include <weft/panic.hpp>

#include "arch/interrupt.hpp"
#include "runtime/base/check.hpp"
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

void count_down(std::uint32_t round) {
  std::uint64_t left = sched.freeze_left.load(memory_order_acquire);  // [freeze]
  do {
    if (round_of(left) != round) return;
  } while (!sched.freeze_left.compare_exchange_weak(left, left - 1, memory_order_acq_rel, memory_order_acquire));  // [freeze]
  if (static_cast<std::uint32_t>(left) == 1) sched.freeze_note.wake();
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
  if (!arch::interrupt_thread(mp->tid) && mp->freeze_asked.exchange(0, memory_order_seq_cst)) count_down(round);  // [freeze]
}

bool all_stand(std::uint32_t round) {
  count_down(round);
  const std::int64_t limit = arch::clock_now() + kFreezeLimit;
  auto left = [] { return static_cast<std::uint32_t>(sched.freeze_left.load(memory_order_acquire)); };  // [freeze]
  while (left() != 0)
    if (!sched.freeze_note.sleep_until(limit) && left() != 0) return false;
  return true;
}

}  // namespace

void on_interrupt(void* ucontext) {
  M* mp = current_m();
  if (!mp) return;
  let_go_when_asked(mp);
  const std::uint32_t round = mp->freeze_asked.exchange(0, memory_order_seq_cst);  // [freeze]
  if (!round) return;
  const std::uint32_t now = sched.frozen.load(memory_order_seq_cst);     // [freeze]
  mp->stands_at.store(ucontext, memory_order_release);                   // [freeze]
  count_down(round);
  if (now & 1) wait_while(sched.frozen, now);
  wait_while(mp->suspended, 1);
  mp->stands_at.store(nullptr, memory_order_release);  // [freeze]
}

Asleep::Asleep(M* mp) : m_(mp) { m_->asleep.store(true, memory_order_seq_cst); }  // [freeze]

Asleep::~Asleep() {
  m_->asleep.store(false, memory_order_seq_cst);  // [freeze]
  for (std::uint32_t now; (now = sched.frozen.load(memory_order_seq_cst)) & 1;) wait_while(sched.frozen, now);  // [freeze]
}

void never_freeze(M* mp) {
  mp->asleep.store(true, memory_order_seq_cst);                                       // [freeze]
  if (const std::uint32_t round = mp->freeze_asked.exchange(0, memory_order_seq_cst)) count_down(round);  // [freeze]
}

bool freeze_world() {
  lock_world();
  if (!arch::interrupts_install(on_interrupt)) {
    sched.world.unlock();
    return false;
  }
  M* self = current_m();
  const std::uint32_t round = begin_asking();
  sched.frozen.fetch_add(1, memory_order_seq_cst);  // [freeze]
  sched.mu.lock();
  for (M* mp = sched.all_ms; mp; mp = mp->all_link)
    if (mp != self && !mp->asleep.load(memory_order_seq_cst)) ask_to_stand(mp, round);  // [freeze]
  sched.mu.unlock();
  if (all_stand(round)) return true;
  thaw_world();
  return false;
}

void thaw_world() {
  sched.frozen.fetch_add(1, memory_order_seq_cst);  // [freeze]
  arch::futex_wake(sched.frozen, 1 << 30);
  sched.world.unlock();
}

// ---- one goroutine -------------------------------------------------------------------------------------------------

namespace {

struct Wanted {
  std::uint64_t id;
  G* found;
};

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

void keep_in_queue(G* gp) {
  gp->extra->started_before = gp->started;
  gp->started = kSpecial;
}

void let_stand_end(M* mp) {
  mp->suspended.store(0, memory_order_seq_cst);  // [freeze]
  arch::futex_wake(mp->suspended, 1);
}

/// World stopped. False: its thread does not come.
bool hold(G* gp) {
  if (!gp->extra) gp->extra = new GExtra{};
  const GStatus s = gp->status.load(memory_order_acquire);  // [status]
  if (gp->extra->held++ > 0) return true;
  sched.held++;
  if (s == GStatus::Waiting || s == GStatus::Runnable) {
    keep_in_queue(gp);
    return true;
  }
  M* mp = gp->m;
  gp->extra->stands = mp;
  const std::uint32_t round = begin_asking();
  sched.mu.lock();
  mp->suspended.store(1, memory_order_seq_cst);  // [freeze]
  ask_to_stand(mp, round);
  sched.mu.unlock();
  if (!all_stand(round)) return false;
  if (running_on(mp) == gp) return true;
  // It has just been queued for want of a P.
  gp->extra->stands = nullptr;
  let_stand_end(mp);
  keep_in_queue(gp);
  return true;
}

/// World stopped.
void let_on(G* gp) {
  GExtra* x = gp->extra;
  if (--x->held > 0) return;
  sched.held--;
  if (M* mp = std::exchange(x->stands, nullptr)) {
    let_stand_end(mp);
    return;
  }
  gp->started = x->started_before;
  if (std::exchange(x->aside, false)) put_global(gp, true);
}

}  // namespace

bool look_at_running_g(M* mp, G* gp, void (*f)(G* gp, const void* ucontext, void* arg), void* arg) {
  if (!sched.world.try_lock()) return false;
  bool seen = false;
  if (arch::interrupts_install(on_interrupt) && !mp->asleep.load(memory_order_seq_cst) && peek(mp->suspended) == 0) {  // [freeze]
    const std::uint32_t round = begin_asking();
    sched.mu.lock();
    mp->suspended.store(1, memory_order_seq_cst);  // [freeze]
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
  sched.world.unlock();
  return seen;
}

bool put_aside_if_held(G* gp) {
  if (!gp->extra || !gp->extra->held) return false;
  gp->extra->aside = true;
  return true;
}

bool suspend_g(std::uint64_t id) {
  stop_world();
  G* gp = arch::interrupts_install(on_interrupt) ? find_g(id) : nullptr;
  const bool stands = gp && hold(gp);
  if (gp && !stands) let_on(gp);
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

namespace weft::gc {

using namespace rt;

namespace {

// Who has stopped the world: by address, a goroutine's descriptor or a plain thread's.
thread_local char this_thread;
std::atomic<const void*> stopper{nullptr};
std::atomic<bool> froze{false};

const void* me() {
  G* gp = current_g();
  return gp ? static_cast<const void*>(gp) : &this_thread;
}

/// The caller keeps its P until it lets the world go on.
void keep_p(int by) {
  if (G* gp = current_g())
    gp->no_preempt.store(static_cast<std::uint8_t>(peek(gp->no_preempt) + by), memory_order_release);  // [depth] see preempt.cpp
}

void check_runs(const char* what) {
  const RunState s = sched.state.load(memory_order_acquire);  // [run-state] see lifecycle.cpp
  if (s == RunState::Off) fatalf("weft: gc::%s called while no runtime runs", what);
}

void begin_stop(const char* what) {
  check_runs(what);
  if (peek(stopper) == me()) panic(std::string("weft: gc::") + what + " while the caller has stopped the world already");
}

void end_stop(const char* what, bool frozen) {
  if (peek(stopper) != me() || peek(froze) != frozen)
    panic(std::string("weft: gc::") + what + " of a world that the caller has not stopped so");
  stopper.store(nullptr, memory_order_relaxed);
}

}  // namespace

void stop_world() {
  Inside inside;
  begin_stop("stop_world");
  rt::stop_world();
  keep_p(1);
  froze.store(false, memory_order_relaxed);
  stopper.store(me(), memory_order_relaxed);
}

void start_world() {
  {
    Inside inside;
    end_stop("start_world", false);
    rt::start_world();
    keep_p(-1);
  }
  safepoint();
}

bool freeze_world() {
  Inside inside;
  begin_stop("freeze_world");
  if (!rt::freeze_world()) return false;
  keep_p(1);
  froze.store(true, memory_order_relaxed);
  stopper.store(me(), memory_order_relaxed);
  return true;
}

void thaw_world() {
  {
    Inside inside;
    end_stop("thaw_world", true);
    rt::thaw_world();
    keep_p(-1);
  }
  safepoint();
}

bool suspend(std::uint64_t goid) {
  Inside inside;
  begin_stop("suspend");
  if (goid == weft::goid()) panic("weft: gc::suspend of the calling goroutine");
  return suspend_g(goid);
}

void resume(std::uint64_t goid) {
  Inside inside;
  begin_stop("resume");
  if (!resume_g(goid)) panic("weft: gc::resume of goroutine " + std::to_string(goid) + ", which is not suspended");
}

}  // namespace weft::gc
