// Timers that users hold: channel timers and tickers, and after_func.
//
// Channel    The timer is part of its channel's block, with one count of handles for both. It looks unbuffered (len and cap 0)
//            but keeps one value until it is received; stop and reset throw that value away under the channel's lock, so
//            nothing stale is ever received. An armed one holds no reference: it ends with its last handle. Firing takes one
//            under the heap's lock (claim), and freeing disarms under that lock first: one of the two sees the other.
// Function   An armed one holds a reference: it fires even if every handle is gone. Each firing is a goroutine of its own that
//            calls the closure in place, with lvalues: a later one finds it as the first did.
// Generation stop and reset change `generation` under `mu`; a firing that is under way finds another one and does nothing.
// Orders     [timer-refs] as [chan-ref] in include/weft/chan.hpp.
#include <weft/time.hpp>

#include <memory>
#include <new>

#include "runtime/base/check.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/chan.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::detail {

using namespace rt;

struct TimerHead {
  ChanCore* chan = nullptr;  // null: after_func
  SpinLock mu;
  std::uint64_t generation = 0;  // under mu, with all below
  bool armed = false;
  std::int64_t period = 0;
  TimerNode node;
  // after_func
  std::atomic<std::uint32_t> refs{1};
  const ClosureOps* ops = nullptr;
  void* closure = nullptr;
  bool built = false;  // the closure's constructor has returned; written before the timer is shared
  const void* site = nullptr;
};

namespace {

struct ChanTimer {
  ChanCore core;  // first: its address is the channel's
  TimerHead head;
  alignas(Time) std::byte slot[sizeof(Time)];
};

TimerHead* head_of(TimerNode* n) {
  return reinterpret_cast<TimerHead*>(reinterpret_cast<char*>(n) - offsetof(TimerHead, node));
}

void drop_ref(TimerHead* t) {
  if (t->refs.fetch_sub(1, memory_order_acq_rel) != 1) return;  // [timer-refs]
  if (t->built) t->ops->destroy(t->closure);
  value_free(t->closure, t->ops->align);
  delete t;
}

void need_runtime() {
  const RunState s = sched.state.load(memory_order_acquire);  // [run-state] see sched/lifecycle.cpp
  if (s == RunState::Off || s == RunState::Ending) fatalf("weft: timer armed while no runtime runs");
}

/// mu held; not armed.
void arm(TimerHead* t, std::int64_t deadline) {
  t->armed = true;
  t->node.when = timed(deadline);
  t->node.ticket = t->generation;
  timer_arm(&t->node);
}

// ---- channel timers ------------------------------------------------------------------------------------------------

bool claim_chan(TimerNode* node) {
  TimerHead* t = head_of(node);
  std::uint32_t n = peek(t->chan->refs);
  while (n != 0)
    if (t->chan->refs.compare_exchange_weak(n, n + 1, memory_order_acq_rel, memory_order_relaxed)) return true;  // [timer-refs]
  return false;
}

void fire_chan(TimerNode* node, std::uint64_t generation, std::int64_t now) {
  TimerHead* t = head_of(node);
  ChanRef keep(t->chan);  // the claim's reference
  t->mu.lock();
  if (t->generation == generation) {
    Time at{Clock::duration(now)};
    t->chan->lock.lock();
    if (attempt_send(t->chan, &at) == Attempt::WouldBlock) t->chan->lock.unlock();  // unread: this tick is dropped
    t->armed = false;
    if (t->period > 0) {
      const std::int64_t missed = (now - t->node.when) / t->period;
      const std::int64_t next = t->node.when + (missed + 1) * t->period;
      arm(t, next);
    }
  }
  t->mu.unlock();
}

/// Throws away an unread value. True: there was one.
bool discard(ChanCore* c) {
  c->lock.lock();
  const bool had = peek(c->count) != 0;
  c->count.store(0, memory_order_relaxed);
  c->send_at = c->recv_at = 0;
  c->lock.unlock();
  return had;
}

constexpr TimerNode::Ops kChanOps{fire_chan, claim_chan};

// ---- functions -----------------------------------------------------------------------------------------------------

struct Call {  // holds the firing's reference, also if it never runs
  TimerHead* t;
  explicit Call(TimerHead* of) : t(of) {}
  Call(Call&& o) noexcept : t(std::exchange(o.t, nullptr)) {}
  Call& operator=(Call&&) = delete;
  ~Call() {
    if (t) drop_ref(t);
  }
  void operator()() { t->ops->run(t->closure); }
};

void fire_func(TimerNode* node, std::uint64_t generation, std::int64_t) {
  TimerHead* t = head_of(node);
  t->mu.lock();
  const bool go = t->generation == generation;
  if (go) t->armed = false;
  t->mu.unlock();
  if (!go) {
    drop_ref(t);  // stopped or reset while it was on its way: the armed reference is ours
    return;
  }
  launch(new_goroutine(sizeof(Bound<Call>), alignof(Bound<Call>)), Bound<Call>{Call(t)}, t->site);
}

// The runtime ended while it was armed: the armed reference goes.
void forget_func(TimerNode* node) { drop_ref(head_of(node)); }

constexpr TimerNode::Ops kFuncOps{fire_func, nullptr, forget_func};

}  // namespace

TimerHead* timer_make_chan(std::int64_t deadline, std::int64_t period) {
  need_runtime();
  Inside inside;
  auto* ct = new ChanTimer;
  ct->core.is_timer = true;
  ct->core.cap = 1;
  ct->core.size = sizeof(Time);
  ct->core.type = &kElemType<Time>;
  ct->core.buffer = ct->slot;
  TimerHead* t = &ct->head;
  t->chan = &ct->core;
  t->period = period;
  t->node.ops = &kChanOps;
  t->mu.lock();
  arm(t, deadline);
  t->mu.unlock();
  return t;
}

TimerHead* timer_make_func(std::int64_t deadline, const ClosureOps* ops, void** storage, const void* site) {
  need_runtime();
  Inside inside;
  auto t = std::make_unique<TimerHead>();
  t->closure = value_new(ops->size, ops->align);
  t->ops = ops;
  t->site = site;
  t->node.ops = &kFuncOps;
  t->node.when = deadline;
  *storage = t->closure;
  return t.release();
}

void timer_start(TimerHead* t) {
  t->built = true;
  Inside inside;
  t->refs.fetch_add(1, memory_order_relaxed);  // the armed one's
  t->mu.lock();
  arm(t, t->node.when);
  t->mu.unlock();
}

void timer_ref(TimerHead* t) { (t->chan ? t->chan->refs : t->refs).fetch_add(1, memory_order_relaxed); }

void timer_unref(TimerHead* t) {
  if (t->chan)
    ChanRef drop(t->chan);
  else
    drop_ref(t);
}

bool timer_stop(TimerHead* t) {
  t->mu.lock();
  const bool was_armed = t->armed;
  const bool removed = was_armed && timer_remove(&t->node);
  t->armed = false;
  t->generation++;
  const bool unread = t->chan && discard(t->chan);
  t->mu.unlock();
  if (removed && !t->chan) drop_ref(t);
  return was_armed || unread;
}

bool timer_reset(TimerHead* t, std::int64_t deadline, std::int64_t period) {
  need_runtime();
  Inside inside;
  t->mu.lock();
  const bool was_armed = t->armed;
  const bool removed = was_armed && timer_remove(&t->node);
  t->generation++;
  const bool unread = t->chan && discard(t->chan);
  t->period = period;
  if (!t->chan && !removed) t->refs.fetch_add(1, memory_order_relaxed);  // an armed reference; one on its way keeps its own
  arm(t, deadline);
  t->mu.unlock();
  return was_armed || unread;
}

ChanHead* timer_chan(TimerHead* t) {
  if (!t->chan) return nullptr;
  t->chan->refs.fetch_add(1, memory_order_relaxed);
  return t->chan;
}

void sleep_until_ns(std::int64_t deadline) {
  Inside inside;
  must_not_be_canceled(rt::sleep_until(deadline));
}

std::int64_t clock_now() noexcept { return arch::clock_now(); }

}  // namespace weft::detail

namespace weft::rt {

void free_timer_chan(ChanCore* c) {
  auto* ct = reinterpret_cast<weft::detail::ChanTimer*>(c);
  timer_remove(&ct->head.node);
  delete ct;
}

}  // namespace weft::rt
