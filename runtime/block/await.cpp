// await: a gate that one waiter passes once, opened by whoever calls first.
//
// Orders  The claim orders nothing: it only chooses who opens. Opening is under the gate's lock, whose release shows the
//         result to the waiter.
#include <weft/await.hpp>

#include "runtime/block/cancel.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/block/queue.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::detail {

using namespace rt;

struct AwaitGate::Impl {
  std::atomic<bool> claimed{false};
  SpinLock lock;
  WaitQueue queue;     // under lock
  bool open = false;   // under lock
  bool lost = false;   // under lock: abandoned
};

AwaitGate::AwaitGate() : impl_(new Impl) {}
AwaitGate::~AwaitGate() { delete impl_; }

bool AwaitGate::wait() {
  Inside inside;
  Impl& g = *impl_;
  g.lock.lock();
  if (!g.open) {
    Waiter* w = my_waiter();
    const G* gp = w->g();
    WaitNode* n = plain_node(w, gp && gp->domain);
    g.queue.push(n, &g.lock);
    must_not_be_canceled(wait_on(w, n->ticket, WaitReason::Await, this, &g.lock, kNever));
    g.lock.lock();  // the opener may still be at it
  }
  const bool ok = !g.lost;
  g.lock.unlock();
  return ok;
}

bool AwaitGate::claim() {
  return !impl_->claimed.exchange(true, memory_order_relaxed);
}

namespace {

template <class G>
void open_gate(G& g, bool lost) {
  Inside inside;
  Outside outside(inside.m);
  g.lock.lock();
  g.open = true;
  g.lost = lost;
  WaitNode* n = g.queue.pop_winner(Outcome::Wake);
  g.lock.unlock();
  if (n) wake_waiter(n->waiter);
}

}  // namespace

// The caller's handle keeps the state alive.
void AwaitGate::open() { open_gate(*impl_, false); }
void AwaitGate::abandon() { open_gate(*impl_, true); }

}  // namespace weft::detail
