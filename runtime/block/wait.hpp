// A wait that something beside its object may end: a deadline, or a source of cancellation (a context's node; a task's own).
//
// Protocol   A CancelSource is a flag and a queue of nodes, one per wait that it may end. Cancelling sets the flag under the
//            lock, once its reason can be seen, and wins the word of every node in the queue with Outcome::Cancel. A wait puts its node there last, when
//            its context is saved: it finds the flag, or the canceller finds the node.
//
//              waiter's commit                    canceller
//              lock(source)                       lock(source)
//              over? -> try_win(Cancel)           over = true, pop_winner(Cancel) ...
//              else queue the node                unlock
//              unlock                             wake the winners
//
//            So an operation that has already happened keeps its result: whoever wins the word says how the wait ended.
// Tasks      A goroutine in a task or scope may be cancelled by that as well: sched/cancel.hpp. Outcome::Cancel does not say by whom.
// Guard      The commit touches the waiter's frame after it has released the object's lock, so the G that is woken meanwhile
//            waits for G::guard before it goes on (as in select.cpp).
// Nodes      The object's node is the waiter's own; the source's is nodes_for(gp, 1): in the descriptor, never on the stack.
// Locks      The object's lock is released before the source's is taken: a context may be cancelled while its own done
//            channel is what somebody waits for.
#pragma once

#include <cstdint>

#include "runtime/block/queue.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {

struct CancelSource {
  SpinLock lock;
  bool over = false;  // under lock; for good
  WaitQueue waits;    // under lock
};

/// What may end a wait beside its object.
struct Limit {
  std::int64_t deadline = kNever;
  CancelSource* source = nullptr;
  bool domain = false;  // the caller is in one (sched/cancel.hpp): known after prepare_wait()
  /// Others than the object may end it: its node must be racy.
  bool any() const { return deadline != kNever || source || domain; }
};

[[noreturn]] void panic_own_stack(const G* gp);
inline bool on_own_copyable_stack(const G* gp, const void* object) {
  return WEFT_UNLIKELY(gp && gp->started != kStarted) && is_copyable(gp) && object >= gp->stack->lo && object < gp->stack->hi;
}

/// Call it before the object's lock is taken: may allocate. Panics if `object`, what is waited on, lies on the caller's own copyable
/// stack: nobody could reach it there meanwhile.
inline void prepare_wait(G* gp, Limit& limit, const void* object = nullptr) {
  limit.domain = gp && gp->domain;
  if (limit.source) nodes_for(gp, 1);
  if (on_own_copyable_stack(gp, object)) panic_own_stack(gp);
}

/// wait_on() with a limit; the caller has called prepare_wait() and still keeps the source alive.
Outcome wait_within(Waiter* w, std::uint64_t ticket, WaitReason reason, const void* object, SpinLock* lock, const Limit& limit);

/// For an operation with a node of its own kind beside the source's (fd.cpp). The source's node for this wait, not queued yet; its commit
/// puts it there; back from the wait it is taken out. prepare_wait() comes first.
WaitNode* source_node(Waiter* w, std::uint64_t ticket);
void enroll(CancelSource* source, WaitNode* node);
void leave_queue(WaitNode* node);

/// wake_waiter() by one that parks next: this P runs a goroutine that it wakes in a moment, so that no other P is woken for it.
void wake_before_park(Waiter* w);

/// Sets the flag and ends everybody who waits with Outcome::Cancel. Called once; what they then ask for, why, can be seen already.
void cancel_waits(CancelSource& source);

}  // namespace weft::rt
