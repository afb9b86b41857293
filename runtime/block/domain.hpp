// The tree of tasks and scopes: what task.cpp and scope.cpp share.
//
// Tree       A scope is a child of the domain that its goroutine was in, a task of Scope::spawn one of its scope; a task of
//            weft::spawn is a root. A child holds its parent; a parent has its children in a list, for its cancel to find. A cancel
//            takes the list apart: who is cancelled needs no children any more, and who comes later is born cancelled.
//              1. claim: under the domain's lock `canceled` is set, once, and the runner's byte; the children join the walk.
//              2. the contexts that have been asked for are cancelled, so that who is woken finds them done.
//              3. the barrier, then a look at each runner (sched/cancel.hpp).
//            Children that hide (shields, and scopes that were opened in a shielded place) are not claimed; a shield's time begins.
// Lifetime   References: the handle's, the goroutine's or frame's, each child's on its parent, an armed timer's, a walk's.
// Locks      One domain's lock at a time; within it that of a parked runner's wait. JoinQueue::lock by itself.
// Orders     [run-state] see sched/lifecycle.cpp. [domain-ref] as [chan-ref] in include/weft/chan.hpp. [task-done] release by the task's end, acquire by who sees it.
#pragma once

#include <weft/task.hpp>

#include <string>

#include "runtime/block/queue.hpp"
#include "runtime/sched/cancel.hpp"

namespace weft::rt {

enum class TreeKind : std::uint8_t { Task, Scope, Shield };

/// Why a domain was cancelled: decides what the end of a scope throws.
enum class Why : std::uint8_t { None, Asked, Failure, Time, Context, Outer };

struct Tree : Domain {
  std::atomic<std::uint32_t> refs{1};
  const TreeKind kind;
  bool hides = false;   // its parent's cancel does not reach it
  bool listed = false;  // in the parent's list; under the parent's lock
  Why why = Why::None;  // with canceled
  Tree* const parent;   // counted; null: a root
  Tree* next = nullptr;
  Tree* prev = nullptr;
  Tree* first = nullptr;  // of the children; under lock
  Tree* walk_next = nullptr;      // of whose walk it is
  std::error_code error;          // with canceled
  std::int64_t deadline = kNever;  // of its context
  Relaxed<std::uint64_t> goid;     // of the runner, for reports
  weft::Context base;              // what its context derives from, if that is not the parent's
  weft::Context context;           // under lock; made when it is first asked for

  const std::int64_t run = sched.started_at;  // the runner's: descriptors of an earlier one are nobody's

  Tree(TreeKind k, Tree* p) : kind(k), parent(p) {
    if (p) p->refs.fetch_add(1, memory_order_relaxed);
  }
};

/// Whether its goroutine may still come to its end.
inline bool runs_on(const Tree* t) {
  const RunState s = sched.state.load(memory_order_acquire);  // [run-state]
  return (s == RunState::Running || s == RunState::Unwinding) && sched.started_at == t->run;
}

/// Those who wait for something that happens once.
struct JoinQueue {
  SpinLock lock;
  WaitQueue waiting;  // under lock
};

/// The innermost domain of the calling goroutine.
inline Tree* current_tree() {
  const G* gp = current_g();
  return gp ? static_cast<Tree*>(gp->domain) : nullptr;
}

/// Into the parent's list; born cancelled if the parent is and it does not hide.
void tree_link(Tree* t);
void tree_unlink(Tree* t);
/// Drops a reference. On g0, which may run no user code, the last one is dropped by a goroutine.
void tree_unref(Tree* t);
/// Cancels t, which the caller holds, with all below it. Does nothing if it was cancelled before.
void tree_cancel(Tree* t, Why why, const std::error_code& e);
bool tree_canceled(Tree* t);
const weft::Context& tree_context(Tree* t);
/// The nearest context that a user has given for t or something around it; null: none.
const weft::Context* tree_base(const Tree* t);

/// The parent of a shield is cancelled: its time begins. (scope.cpp)
void shield_starts(Tree* t);
/// Its last reference is gone. (task.cpp, scope.cpp)
void task_destroy(Tree* t);
void scope_destroy(Tree* t);

// Of a child, by scope.cpp:
/// Before it starts. Panics if the scope has ended.
void scope_child_starts(Tree* scope);
/// It has failed. True: as the first; the caller cancels the scope once the child counts as done.
bool scope_child_fails(Tree* scope, const std::exception_ptr& e);
/// The scope need not wait for it any more. `cut_short`: Canceled has ended it.
void scope_child_ended(Tree* scope, bool cut_short);
Tree* scope_tree(weft::detail::ScopeHead* s);

/// For logs and reports.
std::string describe_failure(const std::exception_ptr& e);

/// `first` was thrown by a scope; `others` came later. (suppressed.cpp)
void attach_suppressed(const std::exception_ptr& first, std::vector<std::exception_ptr> others);

}  // namespace weft::rt
