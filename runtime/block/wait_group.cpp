// WaitGroup.
//
// State      counter << 32 | somebody waits. add() and done() are one addition; only the done() that brings the counter to zero
//            while somebody waits does more.
// Lifetime   Once a waiter can see a zero the object may be gone. So the counter reaches zero *with* waiters only under the
//            guard, where the queue is emptied into a private list and the guard released before anybody is readied; a waiter
//            that comes late sees the zero only together with that release: it takes the guard once before it returns.
// Orders     [wait-group] release by done(), acquire by wait(): what was done is seen by who waited.
#include <weft/wait_group.hpp>

#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/sched/sched.hpp"

namespace weft {

using namespace rt;

struct WaitGroupImpl {
  static constexpr std::uint64_t kOne = std::uint64_t{1} << 32;
  static constexpr std::uint64_t kWaited = 1;

  std::atomic<std::uint64_t>& state;
  SpinLock& guard;
  WaitQueue& queue;
  explicit WaitGroupImpl(WaitGroup& g) : state(g.state_), guard(lock_in(g.guard_)), queue(queue_in(g.waiters_)) {}
};

void WaitGroup::add(int n) {
  SCHED_POINT("wait group add");
  Inside inside;
  Outside outside(inside.m);
  WaitGroupImpl g(*this);
  const auto by = static_cast<std::uint64_t>(static_cast<std::int64_t>(n)) << 32;
  std::uint64_t s = peek(g.state);
  for (;;) {
    const std::int64_t count = static_cast<std::int64_t>(s) >> 32;
    if (count + n < 0) panic_runtime("sync: negative WaitGroup counter");
    if (count + n > 0x7fffffff) panic_runtime("weft: WaitGroup counter overflow");
    if (count + n == 0 && (s & WaitGroupImpl::kWaited)) break;
    if (g.state.compare_exchange_weak(s, s + by, memory_order_acq_rel, memory_order_relaxed)) return;  // [wait-group]
  }
  g.guard.lock();
  // Others may add or finish meanwhile: whoever brings it to zero under the guard wakes.
  s = peek(g.state);
  for (;;) {
    const std::int64_t count = (static_cast<std::int64_t>(s) >> 32) + n;
    if (count < 0) {
      g.guard.unlock();
      panic_runtime("sync: negative WaitGroup counter");
    }
    const std::uint64_t next = count == 0 ? 0 : s + by;
    if (g.state.compare_exchange_weak(s, next, memory_order_acq_rel, memory_order_relaxed)) {  // [wait-group]
      if (count != 0) {
        g.guard.unlock();
        return;
      }
      break;
    }
  }
  WaitNode* all = nullptr;
  WaitNode** end = &all;
  while (WaitNode* w = g.queue.pop_winner(Outcome::Wake)) {
    w->next = nullptr;
    *end = w;
    end = &w->next;
  }
  g.guard.unlock();
  while (all) {
    WaitNode* next = all->next;
    wake_waiter(all->waiter);
    all = next;
  }
}

namespace {

/// Wake: the counter was zero. Else what the limit says.
Outcome wait_for_zero(WaitGroup* self, WaitGroupImpl g, WaitReason reason, Limit limit) {
  SCHED_POINT("wait group wait");
  std::uint64_t s = g.state.load(memory_order_acquire);  // [wait-group]
  if (s == 0 && !g.guard.held()) return Outcome::Wake;
  if (limit.deadline != kNever && limit.deadline <= arch::clock_now() && s >> 32 != 0) return Outcome::Timeout;
  prepare_wait(current_g(), limit, self);
  g.guard.lock();
  s = peek(g.state);
  for (;;) {
    if (s >> 32 == 0) {
      (void)g.state.load(memory_order_acquire);  // [wait-group]
      g.guard.unlock();
      return Outcome::Wake;
    }
    if (g.state.compare_exchange_weak(s, s | WaitGroupImpl::kWaited, memory_order_relaxed)) break;
  }
  Waiter* w = my_waiter();
  WaitNode* n = plain_node(w, limit.any());
  g.queue.push(n, &g.guard);
  return wait_within(w, n->ticket, reason, self, &g.guard, limit);
  // After Wake the group may be gone; the waker's [win] has brought what the done() before it saw.
}

}  // namespace

bool WaitGroup::wait_until_ns(std::int64_t deadline, bool latch) {
  Inside inside;
  const WaitReason reason = latch ? WaitReason::Latch : WaitReason::WaitGroup;
  const Outcome o = wait_for_zero(this, WaitGroupImpl(*this), reason, {.deadline = deadline});
  if (deadline == kNever) must_not_be_canceled(o);
  return has_happened(o);
}

std::error_code WaitGroup::wait_ctx(const Context& ctx, bool latch) {
  Inside inside;
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  const WaitReason reason = latch ? WaitReason::Latch : WaitReason::WaitGroup;
  return error_of(wait_for_zero(this, WaitGroupImpl(*this), reason, by.limit()), by);
}

void WaitGroup::destroyed_in_use() {
  WaitGroupImpl g(*this);
  const std::uint64_t s = peek(g.state);
  char who[256];
  g.guard.lock();
  describe_waiters(g.queue, who, sizeof who);
  // A counter above zero without waiters is the owner's business, as in Go.
  if (!(s & WaitGroupImpl::kWaited) || !who[0]) {
    g.guard.unlock();
    return;
  }
  fatalf("weft: WaitGroup destroyed while waited for by %s", who);
}

}  // namespace weft
