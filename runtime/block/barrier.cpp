// Barrier.
//
// Protocol   The last to arrive runs the completion without the guard (nobody else can change the phase then), opens the next
//            phase under it, and wakes all.
// Orders     The guard's.
#include <weft/barrier.hpp>

#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/panic.hpp"

namespace weft {

using namespace rt;

struct BarrierImpl {
  SpinLock& guard;
  WaitQueue& queue;
  explicit BarrierImpl(Barrier& b) : guard(lock_in(b.guard_)), queue(queue_in(b.waiters_)) {}

  static Outcome wait(Barrier* self, std::uint64_t phase, Limit limit) {
    SCHED_POINT("barrier wait");
    BarrierImpl b(*self);
    prepare_wait(current_g(), limit, self);
    b.guard.lock();
    if (self->phase_ != phase) {
      b.guard.unlock();
      return Outcome::Wake;
    }
    if (limit.deadline != kNever && limit.deadline <= arch::clock_now()) {
      b.guard.unlock();
      return Outcome::Timeout;
    }
    Waiter* w = my_waiter();
    WaitNode* n = plain_node(w, limit.any());
    b.queue.push(n, &b.guard);
    return wait_within(w, n->ticket, WaitReason::Barrier, self, &b.guard, limit);
  }
};

Barrier::Barrier(int expected, std::function<void()> completion)
    : expected_(static_cast<std::uint32_t>(expected)), left_(expected_), completion_(std::move(completion)) {
  if (expected < 0) panic_runtime("weft: Barrier with a negative number of participants");
}

Barrier::~Barrier() {
  BarrierImpl b(*this);
  char who[256];
  b.guard.lock();
  describe_waiters(b.queue, who, sizeof who);
  b.guard.unlock();
  if (who[0]) fatalf("weft: Barrier destroyed while waited for by %s", who);
}

std::uint64_t Barrier::arrive_at(bool drop) {
  SCHED_POINT("barrier arrive");
  BarrierImpl b(*this);
  std::uint64_t mine;
  {
    Inside inside;
    b.guard.lock();
    mine = phase_;
    const bool too_many = left_ == 0;
    if (!too_many && drop) expected_--;
    const bool last = !too_many && --left_ == 0;
    b.guard.unlock();
    if (too_many) panic_runtime("weft: more arrivals at a Barrier than it expects");
    if (!last) return mine;
  }
  if (completion_) completion_();
  Inside inside;
  Outside outside(inside.m);
  WaitNode* woken = nullptr;
  WaitNode** end = &woken;
  b.guard.lock();
  left_ = expected_;
  phase_++;
  while (WaitNode* n = b.queue.pop_winner(Outcome::Wake)) {
    n->next = nullptr;
    *end = n;
    end = &n->next;
  }
  b.guard.unlock();
  while (woken) {
    WaitNode* next = woken->next;
    wake_waiter(woken->waiter);
    woken = next;
  }
  return mine;
}

bool Barrier::wait_until_ns(std::uint64_t phase, std::int64_t deadline) {
  Inside inside;
  const Outcome o = BarrierImpl::wait(this, phase, {.deadline = deadline});
  if (deadline == kNever) must_not_be_canceled(o);
  return has_happened(o);
}

std::error_code Barrier::wait_ctx(const Context& ctx, std::uint64_t phase) {
  Inside inside;
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  return error_of(BarrierImpl::wait(this, phase, by.limit()), by);
}

}  // namespace weft
