// The poller: descriptors' readiness, and the sleep of one idle M.
//
// Protocol   Each wait arms its descriptor one-shot (EPOLLONESHOT): a number that the user closes and reuses cannot send a
//            stale edge to a new waiter, because arming adds or modifies as the kernel finds it. A wait is a WaitNode in
//            the descriptor's queue for its direction, under the descriptor's lock; events pop and win nodes like any waker.
//            An event carries the count of armings: one that another thread fetched before a reuse is recognised.
//            At most one M sleeps in wait(); others may poll without sleeping. wake() interrupts the sleeper (eventfd).
// Refused    No epoll or eventfd: ok() is false, waits answer with an error, idle Ms sleep on their notes.
// Orders     [poll-break] release by wake(), acquire by the sleeper. [idle] waiting(): a plain thread that arms, then looks for
//            somebody to sleep here, against an M that gives its P back, then looks what is armed (sched/idle.cpp).
#pragma once

#include <cstdint>

#include "runtime/base/atomic.hpp"
#include "runtime/core/waiter.hpp"

namespace weft::rt {

/// Gs that became ready, in order.
struct GList {
  G* first = nullptr;
  G* last = nullptr;
  unsigned count = 0;
  void push(G* g);
  G* pop();
};

class Poller {
 public:
  /// Opens the kernel's objects. False: refused.
  bool start();
  void stop();
  bool ok() const { return epfd_ >= 0; }

  /// Puts `n` into fd's queue for `write` or read and arms it. 0, or an errno (then nothing is queued). EPERM: a kind of
  /// file that is always ready.
  int arm(int fd, bool write, WaitNode* n);
  /// The SpinLock and place of a node's queue are in the node: whoever ends the wait otherwise removes it there.
  void disarm(WaitNode* n);

  /// Waits for events until `deadline` (kNever: no limit; past: does not sleep). Woken waiters that are Gs are appended to
  /// `ready` with their wait won; plain threads are woken here. False: nothing in `ready`.
  /// `sleeper`: the one M that wake() is meant for; others leave the interruption where it is.
  /// Whoever gets Gs queues them, then says so with queued(): until then they count as waiting, so that they are never
  /// nowhere for the one who looks for a deadlock.
  bool wait(std::int64_t deadline, GList& ready, bool sleeper);
  void queued(unsigned n);
  /// Interrupts the sleeper in wait(), now or the next one.
  void wake();

  /// Waits that are armed, or over but not queued yet; may be stale.
  unsigned waiting() const { return waiting_.load(memory_order_seq_cst); }  // [idle]

 private:
  struct Desc;
  Desc* desc(int fd, bool make);
  void wake_all(WaitQueue& q, GList& ready);  // its descriptor's lock held

  int epfd_ = -1;
  int eventfd_ = -1;
  std::atomic<std::uint32_t> break_pending_{0};
  std::atomic<unsigned> waiting_{0};
  struct Table;
  std::atomic<Table*> table_{nullptr};
};

}  // namespace weft::rt
