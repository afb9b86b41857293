// Cond.
//
// Protocol   A waiter queues under the guard, unlocks the user's lock with the guard still held, and parks; the guard is released
//            by the next context. So nobody can be notified who is not parked, and a notifier that holds the user's lock finds
//            everybody who waited before. notify_one takes the oldest whose wait it wins.
// Moving     A waiter that is woken while its Mutex is held would only queue up there. So notify moves its node to the Mutex's
//            queue instead (if nothing else may end its wait), and the unlock wakes it: one switch per hand-over, no herd.
// Tasks      A wait in a task or scope is never moved: it is not ended by its queue alone.
// Locks      The guard, then the user's lock's own guard (locks.hpp); waking the next holder of that lock is under both.
// Orders     The guard's.
#include <weft/cond.hpp>

#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/locks.hpp"

namespace weft {

using namespace rt;
using detail::CondEnd;
using detail::CondLock;

struct CondImpl {

  SpinLock& guard;
  WaitQueue& queue;
  explicit CondImpl(Cond& c) : guard(lock_in(c.guard_)), queue(*std::launder(reinterpret_cast<WaitQueue*>(&c.first_))) {
    static_assert(offsetof(WaitQueue, first) == 0 && sizeof(WaitQueue) == sizeof c.first_ + sizeof c.last_);
  }

  static void unlock(CondLock kind, void* lock) {
    switch (kind) {
      case CondLock::Mutex: unlock_inside(*static_cast<weft::Mutex*>(lock)); break;
      case CondLock::Write: unlock_inside(*static_cast<RwMutex*>(lock)); break;
      case CondLock::Read: unlock_shared_inside(*static_cast<RwMutex*>(lock)); break;
    }
  }

  CondEnd wait(Cond* self, void* lock, CondLock kind, Limit limit) {
    SCHED_POINT("cond wait");
    if (on_own_copyable_stack(current_g(), self)) {
      unlock(kind, lock);  // as for every wait that is unwound
      panic_own_stack(current_g());
    }
    prepare_wait(current_g(), limit);
    Waiter* w = my_waiter();
    WaitNode* n = plain_node(w, limit.any());
    n->index = kInPlace;
    if (kind == CondLock::Mutex && !limit.any()) n->elem = lock;
    guard.lock();
    queue.push(n, &guard);
    unlock(kind, lock);
    const Outcome o = wait_within(w, n->ticket, WaitReason::Cond, self, &guard, limit);
    if (o == Outcome::Cancel) return CondEnd::Canceled;
    if (o != Outcome::Wake) return CondEnd::Ended;
    if (n->index == kInPlace) return CondEnd::Notified;
    lock_resumed(*static_cast<weft::Mutex*>(lock), n);
    return CondEnd::Locked;
  }

  /// Guard held. With one P the waiter does not run before the notifier lets go anyway.
  bool move_first(const M* mp) {
    if (const P* pp = mp ? static_cast<P*>(mp->p) : nullptr; pp && pp->solo) return false;
    WaitNode* n = peek(queue.first);
    return n && n->elem && move_waiter(queue, n, *static_cast<weft::Mutex*>(n->elem));
  }
};

namespace detail {

CondEnd cond_wait(Cond& cv, void* lock, CondLock kind, std::int64_t deadline) {
  Inside inside;
  if (deadline != kNever && deadline <= arch::clock_now()) return CondEnd::Held;
  return CondImpl(cv).wait(&cv, lock, kind, {.deadline = deadline});
}

CondEnd cond_wait(Cond& cv, void* lock, CondLock kind, const Context& ctx, std::error_code& error) {
  Inside inside;
  ContextWait by(ctx);
  error = by.error();
  if (error) return CondEnd::Held;
  const CondEnd end = CondImpl(cv).wait(&cv, lock, kind, by.limit());
  if (end == CondEnd::Canceled && (error = by.error())) return CondEnd::Ended;
  return end;
}

}  // namespace detail

void Cond::notify(bool all) {
  SCHED_POINT("cond notify");
  Inside inside;
  Outside outside(inside.m);
  CondImpl c(*this);
  WaitNode* woken = nullptr;
  WaitNode** end = &woken;
  c.guard.lock();
  for (bool more = true; more; more = all && peek(c.queue.first)) {
    if (c.move_first(inside.m)) continue;
    WaitNode* n = c.queue.pop_winner(Outcome::Wake);
    if (!n) break;
    n->next = nullptr;
    *end = n;
    end = &n->next;
  }
  c.guard.unlock();
  while (woken) {
    WaitNode* next = woken->next;
    wake_waiter(woken->waiter);
    woken = next;
  }
}

void Cond::destroyed_in_use() {
  CondImpl c(*this);
  char who[256];
  c.guard.lock();
  describe_waiters(c.queue, who, sizeof who);
  c.guard.unlock();
  if (who[0]) fatalf("weft: Cond destroyed while waited for by %s", who);
}

}  // namespace weft
