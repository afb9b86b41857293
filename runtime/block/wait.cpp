// See wait.hpp.
//
// Orders     [runnext] see core/p.hpp; [idle] see sched/idle.cpp.
#include "runtime/block/wait.hpp"

#include <string>

#include "runtime/block/panic.hpp"
#include "runtime/sched/cancel.hpp"

namespace weft::rt {
namespace {

struct Wait {
  SpinLock* lock;
  CancelSource* source;
  WaitNode* node;  // the source's
  std::int64_t deadline;
};

void commit_wait(M*, G* from, void* arg) {
  const Wait wt = *static_cast<Wait*>(arg);
  if (wt.lock) wt.lock->unlock();
  enroll(wt.source, wt.node);
  if (wt.deadline != kNever) timer_arm(&from->timer);
  end_guarded_commit(from);
}

}  // namespace

WaitNode* source_node(Waiter* w, std::uint64_t ticket) {
  WaitNode* n = nodes_for(w->g(), 1);
  n->waiter = w;
  n->ticket = ticket;
  n->index = Waiter::kNone;
  n->racy = true;
  n->success = false;
  n->elem = nullptr;
  n->queue = nullptr;
  n->lock = nullptr;
  return n;
}

// From here the source may end the wait.
void enroll(CancelSource* source, WaitNode* n) {
  source->lock.lock();
  if (source->over) {
    source->lock.unlock();
    if (n->waiter->try_win(n->ticket, Outcome::Cancel)) wake_waiter(n->waiter);
    return;
  }
  source->waits.push(n, &source->lock);
  source->lock.unlock();
}

void leave_queue(WaitNode* n) {
  if (!n->lock) return;
  n->lock->lock();
  if (n->queue) n->queue->remove(n);
  n->lock->unlock();
}

Outcome wait_within(Waiter* w, std::uint64_t ticket, WaitReason reason, const void* object, SpinLock* lock,
                    const Limit& limit) {
  if (!limit.source) return wait_on(w, ticket, reason, object, lock, limit.deadline);
  G* gp = w->g();
  Wait wt{lock, limit.source, source_node(w, ticket), limit.deadline};
  WaitNode* n = wt.node;
  if (gp) {
    gp->nodes_count = 1;
    if (limit.deadline != kNever) set_timeout(gp, ticket, limit.deadline);
    gp->guard.lock();
    park_call(current_m(), reason, object, commit_wait, &wt);
    gp->guard.lock();  // its commit may still be at work on another thread
    gp->guard.unlock();
    pass_canceller(gp);
    if (limit.deadline != kNever) timer_remove(&gp->timer);
    gp->nodes_count = 0;
  } else {
    if (lock) lock->unlock();
    enroll(wt.source, n);
    if (limit.deadline == kNever) {
      w->note.sleep();
    } else if (!w->note.sleep_until(limit.deadline)) {
      if (!w->try_win(ticket, Outcome::Timeout)) w->note.sleep();  // the winner is about to wake us
    }
  }
  const Outcome o = w->outcome();
  leave_queue(n);
  if (o != Outcome::Wake && o != Outcome::Close) leave_queue(&w->node);
  if (WEFT_UNLIKELY(o == Outcome::Stop)) unwind_current(true);
  return o;
}

void wake_before_park(Waiter* w) {
  M* mp = current_m();
  G* gp = w->g();
  P* pp = mp ? static_cast<P*>(mp->p) : nullptr;
  if (!gp || !pp || pp->solo) {
    wake_waiter(w);
    return;
  }
  check_inside(mp);
  set_status(gp, GStatus::Waiting, GStatus::Runnable);
  // [runnext] [idle] as put_next_shared(); without the look for idle Ps unless somebody was displaced.
  G* old = pp->runnext.exchange(gp, memory_order_seq_cst);
  if (!old) return;
  put_back(pp, old);
  if (sched.idle_ps_count.load(memory_order_seq_cst) != 0) wake_one();  // [idle]
}

void panic_own_stack(const G* gp) {
  const std::string text = "weft: goroutine " + std::to_string(gp->id) +
                           " waits on an object on its own copyable stack, where nobody can reach it meanwhile: put it on the heap "
                           "(std::make_shared), or start the goroutine without Stack::Copyable";
  panic_runtime(text.c_str());
}

void cancel_waits(CancelSource& source) {
  // In batches: who wants to leave the queue meanwhile must not wait for all the others.
  constexpr int kAtOnce = 64;
  for (bool more = true; more;) {
    WaitNode* won = nullptr;
    WaitNode** end = &won;
    source.lock.lock();
    source.over = true;
    for (int i = 0; i < kAtOnce && more; i++) {
      WaitNode* n = source.waits.pop_winner(Outcome::Cancel);
      if (!n) {
        more = false;
        break;
      }
      n->next = nullptr;
      *end = n;
      end = &n->next;
    }
    source.lock.unlock();
    while (won) {
      WaitNode* next = won->next;
      wake_waiter(won->waiter);
      won = next;
    }
  }
}

}  // namespace weft::rt
