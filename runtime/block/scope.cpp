// Scopes and shields.
//
// End        The frame of scope() waits for the children in any case (masked: nothing ends that wait but them; the stop passes it
//            by and unwinds the children), then disarms what could cancel, leaves the domain and decides what to throw:
//              a failure of anybody           the first, the others attached
//              cut short by time or context   std::system_error of its error
//              cut short from outside         Canceled
//              cut short by cancel()          nothing; Canceled if there is no result to return
//            "Cut short" is a body or child that Canceled has ended: who was through in spite of all has succeeded.
// Failures   A child notes its failure before it counts as done, and cancels its siblings after: so whoever waits for it gets the
//            failure, not a Canceled, and what it throws because of that comes second.
// Shield     A domain that hides. Its time begins when its parent is cancelled: shield_starts().
// Timer      An armed one holds a reference. Armed under join.lock, and only before `closed`.
// Locks      join.lock by itself, then that of a timer heap.
// Orders     The locks'.
#include <weft/panic.hpp>
#include <weft/time.hpp>

#include "runtime/base/log.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/domain.hpp"
#include "runtime/block/panic.hpp"

namespace weft::detail {

using namespace rt;

struct Failure {
  std::exception_ptr e;
  Failure* next = nullptr;
};

struct ScopeTimer : TimerNode {
  ScopeHead* owner = nullptr;
};

struct ScopeHead : Tree {
  Scope handle;
  JoinQueue join;
  // --- under join.lock ---
  std::uint32_t live = 0;   // children that have not ended
  bool closed = false;      // nobody can start any more
  bool cut_short = false;   // Canceled has ended a child
  bool armed_once = false;  // a shield's time has begun
  Failure* failures = nullptr;  // in order
  Failure** failures_end = &failures;
  // --- the frame's ---
  bool body_canceled = false;
  std::int64_t budget = kForever;  // of a shield
  StopFunc unfollow;               // of ScopeOptions::context
  ScopeTimer timer;
  ScopeHead(TreeKind k, Tree* p) : Tree(k, p), handle(this) { timer.owner = this; }
};

namespace {

unsigned long long goid_of(const ScopeHead* s) { return static_cast<std::uint64_t>(s->goid); }

// ---- time ----------------------------------------------------------------------------------------------------------

struct Expire {  // holds the timer's reference
  ScopeHead* s;
  explicit Expire(ScopeHead* of) : s(of) {}
  Expire(Expire&& o) noexcept : s(std::exchange(o.s, nullptr)) {}
  Expire& operator=(Expire&&) = delete;
  ~Expire() {
    if (s) tree_unref(s);
  }
  void operator()() const {
    if (s->kind == TreeKind::Shield) {
      log_warn("goroutine %llu: a shield has lasted longer than its %lld ms after the cancellation that it hides",
               goid_of(s), static_cast<long long>(s->budget / 1'000'000));
      tree_cancel(s, Why::Outer, Errc::canceled);
    } else {
      tree_cancel(s, Why::Time, Errc::deadline_exceeded);
    }
  }
};

void fire(TimerNode* t, std::uint64_t, std::int64_t) {
  Expire expire(static_cast<ScopeTimer*>(t)->owner);
  if (cancel_by_barrier)
    expire();
  else
    weft::go(std::move(expire));
}

// The runtime ended while it was armed: the armed reference goes.
void forget(TimerNode* t) { tree_unref(static_cast<ScopeTimer*>(t)->owner); }

constexpr TimerNode::Ops kOps{fire, nullptr, forget};

void arm(ScopeHead* s, std::int64_t deadline) {
  s->join.lock.lock();
  if (!s->closed && !s->armed_once) {
    s->armed_once = true;
    s->refs.fetch_add(1, memory_order_relaxed);
    s->timer.ops = &kOps;
    s->timer.when = timed(deadline);
    timer_arm(&s->timer);
  }
  s->join.lock.unlock();
}

void disarm(ScopeHead* s) {
  if (timer_remove(&s->timer)) tree_unref(s);
}

// ---- the end -------------------------------------------------------------------------------------------------------

/// All children have ended, and none can start.
void wait_for_children(ScopeHead* s) {
  SCHED_POINT("scope end");
  Inside inside;
  G* gp = current_g();
  Masked masked(gp);
  for (;;) {
    s->join.lock.lock();
    if (s->live == 0) break;
    WaitNode* n = plain_node(my_waiter(), gp && gp->domain);
    s->join.waiting.push(n, &s->join.lock);
    wait_on(n->waiter, n->ticket, WaitReason::ScopeEnd, s, &s->join.lock, kNever);
  }
  s->closed = true;
  s->join.lock.unlock();
}

void leave(ScopeHead* s) {
  disarm(s);
  if (s->unfollow) s->unfollow();
  s->unfollow = {};
  Inside inside;
  if (G* gp = current_g(); gp && gp->domain == s) leave_domain(gp, s);
  tree_unlink(s);
}

/// True: the first.
bool note_failure(ScopeHead* s, std::exception_ptr e) {
  auto* f = new Failure{std::move(e)};
  s->join.lock.lock();
  bool known = false;
  for (const Failure* at = s->failures; at; at = at->next) known |= at->e == f->e;
  const bool is_first = !s->failures;
  if (!known) {
    *s->failures_end = f;
    s->failures_end = &f->next;
  }
  s->join.lock.unlock();
  if (known) delete f;
  return is_first;
}

}  // namespace

ScopeHead* scope_make(const ScopeOptions& o) {
  Inside inside;
  G* gp = current_g();
  Tree* around = current_tree();
  auto* s = new ScopeHead(TreeKind::Scope, around);
  s->throws = o.throw_on_cancel || (around && around->throws);
  s->base = o.context;
  // Where the goroutine is shielded now, so is what it opens.
  s->hides = around && (around->masked != 0 || std::uncaught_exceptions() != 0);
  if (gp) s->goid = gp->id;
  s->deadline = o.deadline ? o.deadline->time_since_epoch().count() : kNever;
  if (o.timeout != Clock::duration::max()) {
    const std::int64_t at = deadline_after(o.timeout.count());
    if (at < s->deadline) s->deadline = at;
  }
  tree_link(s);
  if (gp) enter_domain(gp, s);
  if (s->deadline <= arch::clock_now())
    tree_cancel(s, Why::Time, Errc::deadline_exceeded);
  else if (s->deadline != kNever)
    arm(s, s->deadline);
  if (o.context) {
    if (const std::error_code e = o.context.err()) {
      tree_cancel(s, Why::Context, e);
    } else {
      s->refs.fetch_add(1, memory_order_relaxed);
      struct Follow {
        ScopeHead* s;
        Context ctx;
        Follow(ScopeHead* of, Context c) : s(of), ctx(std::move(c)) {}
        Follow(Follow&& f) noexcept : s(std::exchange(f.s, nullptr)), ctx(std::move(f.ctx)) {}
        Follow& operator=(Follow&&) = delete;
        ~Follow() {
          if (s) tree_unref(s);
        }
        void operator()() const { tree_cancel(s, Why::Context, ctx.err()); }
      };
      s->unfollow = weft::after_func(o.context, Follow(s, o.context));
    }
  }
  return s;
}

void scope_cancel(ScopeHead* s) { tree_cancel(s, Why::Asked, Errc::canceled); }
bool scope_canceled(const ScopeHead* s) { return tree_canceled(const_cast<ScopeHead*>(s)); }
Context scope_context(ScopeHead* s) { return tree_context(s); }
Scope& scope_handle(ScopeHead* s) { return s->handle; }

void scope_body_canceled(ScopeHead* s) {
  s->body_canceled = true;
}

void scope_failed(ScopeHead* s, std::exception_ptr e) {
  if (note_failure(s, std::move(e))) tree_cancel(s, Why::Failure, Errc::canceled);
}

void scope_close(ScopeHead* s, bool valued) {
  wait_for_children(s);
  leave(s);
  if (Failure* first = s->failures) {
    std::vector<std::exception_ptr> others;
    for (const Failure* f = first->next; f; f = f->next) others.push_back(f->e);
    const std::exception_ptr e = first->e;
    if (!others.empty()) attach_suppressed(e, std::move(others));
    std::rethrow_exception(e);
  }
  s->lock.lock();
  const Why why = s->why;
  const std::error_code error = s->error;
  s->lock.unlock();
  if (!s->body_canceled && !s->cut_short) return;
  if (s->body_canceled && s->parent && !s->hides && tree_canceled(s->parent)) throw_canceled();
  if (why == Why::Time || why == Why::Context) throw std::system_error(error);
  if (s->body_canceled && (valued || why != Why::Asked)) throw_canceled();
}

void scope_abandon(ScopeHead* s) noexcept {
  tree_cancel(s, Why::Asked, Errc::canceled);
  wait_for_children(s);
  leave(s);
  for (const Failure* f = s->failures; f; f = f->next)
    log_warn("goroutine %llu: a scope that was unwound loses a failure: %s", goid_of(s),
             describe_failure(f->e).c_str());
}

void scope_unref(ScopeHead* s) noexcept { tree_unref(s); }

// ---- shields -------------------------------------------------------------------------------------------------------

ScopeHead* shield_begin(std::int64_t budget_ns) {
  Inside inside;
  G* gp = current_g();
  Tree* around = current_tree();
  if (!around) return nullptr;
  auto* s = new ScopeHead(TreeKind::Shield, around);
  s->throws = around->throws;
  s->hides = true;
  s->budget = budget_ns > 0 ? budget_ns : 0;
  s->goid = gp->id;
  tree_link(s);
  enter_domain(gp, s);
  return s;
}

void shield_end(ScopeHead* s) noexcept {
  s->join.lock.lock();
  s->closed = true;
  s->join.lock.unlock();
  leave(s);
  tree_unref(s);
}

}  // namespace weft::detail

namespace weft::rt {

using weft::detail::ScopeHead;

Tree* scope_tree(ScopeHead* s) { return s; }

void shield_starts(Tree* t) {
  auto* s = static_cast<ScopeHead*>(t);
  if (t->kind != TreeKind::Shield || s->budget == weft::detail::kForever) return;
  Inside inside;
  weft::detail::arm(s, weft::detail::deadline_after(s->budget));
}

void scope_child_starts(Tree* tree) {
  auto* s = static_cast<ScopeHead*>(tree);
  s->join.lock.lock();
  const bool over = s->closed;
  if (!over) s->live++;
  s->join.lock.unlock();
  if (over) panic_runtime("weft: spawn in a scope that has ended");
}

bool scope_child_fails(Tree* tree, const std::exception_ptr& e) {
  return weft::detail::note_failure(static_cast<ScopeHead*>(tree), e);
}

void scope_child_ended(Tree* tree, bool cut_short) {
  auto* s = static_cast<ScopeHead*>(tree);
  Inside inside;
  Outside outside(inside.m);
  WaitNode* n = nullptr;
  s->join.lock.lock();
  s->cut_short |= cut_short;
  if (--s->live == 0) n = s->join.waiting.pop_winner(Outcome::Wake);
  s->join.lock.unlock();
  if (n) wake_waiter(n->waiter);
}

void scope_destroy(Tree* t) {
  auto* s = static_cast<ScopeHead*>(t);
  while (weft::detail::Failure* f = s->failures) {
    s->failures = f->next;
    delete f;
  }
  delete s;
}

}  // namespace weft::rt
