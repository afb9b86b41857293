// settle: waiting until few goroutines are left.
//
// Protocol   A waiter counts itself in Sched::settlers, then stops and starts the world once (in slices, while it can): after that every P sees the count
//            at its next exit, and every exit before it is in the live count. So exits need no fence for the rare waiter.
// Wait       Its queue is here, under one lock; each exit looks whether somebody's number has been reached.
#include <weft/test.hpp>

#include "runtime/block/cancel.hpp"
#include "runtime/block/queue.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

SpinLock lock;
WaitQueue waiting;

void look() {
  WaitNode* reached = nullptr;
  lock.lock();
  const std::uint64_t live = live_goroutines();  // under the lock: of two last exits the later one sees both
  for (WaitNode* n = peek(waiting.first); n;) {
    WaitNode* next = n->next;
    if (n->index >= live) {
      waiting.remove(n);
      if (n->waiter->try_win(n->ticket, Outcome::Wake)) {
        n->next = reached;
        reached = n;
      }
    }
    n = next;
  }
  lock.unlock();
  while (reached) {
    WaitNode* next = reached->next;
    wake_waiter(reached->waiter);
    reached = next;
  }
}

[[maybe_unused]] const bool registered = (settle_hook = look, true);

}  // namespace
}  // namespace weft::rt

namespace weft::detail {

using namespace rt;

namespace {
constexpr std::int64_t kSlice = 10'000'000;
}

bool settle_until(int n, std::int64_t deadline) {
  if (sched.state.load(memory_order_acquire) == RunState::Off) return true;  // [run-state] see sched/lifecycle.cpp
  Inside inside;
  const auto want = static_cast<std::uint32_t>(n < 0 ? 0 : n);
  if (live_goroutines() <= want) return true;
  struct Count {
    Count() { sched.settlers.fetch_add(1, memory_order_relaxed); }  // the stop of the world below orders it
    ~Count() { sched.settlers.fetch_sub(1, memory_order_relaxed); }
  } count;
  bool everybody_knows = false;
  for (;;) {
    if (!everybody_knows) {
      const std::int64_t left = deadline - arch::clock_now();
      everybody_knows = stop_world(left < kSlice ? (left > 0 ? left : 0) : kSlice);
      if (everybody_knows) start_world();
    }
    lock.lock();
    if (live_goroutines() <= want) {
      lock.unlock();
      return true;
    }
    const std::int64_t now = arch::clock_now();
    if (now >= deadline) {
      lock.unlock();
      return false;
    }
    Waiter* w = my_waiter();
    WaitNode* node = plain_node(w, true);
    node->index = want;
    waiting.push(node, &lock);
    // Beside a goroutine that comes to no safepoint nobody can be sure that exits see us: look again soon.
    const std::int64_t until = everybody_knows || deadline - now < kSlice ? deadline : now + kSlice;
    if (wait_on(w, node->ticket, WaitReason::Settle, nullptr, &lock, timed(until)) == Outcome::Cancel) {
      result_canceled();
      return false;
    }
  }
}

}  // namespace weft::detail
