// await: a gate that one waiter passes once, opened by whoever calls first.
//
// Orders  The claim orders nothing: it only chooses who opens. Opening is under the gate's lock, whose release shows the
//         result to the waiter.
#include <weft/await.hpp>

#include <weft/context.hpp>

#include "runtime/block/cancel.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/block/queue.hpp"

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

namespace {

/// Wake: it is open.
template <class G>
Outcome pass(G& g, const void* object, Limit limit) {
  prepare_wait(current_g(), limit);
  g.lock.lock();
  Outcome o = Outcome::Wake;
  if (!g.open) {
    WaitNode* n = plain_node(my_waiter(), limit.any());
    g.queue.push(n, &g.lock);
    o = wait_within(n->waiter, n->ticket, WaitReason::Await, object, &g.lock, limit);
    g.lock.lock();  // the opener may still be at it
  }
  if (g.open) o = Outcome::Wake;  // also if it came while the wait was being ended
  g.lock.unlock();
  return o;
}

}  // namespace

bool AwaitGate::wait() {
  Inside inside;
  must_not_be_canceled(pass(*impl_, this, {}));
  return !impl_->lost;
}

AwaitEnd AwaitGate::wait_until(std::int64_t deadline) {
  Inside inside;
  if (!has_happened(pass(*impl_, this, {.deadline = timed(deadline)}))) return AwaitEnd::Ended;
  return impl_->lost ? AwaitEnd::Abandoned : AwaitEnd::Opened;
}

AwaitEnd AwaitGate::wait(const Context& ctx) {
  Inside inside;
  ContextWait by(ctx);
  if (error_of(pass(*impl_, this, by.limit()), by)) return AwaitEnd::Ended;
  return impl_->lost ? AwaitEnd::Abandoned : AwaitEnd::Opened;
}

bool is_done(const Context& ctx) { return static_cast<bool>(ctx.err()); }

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
