// See timer_heap.hpp.
#include "runtime/core/timer_heap.hpp"

#include <new>

#include "runtime/base/check.hpp"

namespace weft::rt {

void TimerHeap::place(std::uint32_t i, const Entry& e) {
  entries_[i] = e;
  e.node->slot = i;
}

void TimerHeap::up(std::uint32_t i) {
  const Entry e = entries_[i];
  while (i > 0) {
    const std::uint32_t parent = (i - 1) / 4;
    if (!e.before(entries_[parent])) break;
    place(i, entries_[parent]);
    i = parent;
  }
  place(i, e);
}

void TimerHeap::down(std::uint32_t i) {
  const Entry e = entries_[i];
  const auto n = static_cast<std::uint32_t>(entries_.size());
  for (;;) {
    const std::uint32_t first = i * 4 + 1;
    if (first >= n) break;
    std::uint32_t least = first;
    const std::uint32_t end = first + 4 < n ? first + 4 : n;
    for (std::uint32_t c = first + 1; c < end; c++)
      if (entries_[c].before(entries_[least])) least = c;
    if (!entries_[least].before(e)) break;
    place(i, entries_[least]);
    i = least;
  }
  place(i, e);
}

void TimerHeap::publish() {
  const std::int64_t when = entries_.empty() ? kNever : entries_[0].when;
  if (peek(earliest_) != when) earliest_.store(when, memory_order_release);  // [earliest]
  count_.store(entries_.size(), memory_order_relaxed);
}

void TimerHeap::insert(TimerNode* t) {
  try {
    entries_.push_back({t->when, seq_++, t});
  } catch (const std::bad_alloc&) {
    fatalf("out of memory: no room for a timer");  // we may stand in the commit of somebody's park
  }
  t->heap.store(this, memory_order_release);  // [timer-heap]
  up(static_cast<std::uint32_t>(entries_.size() - 1));
}

void TimerHeap::remove_at(std::uint32_t i) {
  entries_[i].node->heap.store(nullptr, memory_order_release);  // [timer-heap]
  const auto last = static_cast<std::uint32_t>(entries_.size() - 1);
  if (i != last) {
    place(i, entries_[last]);
    entries_.pop_back();
    if (i > 0 && entries_[i].before(entries_[(i - 1) / 4]))
      up(i);
    else
      down(i);
  } else {
    entries_.pop_back();
  }
}

bool TimerHeap::add(TimerNode* t) {
  WEFT_DCHECK(!peek(t->heap));
  lock_.lock();
  insert(t);
  const bool first = entries_[0].node == t;
  publish();
  lock_.unlock();
  return first;
}

unsigned TimerHeap::expire(std::int64_t now) {
  struct Due {
    TimerNode* node;
    void (*fire)(TimerNode* which, std::uint64_t ticket, std::int64_t now);
    std::uint64_t ticket;
  };
  constexpr unsigned kAtOnce = 16;
  unsigned fired = 0;
  // Only what was due at the start: a callback that arms a timer for now must not keep the caller here.
  for (;;) {
    Due due[kAtOnce];
    unsigned n = 0, popped = 0;
    lock_.lock();
    while (n < kAtOnce && !entries_.empty() && entries_[0].when <= now) {
      TimerNode* t = entries_[0].node;
      const TimerNode::Ops* const ops = t->ops;
      if (!ops->claim || ops->claim(t)) due[n++] = {t, ops->fire, t->ticket};
      remove_at(0);  // the last touch of *t: an owner that sees it disarmed may free it
      popped++;
    }
    if (popped != 0) publish();
    lock_.unlock();
    if (popped == 0) return fired;
    for (unsigned i = 0; i < n; i++) due[i].fire(due[i].node, due[i].ticket, now);
    fired += popped;
  }
}

void TimerHeap::drain_to(TimerHeap& other) {
  // Both locks, by address: a node is always in one of the two for whoever wants to remove it.
  TimerHeap* low = this < &other ? this : &other;
  TimerHeap* high = this < &other ? &other : this;
  low->lock_.lock();
  high->lock_.lock();
  for (const Entry& e : entries_) other.insert(e.node);
  entries_.clear();
  publish();
  other.publish();
  high->lock_.unlock();
  low->lock_.unlock();
}

void TimerHeap::forget_all() {
  for (;;) {
    lock_.lock();
    if (entries_.empty()) {
      publish();
      lock_.unlock();
      return;
    }
    TimerNode* t = entries_.back().node;
    // Its owner may free any other kind as soon as it is disarmed.
    const auto forget = t->ops->forget;
    remove_at(static_cast<std::uint32_t>(entries_.size() - 1));
    lock_.unlock();
    if (forget) forget(t);
  }
}

bool timer_remove(TimerNode* t) {
  for (;;) {
    TimerHeap* h = t->heap.load(memory_order_acquire);  // [timer-heap]
    if (!h) return false;
    h->lock_.lock();
    if (peek(t->heap) == h) {
      h->remove_at(t->slot);
      h->publish();
      h->lock_.unlock();
      return true;
    }
    h->lock_.unlock();  // it fired or moved meanwhile
  }
}

}  // namespace weft::rt
