// Tasks: goroutines with a result.
//
// End        In this order: the closure goes, the goroutine leaves the domain, the scope notes a failure, `done` is set and those who
//            wait are woken, the first failure cancels the scope, the scope need not wait any more (its frame may be gone then),
//            the goroutine's reference goes.
// Handle     One that owns its task (spawn, submit) cancels and joins it when it goes; not from within the task itself, and not
//            once the runtime that it ran in has ended: what is left then was dropped without a statement of its own.
// Result     In the head's own block, behind it. `taken` is set by the first get().
// Orders     [task-done] release by the end, acquire by who sees it: then the result or the failure is there. [domain-ref] see domain.hpp.
//            [run-state] see sched/lifecycle.cpp.
#include <weft/detail/value.hpp>
#include <weft/panic.hpp>

#include "runtime/base/collector.hpp"
#include "runtime/base/log.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/domain.hpp"
#include "runtime/block/panic.hpp"

namespace weft::detail {

using namespace rt;

enum class TaskEnd : std::uint8_t { None, Result, Failure, Canceled, Goexit, Stopped };

struct TaskHead : Tree {
  const ResultOps* const ops;
  JoinQueue join;
  std::atomic<bool> done{false};
  std::atomic<bool> taken{false};
  bool owned = false;      // by its handle
  TaskEnd end = TaskEnd::None;  // written before done
  std::exception_ptr failure;   // the same
  std::atomic<bool> has_chan{false};
  RecvChan<void> done_chan;  // under join.lock until has_chan
  Chan<void> closer;         // its other end
  TaskHead(const ResultOps* o, Tree* parent) : Tree(TreeKind::Task, parent), ops(o) {}
};

namespace {

constexpr std::size_t kAlignMin = alignof(TaskHead);

std::size_t slot_at(const ResultOps* ops) {
  const std::size_t align = ops->align > kAlignMin ? ops->align : kAlignMin;
  return (sizeof(TaskHead) + align - 1) & ~(align - 1);
}
std::align_val_t align_of(const ResultOps* ops) {
  return std::align_val_t(ops->align > kAlignMin ? ops->align : kAlignMin);
}

bool is_done(const TaskHead* t) {
  return t->done.load(memory_order_acquire);  // [task-done]
}

void end(TaskHead* t) {
  const bool first_failure = t->parent && t->end == TaskEnd::Failure && scope_child_fails(t->parent, t->failure);
  Chan<void> closer;
  WaitNode* woken = nullptr;
  WaitNode** last = &woken;
  Inside inside;
  Outside outside(inside.m);
  t->join.lock.lock();
  t->done.store(true, memory_order_release);  // [task-done]
  closer = t->closer;
  while (WaitNode* n = t->join.waiting.pop_winner(Outcome::Wake)) {
    n->next = nullptr;
    *last = n;
    last = &n->next;
  }
  t->join.lock.unlock();
  while (woken) {
    WaitNode* next = woken->next;
    wake_waiter(woken->waiter);
    woken = next;
  }
  outside.leave();
  if (closer) closer.close();
  if (t->parent) {
    tree_unlink(t);
    if (first_failure) tree_cancel(t->parent, Why::Failure, Errc::canceled);
    scope_child_ended(t->parent, t->end == TaskEnd::Canceled);
  }
}

/// Wake: it has ended. The caller holds it.
Outcome join(TaskHead* t, Limit limit, WaitReason reason) {
  SCHED_POINT("task wait");
  if (is_done(t)) return Outcome::Wake;
  prepare_wait(current_g(), limit);
  t->join.lock.lock();
  if (is_done(t)) {
    t->join.lock.unlock();
    return Outcome::Wake;
  }
  if (limit.deadline != kNever && limit.deadline <= arch::clock_now()) {
    t->join.lock.unlock();
    return Outcome::Timeout;
  }
  WaitNode* n = plain_node(my_waiter(), limit.any());
  t->join.waiting.push(n, &t->join.lock);
  return wait_within(n->waiter, n->ticket, reason, t, &t->join.lock, limit);
}

void not_itself(const TaskHead* t) {
  if (const std::uint64_t id = weft::goid(); id != 0 && t->goid == id && !is_done(t))
    panic_runtime("weft: a task waits for itself");
}

/// While a wait is under way the handle may be dropped by somebody else.
struct Hold {
  TaskHead* t;
  explicit Hold(TaskHead* held) : t(held) { task_ref(t); }
  ~Hold() { task_unref(t); }
};

void log_unasked(const TaskHead* t) {
  log_warn("task %llu failed, and nobody asked for its result: %s", static_cast<unsigned long long>(task_goid(t)),
           describe_failure(t->failure).c_str());
}

}  // namespace

TaskHead* task_make(const ResultOps* ops, ScopeHead* scope) {
  Tree* parent = scope ? scope_tree(scope) : nullptr;
  if (parent) scope_child_starts(parent);
  void* block = rt::value_try_new(slot_at(ops) + ops->size, static_cast<std::size_t>(align_of(ops)));  // it keeps the result
  if (!block) {
    if (parent) scope_child_ended(parent, false);
    throw std::bad_alloc();
  }
  auto* t = ::new (block) TaskHead(ops, parent);
  if (parent) {
    t->throws = parent->throws;
    tree_link(t);
  } else if (const Tree* around = current_tree()) {
    t->throws = around->throws;
    if (const Context* base = tree_base(around)) t->base = without_cancel(*base);
  }
  return t;
}

void task_ref(TaskHead* t) { t->refs.fetch_add(1, memory_order_relaxed); }
void task_unref(TaskHead* t) { tree_unref(t); }
void* task_slot(TaskHead* t) { return reinterpret_cast<char*>(t) + slot_at(t->ops); }

void task_enter(TaskHead* t) {
  Inside inside;
  G* gp = current_g();
  t->goid = gp->id;
  enter_domain(gp, t);
}

void task_succeeded(TaskHead* t) { t->end = TaskEnd::Result; }
void task_canceled(TaskHead* t) { t->end = TaskEnd::Canceled; }
void task_failed(TaskHead* t, std::exception_ptr e) {
  t->end = TaskEnd::Failure;
  t->failure = std::move(e);
}

void task_finish(TaskHead* t) {
  {
    Inside inside;
    leave_domain(current_g(), t);
  }
  if (t->end == TaskEnd::None)
    t->end = sched.state.load(memory_order_acquire) == RunState::Running ? TaskEnd::Goexit : TaskEnd::Stopped;  // [run-state]
  end(t);
  tree_unref(t);
}

void task_dropped(TaskHead* t) {
  t->end = TaskEnd::Stopped;
  end(t);
  tree_unref(t);
}

void task_own(TaskHead* t) { t->owned = true; }

void task_drop_handle(TaskHead* t) noexcept {
  if (t->owned) {
    if (!is_done(t) && runs_on(t) && (t->goid == 0 || weft::goid() != t->goid)) {
      task_cancel(t);
      Inside inside;
      Masked masked(current_g());
      join(t, {}, WaitReason::ScopeEnd);
    }
    if (is_done(t) && t->end == TaskEnd::Failure && !peek(t->taken)) log_unasked(t);
  }
  tree_unref(t);
}

bool task_wait(TaskHead* t, std::int64_t deadline) {
  Inside inside;
  Hold hold(t);
  not_itself(t);
  const Outcome o = join(t, {.deadline = deadline}, WaitReason::Task);
  if (deadline == kNever) must_not_be_canceled(o);
  return has_happened(o);
}

std::error_code task_wait(TaskHead* t, const Context& ctx) {
  Inside inside;
  Hold hold(t);
  not_itself(t);
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  return error_of(join(t, by.limit(), WaitReason::Task), by);
}

void task_take(TaskHead* t) {
  task_wait(t, kNever);
  if (t->taken.exchange(true, memory_order_relaxed)) panic_runtime("weft: the result of a Task was asked for twice");
  switch (t->end) {
    case TaskEnd::Result: return;
    case TaskEnd::Failure: std::rethrow_exception(t->failure);
    case TaskEnd::Goexit: panic_runtime("weft: the task has no result: goexit ended it");
    case TaskEnd::None:
    case TaskEnd::Canceled:
    case TaskEnd::Stopped: throw_canceled();
  }
}

bool task_done(const TaskHead* t) { return is_done(t); }
void task_cancel(TaskHead* t) { tree_cancel(t, Why::Asked, Errc::canceled); }
std::uint64_t task_goid(const TaskHead* t) { return t->goid; }

const RecvChan<void>& task_done_chan(TaskHead* t) {
  if (t->has_chan.load(memory_order_acquire)) return t->done_chan;  // [task-done]
  const Chan<void> fresh = make_chan<void>();  // not under the lock
  bool close = false;
  t->join.lock.lock();
  if (!peek(t->has_chan)) {
    t->done_chan = fresh;
    t->closer = fresh;
    close = peek(t->done);
    t->has_chan.store(true, memory_order_release);  // [task-done]
  }
  t->join.lock.unlock();
  if (close) fresh.close();
  return t->done_chan;
}

void panic_empty_task(const char* what) { weft::panic(std::string("weft: ") + what + " of an empty Task"); }

}  // namespace weft::detail

namespace weft::rt {

void task_destroy(Tree* tree) {
  weft::detail::TaskHead* t = static_cast<weft::detail::TaskHead*>(tree);
  const weft::detail::ResultOps* ops = t->ops;
  if (t->end == weft::detail::TaskEnd::Result && ops->destroy) ops->destroy(weft::detail::task_slot(t));
  t->~TaskHead();
  weft::detail::value_free(static_cast<void*>(t), static_cast<std::size_t>(weft::detail::align_of(ops)));
}

}  // namespace weft::rt
