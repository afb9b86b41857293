// Channels.
//
// Protocol   All state under one SpinLock. An operation that finds a parked peer takes it out of its queue (pop_winner decides
//            races with timeouts and cancels), releases the lock, copies the element directly between the two cells, then
//            readies the peer. A receive from a full buffer takes the oldest element and puts the first parked sender's in
//            the freed slot, so order is kept. Nobody there: the caller queues its node and parks; the lock is released by the
//            next context.
// Elements   Bytes (include/weft/detail/element.hpp): no user code runs here.
// Tasks      A plain operation's node stays exclusive in a task or scope too: a canceller takes it out under the lock. So the memory
//            goes only while no canceller looks at anybody (sched/cancel.hpp).
// Invariants A buffered channel has parked senders only while full, parked receivers only while empty; an unbuffered one never
//            has both; a closed one has neither.
// Orders     The lock's. Emptiness is read without it only to say "not now": count before closed, so that "empty, then still
//            open" was true at the moment of the first read.
//            [chan-closed] release by who closes, acquire by who goes on by that alone (block/context_node.hpp);
//            release by who drains, acquire by such readers: of a channel that was closed before it was drained they
//            see that, too.
#include "runtime/block/chan.hpp"

#include <weft/detail/value.hpp>

#include <new>

#include "runtime/base/sched_point.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/peer_cell.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/panic.hpp"
#include "runtime/sched/switch.hpp"

namespace weft::rt {
namespace {

WEFT_ALWAYS_INLINE std::byte* slot(ChanCore* c, std::size_t i) { return c->buffer + i * c->size; }

WEFT_ALWAYS_INLINE std::size_t after(const ChanCore* c, std::size_t i) { return i + 1 == c->cap ? 0 : i + 1; }

[[noreturn]] WEFT_COLD void panic_closed() { panic_runtime("send on closed channel"); }

[[noreturn]] WEFT_COLD void block_for_ever(WaitReason reason) {
  Inside inside;
  Waiter* w = my_waiter();
  const std::uint64_t ticket = w->begin();
  w->node.racy = true;
  must_not_be_canceled(wait_on(w, ticket, reason, nullptr, nullptr, kNever));
  __builtin_unreachable();
}

/// `mp`: null on a plain thread.
WEFT_ALWAYS_INLINE void wake_from(M* mp, Waiter* w) {
  if (WEFT_LIKELY(mp != nullptr))
    wake_here(mp, w);
  else
    wake_waiter(w);
}

/// A descriptor that was parked for long is not in the caches, and its lines are wanted one after the other: the node, the status, what
/// the closure captured. Fetched at once. (Of a thread's node, or one of several: in vain.)
WEFT_ALWAYS_INLINE void expect_peer(const WaitNode* n) {
  const char* const gp = reinterpret_cast<const char*>(n) - offsetof(G, waiter) - offsetof(Waiter, node);
  for (std::size_t line = 0; line < 3; line++) __builtin_prefetch(gp + line * arch::kCacheLine, 1);
}

WEFT_ALWAYS_INLINE Attempt attempt_send_inline(M* mp, ChanCore* c, void* elem) {
  if (WEFT_UNLIKELY(peek(c->closed))) {
    c->lock.unlock();
    return Attempt::Closed;
  }
  if (WaitNode* n = peek(c->receivers.first)) expect_peer(n);
  if (WaitNode* n = c->receivers.pop_winner(Outcome::Wake)) {
    n->success = true;
    c->lock.unlock();
    copy_element(n->elem, elem, c->size);
    wake_from(mp, n->waiter);
    return Attempt::Done;
  }
  const std::size_t count = peek(c->count);
  if (count < c->cap) {
    copy_element(slot(c, c->send_at), elem, c->size);
    c->send_at = after(c, c->send_at);
    c->count.store(count + 1, memory_order_relaxed);
    c->lock.unlock();
    return Attempt::Done;
  }
  return Attempt::WouldBlock;
}

WEFT_ALWAYS_INLINE Attempt attempt_recv_inline(M* mp, ChanCore* c, void* elem) {
  const std::size_t count = peek(c->count);
  if (count != 0) {
    copy_element(elem, slot(c, c->recv_at), c->size);
    if (WaitNode* n = c->senders.empty() ? nullptr : c->senders.pop_winner(Outcome::Wake)) {
      // Full: the freed slot is also the next to fill.
      copy_element(slot(c, c->recv_at), n->elem, c->size);
      c->recv_at = c->send_at = after(c, c->recv_at);
      n->success = true;
      c->lock.unlock();
      wake_from(mp, n->waiter);
      return Attempt::Done;
    }
    c->recv_at = after(c, c->recv_at);
    c->count.store(count - 1, memory_order_release);  // [chan-closed]
    c->lock.unlock();
    return Attempt::Done;
  }
  if (WaitNode* n = c->senders.pop_winner(Outcome::Wake)) {
    n->success = true;
    c->lock.unlock();
    copy_element(elem, n->elem, c->size);
    wake_from(mp, n->waiter);
    return Attempt::Done;
  }
  if (WEFT_UNLIKELY(peek(c->closed))) {
    c->lock.unlock();
    return Attempt::Closed;
  }
  return Attempt::WouldBlock;
}

/// Of a goroutine on a copyable stack, whose cell a peer could not reach, if the element is large or the wait timed. Apart: what
/// lies on such a stack is copied.
WEFT_NOINLINE Outcome park_copyable(ChanCore* c, WaitQueue& q, void* elem, WaitReason reason, std::int64_t deadline, WaitNode*& node) {
  Waiter* w = my_waiter();
  PeerCell cell(w->g(), elem, c->size, reason == WaitReason::ChanSend);
  node = plain_node(w, deadline != kNever || w->g()->domain);
  node->elem = cell.get();
  q.push(node, &c->lock);
  const Outcome o = wait_on(w, node->ticket, reason, c, &c->lock, deadline);
  cell.arrived(node->success);
  return o;
}

/// Queues the caller in `q` and parks. Lock held on entry, released.
WEFT_ALWAYS_INLINE Outcome park_in(M* mp, ChanCore* c, WaitQueue& q, void* elem, WaitReason reason, std::int64_t deadline,
                                   WaitNode*& node) {
  G* gp = mp ? static_cast<G*>(mp->curg) : nullptr;
  const bool on_g = gp && !gp->system;
  std::int64_t* spare = nullptr;
  if (WEFT_UNLIKELY(on_g && gp->started != kStarted) && is_copyable(gp)) {
    if (deadline != kNever || c->size > sizeof *spare) return park_copyable(c, q, elem, reason, deadline, node);
    // A word of the descriptor that this wait does not need is room enough.
    if (c->size != 0) {
      spare = &gp->timer.when;
      if (reason == WaitReason::ChanSend) copy_element(spare, elem, c->size);
    }
  }
  Waiter* w = WEFT_LIKELY(on_g) ? &gp->waiter : my_waiter();
  const std::uint64_t ticket = w->begin();
  node = &w->node;
  node->waiter = w;
  node->ticket = ticket;
  node->elem = WEFT_UNLIKELY(spare != nullptr) ? spare : elem;
  node->success = false;
  node->racy = deadline != kNever;
  q.push(node, &c->lock);
  if (WEFT_UNLIKELY(!on_g || deadline != kNever)) return wait_on(w, ticket, reason, c, &c->lock, deadline);
  park_here(mp, gp, reason, c, &c->lock);
  pass_canceller(gp);
  const Outcome o = w->outcome();
  if (WEFT_UNLIKELY(o == Outcome::Stop)) unwind_current(true);
  if (WEFT_UNLIKELY(spare != nullptr) && reason == WaitReason::ChanReceive && node->success) copy_element(elem, spare, c->size);
  return o;
}

/// A plain operation that was cancelled throws, one with a deadline has a result to say it in.
WEFT_COLD void canceled(std::int64_t deadline) {
  if (deadline == kNever) throw_canceled();
  result_canceled();
}

/// False: in time nobody came, or it was cancelled. `outside` on plain threads.
WEFT_ALWAYS_INLINE bool send_until(M* mp, Outside* outside, ChanCore* c, void* elem, std::int64_t deadline) {
  c->lock.lock();
  switch (attempt_send_inline(mp, c, elem)) {
    case Attempt::Done: return true;
    case Attempt::Closed: panic_closed();
    case Attempt::WouldBlock: break;
  }
  if (outside) outside->leave();
  WaitNode* n;
  const Outcome o = park_in(mp, c, c->senders, elem, WaitReason::ChanSend, deadline, n);
  if (WEFT_UNLIKELY(o != Outcome::Wake)) {
    if (o == Outcome::Close) panic_closed();
    if (o == Outcome::Cancel) canceled(deadline);
    return false;
  }
  return true;
}

WEFT_ALWAYS_INLINE RecvStatus recv_until(M* mp, Outside* outside, ChanCore* c, void* elem, std::int64_t deadline) {
  c->lock.lock();
  switch (attempt_recv_inline(mp, c, elem)) {
    case Attempt::Done: return RecvStatus::Ok;
    case Attempt::Closed: return RecvStatus::Closed;
    case Attempt::WouldBlock: break;
  }
  if (outside) outside->leave();
  WaitNode* n;
  const Outcome o = park_in(mp, c, c->receivers, elem, WaitReason::ChanReceive, deadline, n);
  if (WEFT_UNLIKELY(o != Outcome::Wake)) {
    if (o == Outcome::Close) return RecvStatus::Closed;
    if (o == Outcome::Timeout) return RecvStatus::Empty;
    canceled(deadline);
    return RecvStatus::Canceled;
  }
  return RecvStatus::Ok;
}

WEFT_NOINLINE bool send_on_thread(ChanCore* c, void* elem, std::int64_t deadline) {
  Outside outside(nullptr);
  return send_until(nullptr, &outside, c, elem, deadline);
}

WEFT_NOINLINE RecvStatus recv_on_thread(ChanCore* c, void* elem, std::int64_t deadline) {
  Outside outside(nullptr);
  return recv_until(nullptr, &outside, c, elem, deadline);
}

WEFT_ALWAYS_INLINE bool send_until(ChanCore* c, void* elem, std::int64_t deadline) {
  SCHED_POINT("chan send");
  Inside inside;
  M* mp = inside.m;
  return WEFT_LIKELY(mp != nullptr) ? send_until(mp, nullptr, c, elem, deadline) : send_on_thread(c, elem, deadline);
}

WEFT_ALWAYS_INLINE RecvStatus recv_until(ChanCore* c, void* elem, std::int64_t deadline) {
  SCHED_POINT("chan recv");
  Inside inside;
  M* mp = inside.m;
  return WEFT_LIKELY(mp != nullptr) ? recv_until(mp, nullptr, c, elem, deadline) : recv_on_thread(c, elem, deadline);
}

}  // namespace

Attempt attempt_send(ChanCore* c, void* elem) { return attempt_send_inline(current_m(), c, elem); }
Attempt attempt_recv(ChanCore* c, void* elem) { return attempt_recv_inline(current_m(), c, elem); }

ChanView chan_view(const void* chan) {
  auto* c = static_cast<ChanCore*>(const_cast<void*>(chan));  // only its lock is written
  ChanView v;
  v.cap = c->is_timer ? 0 : c->cap;
  v.len = c->is_timer ? 0 : peek(c->count);
  v.closed = peek(c->closed);
  v.busy = !c->lock.lock_for_report();
  if (v.busy) return v;
  for (const WaitNode* n = peek(c->receivers.first); n; n = n->next) v.receivers++;
  for (const WaitNode* n = peek(c->senders.first); n; n = n->next) v.senders++;
  c->lock.unlock();
  return v;
}

}  // namespace weft::rt

namespace weft::detail {

using namespace rt;

ChanHead* chan_make(std::int64_t cap, const ElemType* type) {
  constexpr std::size_t kMax = std::size_t{1} << 47;
  const std::size_t size = type->size;
  if (cap < 0 || (size != 0 && static_cast<std::size_t>(cap) > (kMax - sizeof(ChanCore)) / size))
    panic_runtime("makechan: size out of range");
  // Buffer and core in one block; the buffer is aligned for its elements.
  const std::size_t align = type->align > alignof(ChanCore) ? type->align : alignof(ChanCore);
  const std::size_t head = (sizeof(ChanCore) + align - 1) & ~(align - 1);
  void* block = value_new(head + static_cast<std::size_t>(cap) * size, align);
  auto* c = ::new (block) ChanCore;
  c->cap = static_cast<std::size_t>(cap);
  c->size = size;
  c->type = type;
  c->buffer = static_cast<std::byte*>(block) + head;
  return c;
}

void chan_free(ChanHead* h) {
  ChanCore* c = core_of(h);
  pass_cancellers();
  if (c->is_timer) {
    free_timer_chan(c);
    return;
  }
  // Somebody waits for a channel that it does not hold (a reference to another's local): it can only be unwound, and then
  // must still find its queue.
  if (WEFT_UNLIKELY(!c->receivers.empty() || !c->senders.empty())) return;
  if (c->type->destroy)
    for (std::size_t n = peek(c->count); n > 0; n--) {
      c->type->destroy(slot(c, c->recv_at));
      c->recv_at = after(c, c->recv_at);
    }
  const std::size_t align = c->type->align > alignof(ChanCore) ? c->type->align : alignof(ChanCore);
  c->~ChanCore();
  value_free(c, align);
}

void chan_send(ChanHead* h, void* elem) {
  if (WEFT_UNLIKELY(!h)) block_for_ever(WaitReason::ChanSendNil);
  send_until(core_of(h), elem, kNever);
}

bool chan_recv(ChanHead* h, void* elem) {
  if (WEFT_UNLIKELY(!h)) block_for_ever(WaitReason::ChanReceiveNil);
  return recv_until(core_of(h), elem, kNever) == RecvStatus::Ok;
}

bool chan_try_send(ChanHead* h, void* elem) {
  if (!h) return false;
  ChanCore* c = core_of(h);
  Inside inside;
  if (!maybe_sendable(c)) return false;
  Outside outside(inside.m);
  c->lock.lock();
  switch (attempt_send(c, elem)) {
    case Attempt::Done: return true;
    case Attempt::Closed: panic_closed();
    case Attempt::WouldBlock: break;
  }
  c->lock.unlock();
  return false;
}

RecvStatus chan_try_recv(ChanHead* h, void* elem) {
  if (!h) return RecvStatus::Empty;
  ChanCore* c = core_of(h);
  Inside inside;
  if (c->count.load(memory_order_acquire) == 0 && c->senders.empty() && !peek(c->closed))  // [chan-closed]
    return RecvStatus::Empty;
  Outside outside(inside.m);
  c->lock.lock();
  switch (attempt_recv(c, elem)) {
    case Attempt::Done: return RecvStatus::Ok;
    case Attempt::Closed: return RecvStatus::Closed;
    case Attempt::WouldBlock: break;
  }
  c->lock.unlock();
  return RecvStatus::Empty;
}

bool chan_send_until(ChanHead* h, void* elem, std::int64_t deadline) {
  if (!h) {
    Inside inside;
    if (rt::sleep_until(deadline) == Outcome::Cancel) result_canceled();
    return false;
  }
  return send_until(core_of(h), elem, timed(deadline));
}

RecvStatus chan_recv_until(ChanHead* h, void* elem, std::int64_t deadline) {
  if (!h) {
    Inside inside;
    if (rt::sleep_until(deadline) != Outcome::Cancel) return RecvStatus::Empty;
    result_canceled();
    return RecvStatus::Canceled;
  }
  return recv_until(core_of(h), elem, timed(deadline));
}

namespace {

/// Queues the caller and parks, within a context. The lock is held on entry, released; without a channel: for ever.
Outcome park_within(ChanCore* c, WaitQueue* q, void* elem, WaitReason reason, Limit limit, WaitNode*& node) {
  Waiter* w = my_waiter();
  PeerCell cell(w->g(), elem, c ? c->size : 0, reason == WaitReason::ChanSend);
  limit.domain = w->g() && w->g()->domain;
  node = plain_node(w, limit.any());
  node->elem = cell.get();
  if (c)
    q->push(node, &c->lock);
  else
    node->racy = true;
  const Outcome o = wait_within(w, node->ticket, reason, c, c ? &c->lock : nullptr, limit);
  cell.arrived(node->success);
  return o;
}

}  // namespace

std::error_code chan_send_ctx(ChanHead* h, void* elem, const Context& ctx) {
  SCHED_POINT("chan send");
  Inside inside;
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  ChanCore* c = core_of(h);
  Limit limit;
  for (bool waits = !c || !maybe_sendable(c);; waits = true) {
    if (waits) prepare_wait(current_g(), limit = by.limit());
    if (!c) break;
    Outside outside(inside.m);
    c->lock.lock();
    switch (attempt_send(c, elem)) {
      case Attempt::Done: return {};
      case Attempt::Closed: panic_closed();
      case Attempt::WouldBlock: break;
    }
    if (waits) break;
    c->lock.unlock();
  }
  WaitNode* n;
  const WaitReason reason = c ? WaitReason::ChanSend : WaitReason::ChanSendNil;
  const Outcome o = park_within(c, c ? &c->senders : nullptr, elem, reason, limit, n);
  if (o == Outcome::Close) panic_closed();
  return error_of(o, by);
}

RecvStatus chan_recv_ctx(ChanHead* h, void* elem, const Context& ctx) {
  SCHED_POINT("chan recv");
  Inside inside;
  ContextWait by(ctx);
  if (by.error()) return RecvStatus::Canceled;
  ChanCore* c = core_of(h);
  Limit limit;
  for (bool waits = !c || !maybe_receivable(c);; waits = true) {
    if (waits) prepare_wait(current_g(), limit = by.limit());
    if (!c) break;
    Outside outside(inside.m);
    c->lock.lock();
    switch (attempt_recv(c, elem)) {
      case Attempt::Done: return RecvStatus::Ok;
      case Attempt::Closed: return RecvStatus::Closed;
      case Attempt::WouldBlock: break;
    }
    if (waits) break;
    c->lock.unlock();
  }
  WaitNode* n;
  const WaitReason reason = c ? WaitReason::ChanReceive : WaitReason::ChanReceiveNil;
  const Outcome o = park_within(c, c ? &c->receivers : nullptr, elem, reason, limit, n);
  if (o == Outcome::Close) return RecvStatus::Closed;
  return error_of(o, by) ? RecvStatus::Canceled : RecvStatus::Ok;
}

void chan_close(ChanHead* h) {
  if (!h) panic_runtime("close of nil channel");
  ChanCore* c = core_of(h);
  Inside inside;
  Outside outside(inside.m);
  c->lock.lock();
  if (peek(c->closed)) {
    c->lock.unlock();
    panic_runtime("close of closed channel");
  }
  c->closed.store(true, memory_order_release);  // [chan-closed]
  // All waiters are ours from here; `next` is free to chain them until they are readied.
  WaitNode* all = nullptr;
  WaitNode** end = &all;
  for (WaitQueue* q : {&c->receivers, &c->senders})
    while (WaitNode* n = q->pop_winner(Outcome::Close)) {
      n->success = false;
      n->next = nullptr;
      *end = n;
      end = &n->next;
    }
  c->lock.unlock();
  while (all) {
    WaitNode* next = all->next;
    wake_waiter(all->waiter);
    all = next;
  }
}

std::size_t chan_len(const ChanHead* h) {
  const auto* c = static_cast<const ChanCore*>(h);
  return c->is_timer ? 0 : peek(c->count);
}

std::size_t chan_cap(const ChanHead* h) {
  const auto* c = static_cast<const ChanCore*>(h);
  return c->is_timer ? 0 : c->cap;
}

}  // namespace weft::detail
