// Waiting: one kind of waiter for goroutines and plain threads, and the queue entries that point at it.
//
// A Waiter belongs to a G (in its descriptor) or to a plain thread. Each wait gets a ticket; the *win word* holds the ticket
// and, once somebody has won, how the wait ended. Everything that could end a wait (a channel peer, a timer, a cancel, the
// stop of the runtime) tries to win the word of the ticket it was given; exactly one does, and that one readies the waiter.
// A late contender holds an old ticket and loses.
//
// A WaitNode is one entry in one object's queue: a plain wait has one (inside the Waiter), a select one per case. Queues are
// guarded by their object's SpinLock.
//
//   waker (under the object's lock)          other contender (timer, cancel)
//   node = queue.pop()
//   try_win(ticket, Wake)  --- one CAS ---   try_win(ticket, Timeout)
//   won: unlock, move element, ready         won: ready; the waiter takes its node out of the queue itself
//   lost: drop the node, next                lost: nothing
//
// Exclusive  A wait that nothing but its one queue can end (`racy` false) needs no CAS: whoever pops the node under the
//            lock owns it. This is the case of a plain channel operation, and it keeps the ping-pong in its budget.
//            The stop of the runtime (sched/stop.cpp) takes such a node out of its queue under the same lock.
// Orders     [win] release by the winner, acquire by the waiter: the waiter sees what the winner did before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/atomic.hpp"
#include "runtime/base/lock.hpp"
#include "runtime/base/note.hpp"

namespace weft::rt {

struct G;
struct Waiter;
struct WaitQueue;

enum class Outcome : std::uint8_t {
  Pending = 0,
  Wake,     // the operation happened
  Timeout,  // its time ran out
  Cancel,   // somebody cancelled the waiter
  Close,    // the object was closed
  Stop,     // the runtime stops: unwind
};

/// Why a G is parked: the words of dumps and deadlock reports (Go's where Go has them).
enum class WaitReason : std::uint8_t {
  None,
  ChanReceive,
  ChanSend,
  ChanReceiveNil,
  ChanSendNil,
  Select,
  SelectNoCases,
  Sleep,
  Io,
  Mutex,
  RwMutexRead,
  RwMutexWrite,
  WaitGroup,
  Cond,
  Semaphore,
  Barrier,
  Latch,
  Await,
  Settle,
  Task,
  ScopeEnd,  // not ended by anybody: what it waits for has been told to end
  Yield,
  Preempted,
  NoStack,
  PanicWait,
  Syscall,
  BlockingCall,
};
const char* wait_reason_text(WaitReason r);

struct WaitNode {
  WaitNode* next = nullptr;
  WaitNode* prev = nullptr;
  WaitQueue* queue = nullptr;  // while queued
  Relaxed<SpinLock*> lock;     // guards `queue`
  Waiter* waiter = nullptr;
  void* elem = nullptr;        // the cell to copy from or to; null: none wanted
  std::uint64_t ticket = 0;
  std::uint32_t index = 0;     // of the select case
  bool racy = false;           // others may end this wait: win before waking
  bool success = false;        // set by the waker: an element moved (false: closed)
  bool of_thread = false;      // of a Waiter's own node: the waiter is a plain thread
};

/// FIFO of nodes. All of it under the object's lock, except empty(), which may be stale without it.
struct WaitQueue {
  std::atomic<WaitNode*> first{nullptr};
  WaitNode* last = nullptr;

  WEFT_ALWAYS_INLINE bool empty() const { return !peek(first); }

  WEFT_ALWAYS_INLINE void push(WaitNode* n, SpinLock* guard) {
    n->queue = this;
    n->lock = guard;
    n->next = nullptr;
    n->prev = last;
    if (n->prev)
      last->next = n;
    else
      first.store(n, memory_order_relaxed);
    last = n;
  }

  WEFT_ALWAYS_INLINE void remove(WaitNode* n) {
    if (n->prev)
      n->prev->next = n->next;
    else
      first.store(n->next, memory_order_relaxed);
    (n->next ? n->next->prev : last) = n->prev;
    n->queue = nullptr;
  }

  /// The first node whose wait this caller now owns, taken out; null if there is none. `how` is its outcome.
  inline WaitNode* pop_winner(Outcome how);
};

/// Who decides how a wait ends: operations on `word` of a Waiter (or of a model's: tests/model).
template <class Self>
struct WinWord {
  static constexpr unsigned kOutcomeBits = 3;

  /// Owner only: a new wait's ticket.
  std::uint64_t next_ticket() {
    const std::uint64_t t = (peek(self().word) >> kOutcomeBits) + 1;
    self().word.store(t << kOutcomeBits, memory_order_relaxed);
    return t;
  }

  /// True: this caller decided how the wait `ticket` ends and must ready the waiter.
  bool try_win(std::uint64_t ticket, Outcome how) {
    std::uint64_t expected = ticket << kOutcomeBits;
    return self().word.compare_exchange_strong(expected, expected | static_cast<std::uint64_t>(how),
                                               memory_order_acq_rel, memory_order_relaxed);  // [win]
  }

  /// The owner of an exclusive wait's node says how it ends.
  void set(std::uint64_t ticket, Outcome how) {
    self().word.store(ticket << kOutcomeBits | static_cast<std::uint64_t>(how), memory_order_release);  // [win]
  }

  Outcome outcome() const {
    return static_cast<Outcome>(self().word.load(memory_order_acquire) & ((1 << kOutcomeBits) - 1));  // [win]
  }

 private:
  Self& self() { return static_cast<Self&>(*this); }
  const Self& self() const { return static_cast<const Self&>(*this); }
};

struct Waiter : WinWord<Waiter> {
  std::atomic<std::uint64_t> word{0};  // ticket << 3 | outcome
  Note note;                           // a plain thread sleeps here
  std::uint32_t fired = kNone;         // which node ended a wait of several; written by the winner before it readies
  WaitNode node;                       // the one of a plain wait

  static constexpr std::uint32_t kNone = 0xffffffff;

  /// The goroutine whose descriptor this is in; null: a plain thread. (g.hpp)
  inline G* g();

  /// Owner only, before any node of the new wait is visible. The ticket of the wait.
  std::uint64_t begin() {
    const std::uint64_t t = next_ticket();
    fired = kNone;
    node.queue = nullptr;
    node.lock = nullptr;
    return t;
  }
};

/// pop_winner() of any queue of nodes; tests/model has its own.
template <class Queue>
WEFT_ALWAYS_INLINE auto take_winner(Queue& queue, Outcome how) -> decltype(peek(queue.first)) {
  while (auto* n = peek(queue.first)) {
    queue.remove(n);
    auto* w = n->waiter;
    if (n->racy) {
      if (!w->try_win(n->ticket, how)) continue;
      w->fired = n->index;
    } else {
      w->set(n->ticket, how);
    }
    return n;
  }
  return nullptr;
}

WEFT_ALWAYS_INLINE WaitNode* WaitQueue::pop_winner(Outcome how) {
  return take_winner(*this, how);
}

}  // namespace weft::rt
