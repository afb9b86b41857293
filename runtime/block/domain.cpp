// See domain.hpp.
#include "runtime/block/domain.hpp"

#include <weft/panic.hpp>

#include "runtime/base/sched_point.hpp"
#include "runtime/block/context.hpp"

namespace weft::rt {

namespace {

void link(Tree* parent, Tree* t) {
  t->prev = nullptr;
  t->next = parent->first;
  if (t->next) t->next->prev = t;
  parent->first = t;
  t->listed = true;
}

void unlink(Tree* parent, Tree* t) {
  if (!t->listed) return;
  (t->prev ? t->prev->next : parent->first) = t->next;
  if (t->next) t->next->prev = t->prev;
  t->listed = false;
}

bool try_hold(Tree* t) {
  std::uint32_t r = peek(t->refs);
  while (r != 0)
    if (t->refs.compare_exchange_weak(r, r + 1, memory_order_acq_rel, memory_order_relaxed)) return true;  // [domain-ref]
  return false;
}

void destroy(Tree* t) {
  if (t->kind == TreeKind::Task)
    task_destroy(t);
  else
    scope_destroy(t);
}

/// A line of ancestors that only this one held goes with it, one by one.
void release(Tree* t) {
  while (t && t->refs.fetch_sub(1, memory_order_acq_rel) == 1) {  // [domain-ref]
    Tree* parent = t->parent;
    destroy(t);
    t = parent;
  }
}

struct TreeRef {
  Tree* t;
  explicit TreeRef(Tree* adopted) : t(adopted) {}
  TreeRef(TreeRef&& o) noexcept : t(std::exchange(o.t, nullptr)) {}
  TreeRef& operator=(TreeRef&&) = delete;
  ~TreeRef() { release(t); }
};

}  // namespace

void tree_unref(Tree* t) {
  M* mp = current_m();
  if (!mp || !mp->curg->system) {
    release(t);
    return;
  }
  std::uint32_t r = peek(t->refs);
  while (r != 1)
    if (t->refs.compare_exchange_weak(r, r - 1, memory_order_acq_rel, memory_order_relaxed)) return;  // [domain-ref]
  weft::go([last = TreeRef(t)] {});
}

void tree_link(Tree* t) {
  Tree* p = t->parent;
  if (!p) return;
  p->lock.lock();
  const bool over = p->canceled;
  if (!over)
    link(p, t);
  else if (!t->hides)
    t->canceled = true, t->why = Why::Outer, t->error = p->error;
  p->lock.unlock();
  if (over && t->hides) shield_starts(t);
}

void tree_unlink(Tree* t) {
  Tree* p = t->parent;
  if (!p) return;
  p->lock.lock();
  unlink(p, t);
  p->lock.unlock();
}

bool tree_canceled(Tree* t) {
  t->lock.lock();
  const bool yes = t->canceled;
  t->lock.unlock();
  return yes;
}

namespace {

/// Nodes that this caller has claimed, in the order they are visited; each is held.
struct Walk {
  Tree* first = nullptr;
  Tree* last = nullptr;
  bool runners = false;
};

bool claim(Walk& walk, Tree* t, Why why, const std::error_code& e) {
  t->lock.lock();
  const bool won = !t->canceled;
  if (won) {
    t->why = why;
    t->error = e;
    t->canceled = true;
    if (G* gp = runs_on(t) ? t->runner : nullptr) {
      gp->cancel.store(1, memory_order_relaxed);  // [cancel]
      walk.runners = true;
    }
  }
  t->lock.unlock();
  if (won) {
    t->walk_next = nullptr;
    (walk.last ? walk.last->walk_next : walk.first) = t;
    walk.last = t;
  }
  return won;
}

void claim_children(Walk& walk, Tree* t) {
  constexpr int kAtOnce = 64;  // who wants to leave the list meanwhile must not wait for all the others
  for (bool more = true; more;) {
    Tree* some[kAtOnce];
    int n = 0;
    t->lock.lock();
    for (int i = 0; i < kAtOnce; i++) {
      Tree* child = t->first;
      if (!child) {
        more = false;
        break;
      }
      unlink(t, child);
      if (try_hold(child)) some[n++] = child;
    }
    t->lock.unlock();
    for (int i = 0; i < n; i++) {
      if (some[i]->hides)
        shield_starts(some[i]);
      else if (claim(walk, some[i], Why::Outer, t->error))
        continue;
      tree_unref(some[i]);
    }
  }
}

weft::Context context_of(Tree* t) {
  t->lock.lock();
  weft::Context c = t->context;
  t->lock.unlock();
  return c;
}

}  // namespace

void tree_cancel(Tree* t, Why why, const std::error_code& e) {
  SCHED_POINT("task cancel");
  Inside inside;
  Walk walk;
  t->refs.fetch_add(1, memory_order_relaxed);
  if (!claim(walk, t, why, e)) {
    tree_unref(t);
    return;
  }
  for (Tree* at = walk.first; at; at = at->walk_next) claim_children(walk, at);
  for (Tree* at = walk.first; at; at = at->walk_next)
    if (const weft::Context c = context_of(at)) weft::detail::context_cancel_with(c.head(), at->error);
  if (walk.runners) {
    Outside outside(current_m());
    cancellers_begin();
    for (Tree* at = walk.first; at; at = at->walk_next) cancel_runner(at);
    cancellers_end();
  }
  while (Tree* at = walk.first) {
    walk.first = at->walk_next;
    tree_unref(at);
  }
}

const weft::Context* tree_base(const Tree* t) {
  for (; t; t = t->parent)
    if (t->base) return &t->base;
  return nullptr;
}

const weft::Context& tree_context(Tree* t) {
  if (context_of(t)) return t->context;  // never changes again
  const weft::Context outer = t->base ? t->base : t->parent ? tree_context(t->parent) : background();
  const weft::Context from = t->hides && !t->base ? without_cancel(outer) : outer;
  using weft::detail::ContextRef;
  const weft::Context fresh(ContextRef(t->deadline == kNever
                                           ? weft::detail::context_with_cancel(from.head())
                                           : weft::detail::context_with_deadline(from.head(), t->deadline, nullptr)));
  t->lock.lock();
  const bool mine = !t->context;
  if (mine) t->context = fresh;
  const bool over = mine && t->canceled;
  t->lock.unlock();
  if (over) weft::detail::context_cancel_with(fresh.head(), t->error);
  return t->context;
}

std::string describe_failure(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace weft::rt

namespace weft {

Context current_context() {
  rt::Tree* t = rt::current_tree();
  return t ? rt::tree_context(t) : background();
}

bool canceled() noexcept {
  const rt::G* gp = rt::current_g();
  return gp && rt::peek(gp->cancel) && gp->domain->masked == 0 && std::uncaught_exceptions() == 0;
}

void throw_if_canceled() {
  if (canceled()) throw Canceled();
}

}  // namespace weft
