// A queue of waiters inside a public object, whose header must not show it: two pointers and a word are the bytes.
#pragma once

#include <new>

#include "runtime/core/waiter.hpp"

namespace weft::rt {

static_assert(sizeof(SpinLock) == sizeof(std::atomic<std::uint32_t>));
static_assert(sizeof(WaitQueue) == 2 * sizeof(void*));

inline SpinLock& lock_in(std::atomic<std::uint32_t>& bytes) { return *std::launder(reinterpret_cast<SpinLock*>(&bytes)); }
inline WaitQueue& queue_in(void* (&bytes)[2]) { return *std::launder(reinterpret_cast<WaitQueue*>(bytes)); }

/// Sets up the caller's node of a plain wait.
inline WaitNode* plain_node(Waiter* w, bool racy) {
  WaitNode* n = &w->node;
  n->waiter = w;
  n->ticket = w->begin();
  n->elem = nullptr;
  n->success = false;
  n->racy = racy;
  return n;
}

/// `n` nodes of the caller's for a wait with several: in the descriptor, never on the stack (a plain thread's in its own).
/// May allocate: not under a lock. Whoever queues them sets G::nodes_count meanwhile.
WaitNode* nodes_for(G* gp, std::uint32_t n);

/// "goroutines 3, 7" (or "a thread"): who waits in `q`. Its lock is held.
void describe_waiters(const WaitQueue& q, char* text, std::size_t size);

}  // namespace weft::rt
