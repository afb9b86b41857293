// Contexts.
//
// Tree       A child holds its parent; a parent holds no child, but has those that its cancel must reach in a list: cancellable
//            descendants (the nearest of each line) and functions. Entries leave the list by themselves, under the parent's lock.
//            A canceller that takes an entry out of the list tries for a reference under that lock: one that is dying has none.
// Cancel     One walk per cancel, iterative (a chain may be deep), breadth first:
//              1. claim: under the node's lock `claimed`, error and cause are set, once. No child, function or done channel joins any more.
//              2. announce: the done channel is closed, then `state` is stored. err() looks at both, so that "err() is set" and
//                 "done() is closed" are one event for everybody.
//              3. the waits end (one that begins meanwhile joins until this step: it never ends without an error to be seen), the
//                 functions are started, the children are claimed in turn.
//              4. all nodes of the walk are marked settled, then let go: user code (destructors of values) runs last.
//            A cancel that comes second waits until the node is settled, so that descendants are done when any cancel returns.
//            No user code runs and nothing blocks in 1-3, so whoever walks cannot be waited for by itself.
// Lists      A child is in at most one list and on at most one walk: whoever claims it.
// Custom     A context of the user's own kind that hands out the done channel of the context inside it is seen through; else its
//            children register with its after_func, or are watched by a goroutine each until they are done.
// Timer      An armed one holds a reference. Arming is under the node's lock and only before the claim; the canceller removes it
//            after the claim.
// Locks      One node's lock at a time, no other object's within it.
// Orders     [context] release by the canceller's stores of state and settled, acquire by readers: they see error and cause.
//            [context-done] release by who makes the done channel, acquire by who uses it.
//            [context-ref] as [chan-ref] in include/weft/chan.hpp, for contexts, cancel handles and registered functions.
//            [chan-closed] see chan.cpp.
#include "runtime/block/context_node.hpp"

#include <weft/panic.hpp>
#include <weft/select.hpp>

#include <vector>

#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/panic.hpp"

namespace weft::detail {

namespace {

ContextRef hold(Node* n) {
  n->refs.fetch_add(1, memory_order_relaxed);
  return ContextRef(n);
}

Node* need_parent(ContextHead* h) {
  if (!h) weft::panic("cannot create context from nil parent");
  return node_of(h);
}

/// Somebody else is a few instructions from it; it may be switched out meanwhile, but does not park.
template <class F>
void until(F holds) {
  for (int i = 0; !holds(); i++) {
    if (i < 100)
      arch::cpu_pause();
    else
      weft::yield();
  }
}

// ---- the list of dependents; under the owner's lock ----------------------------------------------------------------

void link(CancelNode* owner, Dependent* d) {
  d->prev = nullptr;
  d->next = owner->first;
  if (d->next) d->next->prev = d;
  owner->first = d;
  d->listed = true;
}

void unlink(CancelNode* owner, Dependent* d) {
  if (!d->listed) return;
  (d->prev ? d->prev->next : owner->first) = d->next;
  if (d->next) d->next->prev = d->prev;
  d->listed = false;
}

/// True: it was in its list, and is no more.
bool leave_list(Dependent* d) {
  CancelNode* owner = d->of;
  if (!owner) return false;
  owner->lock.lock();
  const bool was = d->listed;
  unlink(owner, d);
  owner->lock.unlock();
  return was;
}

bool try_hold(Node* n) {
  std::uint32_t r = peek(n->refs);
  while (r != 0)
    if (n->refs.compare_exchange_weak(r, r + 1, memory_order_acq_rel, memory_order_relaxed)) return true;  // [context-ref]
  return false;
}

// ---- the end of a node ---------------------------------------------------------------------------------------------

void release(Node* n);

void destroy(Node* n) {
  switch (n->kind) {
    case Kind::Background:
    case Kind::Todo: return;
    case Kind::Value: delete static_cast<ValueNode*>(n); return;
    case Kind::WithoutCancel: delete n; return;
    case Kind::Custom: delete custom_of(n); return;
    case Kind::Cancel:
    case Kind::Deadline: {
      CancelNode* c = cancel_of(n);
      leave_list(c);
      if (c->counted_of) release(c->of);
      if (n->kind == Kind::Deadline)
        delete deadline_of(c);
      else
        delete c;
      return;
    }
  }
}

/// A line of ancestors that only this one held goes with it, one by one.
void release(Node* n) {
  while (n && n->refs.fetch_sub(1, memory_order_acq_rel) == 1) {  // [context-ref]
    Node* parent = n->parent;
    destroy(n);
    n = parent;
  }
}

/// The same where no user code may run: on g0, which fires timers. The last reference is dropped by a goroutine.
void release_here(Node* n) {
  M* mp = current_m();
  if (!mp || !mp->curg->system) {
    release(n);
    return;
  }
  std::uint32_t r = peek(n->refs);
  while (r != 1)
    if (n->refs.compare_exchange_weak(r, r - 1, memory_order_acq_rel, memory_order_relaxed)) return;  // [context-ref]
  weft::go([last = ContextRef(n)] {});
}

}  // namespace

// ---- functions -----------------------------------------------------------------------------------------------------

enum class FuncState : std::uint8_t { Pending, Fired, Ran, Stopped };

struct ContextFunc : Dependent {
  std::atomic<std::uint32_t> refs{1};
  std::atomic<FuncState> state{FuncState::Pending};
  bool built = false;  // the closure's constructor has returned; written before it is shared
  const ClosureOps* ops = nullptr;
  void* closure = nullptr;
  const void* site = nullptr;
  ContextRef ctx;       // what it waits for
  bool bridged = false;  // ctx is a child made for it
  ContextFunc() : Dependent(true) {}
};

void context_func_ref(ContextFunc* f) { f->refs.fetch_add(1, memory_order_relaxed); }

void context_func_unref(ContextFunc* f) {
  if (f->refs.fetch_sub(1, memory_order_acq_rel) != 1) return;  // [context-ref]
  const FuncState s = peek(f->state);
  if (f->built && (s == FuncState::Pending || s == FuncState::Fired)) f->ops->destroy(f->closure);
  value_free(f->closure, f->ops->align);
  delete f;
}

namespace {

struct CallFunc {  // holds the registration's reference, also if it never runs
  ContextFuncRef f;
  void operator()() {
    f.get()->state.store(FuncState::Ran, memory_order_relaxed);
    f.get()->ops->run(f.get()->closure);
  }
};

/// The caller has its registration's reference.
void fire(ContextFunc* f) {
  ContextFuncRef ref(f);
  FuncState pending = FuncState::Pending;
  if (!f->state.compare_exchange_strong(pending, FuncState::Fired, memory_order_relaxed)) return;
  const void* site = f->site;
  launch(new_goroutine(sizeof(Bound<CallFunc>), alignof(Bound<CallFunc>)), Bound<CallFunc>{CallFunc{std::move(ref)}}, site);
}

// ---- cancelling ----------------------------------------------------------------------------------------------------

/// Nodes whose claim this caller has won, in the order they are visited; each is held.
struct Walk {
  CancelNode* first = nullptr;
  CancelNode* last = nullptr;
  std::vector<CancelNode*> others;  // held; claimed by somebody else, whose walk may not be over
};

/// Step 1. True: the node is on the walk, with the caller's reference.
bool claim(Walk& walk, CancelNode* n, const std::error_code& e, const std::exception_ptr& cause) {
  n->lock.lock();
  const bool won = !n->claimed;
  if (won) {
    n->error = e;
    n->cause = cause;
    n->claimed = true;
  }
  n->lock.unlock();
  if (won) {
    n->walk_next = nullptr;
    (walk.last ? walk.last->walk_next : walk.first) = n;
    walk.last = n;
  }
  return won;
}

/// Steps 2 and 3 of one node; its children join the walk.
void visit(Walk& walk, CancelNode* n) {
  // After the claim nobody makes a done channel of its own any more.
  if (n->has_done.load(memory_order_acquire) && n->done != constants().closed) chan_close(n->done.head());  // [context-done]
  n->state.store(true, memory_order_release);  // [context]
  if (n->kind == Kind::Deadline && timer_remove(&deadline_of(n)->timer)) n->refs.fetch_sub(1, memory_order_relaxed);  // held still
  cancel_waits(*n);
  constexpr int kAtOnce = 64;  // as in cancel_waits()
  for (bool more = true; more;) {
    CancelNode* children[kAtOnce];
    ContextFunc* funcs[kAtOnce];
    int n_children = 0, n_funcs = 0;
    n->lock.lock();
    for (int i = 0; i < kAtOnce; i++) {
      Dependent* d = n->first;
      if (!d) {
        more = false;
        break;
      }
      unlink(n, d);
      if (d->is_func)
        funcs[n_funcs++] = static_cast<ContextFunc*>(d);
      else if (try_hold(static_cast<CancelNode*>(d)))
        children[n_children++] = static_cast<CancelNode*>(d);
    }
    n->lock.unlock();
    for (int i = 0; i < n_funcs; i++) fire(funcs[i]);
    for (int i = 0; i < n_children; i++)
      if (!claim(walk, children[i], n->error, n->cause)) walk.others.push_back(children[i]);
  }
}

void wait_settled(const CancelNode* n) {
  until([n] { return n->settled.load(memory_order_acquire); });  // [context]
}

/// Cancels n, which the caller holds, with all below it. Does nothing if it was cancelled before.
void cancel(CancelNode* n, const std::error_code& e, const std::exception_ptr& cause, bool wait_for_others = true) {
  SCHED_POINT("context cancel");
  Inside inside;
  if (n->settled.load(memory_order_acquire)) return;  // [context]
  Outside outside(inside.m);
  Walk walk;
  n->refs.fetch_add(1, memory_order_relaxed);
  if (claim(walk, n, e ? e : make_error_code(Errc::canceled), cause)) {
    for (CancelNode* at = walk.first; at; at = at->walk_next) visit(walk, at);
    for (CancelNode* at = walk.first; at; at = at->walk_next) at->settled.store(true, memory_order_release);  // [context]
    outside.leave();
    leave_list(n);
    n->lock.lock();
    const auto stop = std::move(n->foreign_stop);
    n->lock.unlock();
    if (stop) (*stop)();
  } else {
    outside.leave();
    walk.others.push_back(n);
  }
  for (CancelNode* other : walk.others) {
    if (wait_for_others) wait_settled(other);
    release_here(other);
  }
  while (CancelNode* at = walk.first) {
    walk.first = at->walk_next;
    release_here(at);
  }
}

void fire_deadline(TimerNode* t, std::uint64_t, std::int64_t) {
  DeadlineNode* n = static_cast<DeadlineTimer*>(t)->owner;
  cancel(n, Errc::deadline_exceeded, n->timer_cause, false);
  release_here(n);
}

// The runtime ended while it was armed: the armed reference goes.
void forget_deadline(TimerNode* t) { release(static_cast<DeadlineTimer*>(t)->owner); }

constexpr TimerNode::Ops kDeadlineOps{fire_deadline, nullptr, forget_deadline};

// ---- joining the tree ----------------------------------------------------------------------------------------------

/// Registers d with `owner`. False: that is cancelled; everybody can see it.
bool attach(CancelNode* owner, Dependent* d) {
  d->of = owner;
  owner->lock.lock();
  const bool alive = !owner->claimed;
  if (alive) link(owner, d);
  owner->lock.unlock();
  if (!alive) until([owner] { return owner->state.load(memory_order_acquire); });  // [context]
  return alive;
}

/// The context inside, if the custom one ends exactly when that does.
CancelNode* seen_through(CustomNode* c) {
  Node* in = nearest(node_of(c->user->inner().head()));
  if (in->kind == Kind::Custom) return custom_of(in)->done == c->done ? seen_through(custom_of(in)) : nullptr;
  return in->cancels() && context_done(in) == c->done ? cancel_of(in) : nullptr;
}

void watch(CustomNode* parent, CancelNode* child) {
  weft::go([p = hold(parent), c = hold(child)] {
    CustomNode* parent = custom_of(node_of(p.head()));
    CancelNode* child = cancel_of(node_of(c.head()));
    if (weft::select(weft::recv(parent->done), weft::recv(context_done(child))) == 0)
      cancel(child, parent->user->err(), parent->user->cause());
  });
}

/// From here the end of `parent` is the end of n, which the caller holds.
void follow(CancelNode* n, Node* parent) {
  Node* p = nearest(parent);
  if (p->kind == Kind::Custom) {
    CustomNode* c = custom_of(p);
    if (!c->done) return;
    if (CancelNode* in = seen_through(c)) {
      in->refs.fetch_add(1, memory_order_relaxed);
      n->counted_of = true;
      p = in;
    } else if (closed(c->done)) {
      cancel(n, c->user->err(), c->user->cause());
      return;
    } else {
      auto stop = c->user->after_func([child = hold(n), parent = hold(c)] {
        CustomNode* from = custom_of(node_of(parent.head()));
        cancel(cancel_of(node_of(child.head())), from->user->err(), from->user->cause());
      });
      if (!stop) {
        watch(c, n);
        return;
      }
      auto kept = std::make_unique<std::function<bool()>>(std::move(*stop));
      n->lock.lock();
      if (!n->claimed) n->foreign_stop = std::move(kept);
      n->lock.unlock();
      return;
    }
  }
  if (!p->cancels()) return;
  CancelNode* owner = cancel_of(p);
  if (!attach(owner, n)) cancel(n, owner->error, owner->cause);
}

/// Where a wait or a function registers: the context's own node or, for one of the user's kind, a child made for it.
/// Null: it never ends.
ContextRef cancellable(Node* n, bool& bridged) {
  Node* p = nearest(n);
  bridged = false;
  if (p->cancels()) return hold(p);
  if (p->kind != Kind::Custom || !custom_of(p)->done) return {};
  if (CancelNode* in = seen_through(custom_of(p))) return hold(in);
  bridged = true;
  return ContextRef(context_with_cancel(n));
}

}  // namespace

// ---- what the headers call -----------------------------------------------------------------------------------------

void context_free(ContextHead* h) {
  Node* n = node_of(h);
  Node* parent = n->parent;
  destroy(n);
  release(parent);
}

ContextHead* context_with_cancel(ContextHead* parent) {
  Node* p = need_parent(parent);
  auto* n = new CancelNode(p, Kind::Cancel);
  follow(n, p);
  return n;
}

ContextHead* context_with_deadline(ContextHead* parent, std::int64_t deadline, std::exception_ptr cause) {
  Node* p = need_parent(parent);
  const std::optional<Time> earlier = context_deadline(p);
  if (earlier && earlier->time_since_epoch().count() < deadline) return context_with_cancel(p);
  auto* n = new DeadlineNode(p, deadline, std::move(cause));
  follow(n, p);
  if (deadline <= arch::clock_now()) {
    cancel(n, Errc::deadline_exceeded, n->timer_cause);
    return n;
  }
  Inside inside;
  n->timer.owner = n;
  n->timer.ops = &kDeadlineOps;
  n->timer.when = timed(deadline);
  n->lock.lock();
  if (!n->claimed) {
    n->refs.fetch_add(1, memory_order_relaxed);
    timer_arm(&n->timer);
  }
  n->lock.unlock();
  return n;
}

ContextHead* context_with_value(ContextHead* parent, const ContextKeyBase& key, std::shared_ptr<const void> value,
                                std::string_view text) {
  return new ValueNode(need_parent(parent), key, std::move(value), text);
}

ContextHead* context_without_cancel(ContextHead* parent) { return new Node(Kind::WithoutCancel, need_parent(parent)); }

ContextHead* context_custom(std::shared_ptr<CustomContext> user) {
  if (!user) return nullptr;
  return new CustomNode(std::move(user));
}

void context_cancel(ContextHead* h, std::exception_ptr cause) { cancel(cancel_of(node_of(h)), Errc::canceled, cause); }

void context_cancel_with(ContextHead* h, const std::error_code& e) { cancel(cancel_of(node_of(h)), e, nullptr, false); }

void context_cancel_handles(ContextHead* h, int by) {
  CancelNode* n = cancel_of(node_of(h));
  if (n->handles.fetch_add(by, memory_order_acq_rel) + by != 0) return;  // [context-ref]
  if (!peek(n->detached)) cancel(n, Errc::canceled, constants().dropped);
}

void context_detach(ContextHead* h) { cancel_of(node_of(h))->detached.store(true, memory_order_relaxed); }

void panic_nil_context() { panic_runtime("invalid memory address or nil pointer dereference: nil Context"); }
void panic_nil_cancel() { panic_runtime("invalid memory address or nil pointer dereference: nil CancelFunc"); }

ContextFunc* context_func_make(ContextHead* ctx, const ClosureOps* ops, void** storage, const void* site) {
  Node* n = need_parent(ctx);
  auto f = std::make_unique<ContextFunc>();
  f->ctx = cancellable(n, f->bridged);
  f->closure = value_new(ops->size, ops->align);
  f->ops = ops;
  f->site = site;
  *storage = f->closure;
  return f.release();
}

void context_func_start(ContextFunc* f) {
  f->built = true;
  if (!f->ctx.head()) return;  // never
  Inside inside;
  f->refs.fetch_add(1, memory_order_relaxed);  // the registration's
  if (!attach(cancel_of(node_of(f->ctx.head())), f)) fire(f);
}

bool context_func_stop(ContextFunc* f) {
  FuncState pending = FuncState::Pending;
  if (!f->state.compare_exchange_strong(pending, FuncState::Stopped, memory_order_relaxed)) return false;
  if (leave_list(f)) context_func_unref(f);
  f->ops->destroy(f->closure);
  if (f->bridged) cancel(cancel_of(node_of(f->ctx.head())), Errc::canceled, nullptr);
  return true;
}

std::error_code sleep_until_ctx(std::int64_t deadline, const Context& ctx) {
  SCHED_POINT("sleep");
  Inside inside;
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  if (timed(deadline) <= arch::clock_now()) return {};
  Waiter* w = my_waiter();
  Limit limit = by.limit(timed(deadline));
  prepare_wait(w->g(), limit);
  const std::uint64_t ticket = w->begin();
  w->node.racy = true;
  const Outcome o = wait_within(w, ticket, WaitReason::Sleep, nullptr, nullptr, limit);
  return o == Outcome::Cancel ? error_of(o, by) : std::error_code();
}

}  // namespace weft::detail

namespace weft::rt {

using namespace weft::detail;

ContextWait::ContextWait(const Context& ctx) : ctx_(ctx.head()) {
  if (!ctx_) panic_nil_context();
}

void ContextWait::hold() {
  keep_ = cancellable(node_of(ctx_), bridged_);
  if (keep_.head()) source_ = cancel_of(node_of(keep_.head()));
}

void ContextWait::unbridge() { context_cancel(keep_.head(), nullptr); }

}  // namespace weft::rt
