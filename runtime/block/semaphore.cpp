// Semaphore.
//
// Word       2 * free | queued. While queued is set nobody but the guard's holder changes it, so the queue decides.
// Invariants Under the guard: queued exactly while somebody is in the queue; the oldest there wants more than is free.
// Giving up  A waiter that gives up may have been the one that held the others up: they are served then.
// Orders     [semaphore] acquire by who takes, release by who gives back.
#include <weft/semaphore.hpp>

#include "runtime/base/check.hpp"
#include "runtime/base/sched_point.hpp"
#include "runtime/block/cancel.hpp"
#include "runtime/block/context.hpp"
#include "runtime/block/panic.hpp"

namespace weft {

using namespace rt;

struct SemaphoreImpl {
  static constexpr std::int64_t kQueued = Semaphore::kQueued;

  const std::int64_t size;
  std::atomic<std::int64_t>& word;
  SpinLock& guard;
  WaitQueue& queue;
  explicit SemaphoreImpl(Semaphore& s)
      : size(s.size_), word(s.word_), guard(lock_in(s.guard_)), queue(queue_in(s.waiters_)) {}

  // What a node's waiter wants travels where others have their element.
  static void* wish(std::int64_t n) { return reinterpret_cast<void*>(static_cast<std::intptr_t>(n)); }
  static std::int64_t wish_of(const WaitNode* n) { return reinterpret_cast<std::intptr_t>(n->elem); }

  /// Guard held and queued set: gives `more` back, serves who can be served, releases the guard, wakes them.
  void serve(std::int64_t more) {
    // [semaphore] acquire: the store below publishes again what earlier releases did.
    std::int64_t free = word.load(memory_order_acquire) / 2 + more;
    WaitNode* woken = nullptr;
    WaitNode** end = &woken;
    while (WaitNode* n = peek(queue.first)) {
      const std::int64_t wants = wish_of(n);
      if (wants > free) break;
      queue.remove(n);
      Waiter* w = n->waiter;
      if (!n->racy)
        w->set(n->ticket, Outcome::Wake);
      else if (!w->try_win(n->ticket, Outcome::Wake))
        continue;
      free -= wants;
      n->next = nullptr;
      *end = n;
      end = &n->next;
    }
    word.store(free * 2 | (queue.empty() ? 0 : kQueued), memory_order_release);  // [semaphore]
    guard.unlock();
    while (woken) {
      WaitNode* next = woken->next;
      wake_waiter(woken->waiter);
      woken = next;
    }
  }

  /// Wake: acquired. Else what the limit says.
  Outcome acquire(Semaphore* self, std::int64_t n, Limit limit) {
    SCHED_POINT("semaphore acquire");
    prepare_wait(current_g(), limit, self);
    Waiter* w = my_waiter();
    if (n > size) {
      // Never: it must not hold up those that can be served.
      WaitNode* node = plain_node(w, true);
      return wait_within(w, node->ticket, WaitReason::Semaphore, self, nullptr, limit);
    }
    guard.lock();
    for (std::int64_t at = peek(word);;) {
      if (at & kQueued) break;
      const bool enough = at >= n * 2;
      if (!word.compare_exchange_strong(at, enough ? at - n * 2 : at | kQueued, memory_order_acquire,  // [semaphore]
                                        memory_order_relaxed))
        continue;
      if (!enough) break;
      guard.unlock();
      return Outcome::Wake;
    }
    WaitNode* node = plain_node(w, limit.any());
    node->elem = wish(n);
    queue.push(node, &guard);
    const Outcome o = wait_within(w, node->ticket, WaitReason::Semaphore, self, &guard, limit);
    if (o != Outcome::Wake) {
      Outside outside(current_m());
      guard.lock();
      if (peek(word) & kQueued)
        serve(0);
      else
        guard.unlock();
    }
    return o;
  }

  void release(std::int64_t n) {
    SCHED_POINT("semaphore release");
    Outside outside(current_m());
    guard.lock();
    std::int64_t at = peek(word);
    for (;;) {
      if (n < 0 || at / 2 + n > size) {
        guard.unlock();
        if (n < 0) Semaphore::bad_weight();
        panic_runtime("semaphore: released more than held");
      }
      if (at & kQueued) break;
      if (word.compare_exchange_strong(at, at + n * 2, memory_order_release, memory_order_relaxed)) {  // [semaphore]
        guard.unlock();
        return;
      }
    }
    serve(n);
  }
};

void Semaphore::acquire_slow(std::int64_t n) {
  Inside inside;
  must_not_be_canceled(SemaphoreImpl(*this).acquire(this, n, {}));
}

bool Semaphore::acquire_until(std::int64_t n, std::int64_t deadline) {
  if (deadline <= arch::clock_now()) return false;
  Inside inside;
  return has_happened(SemaphoreImpl(*this).acquire(this, n, {.deadline = timed(deadline)}));
}

std::error_code Semaphore::acquire_within(const Context& ctx, std::int64_t n) {
  ContextWait by(ctx);
  if (std::error_code e = by.error()) return e;
  if (try_acquire(n)) return {};
  Inside inside;
  return error_of(SemaphoreImpl(*this).acquire(this, n, by.limit()), by);
}

void Semaphore::release_slow(std::int64_t n) {
  Inside inside;
  SemaphoreImpl(*this).release(n);
}

void Semaphore::bad_weight() { panic_runtime("semaphore: negative weight"); }

void Semaphore::destroyed_in_use() {
  SemaphoreImpl s(*this);
  char who[256];
  s.guard.lock();
  describe_waiters(s.queue, who, sizeof who);
  s.guard.unlock();
  if (who[0]) fatalf("weft: Semaphore destroyed while waited for by %s", who);
}

}  // namespace weft
