// rt::WaitQueue on the model's atomics (core/waiter.hpp), for waiter_test.cpp and select.hpp.
#pragma once

#include "tests/model/atomic.hpp"

namespace weft::model {

/// push() and remove() line by line. Of nodes that are Plain, a touch without the object's lock is a race.
template <class Node>
struct WaitQueue {
  Atomic<Node*> first{nullptr};
  Node* last = nullptr;

  void push(Node* n) {
    n->queue = this;
    n->next = nullptr;
    n->prev = last;
    if (n->prev)
      last->next = n;
    else
      first.store(n, std::memory_order_relaxed);
    last = n;
  }
  void remove(Node* n) {
    if (n->prev)
      n->prev->next = n->next;
    else
      first.store(n->next, std::memory_order_relaxed);
    if (n->next)
      n->next->prev = n->prev;
    else
      last = n->prev;
    n->queue = nullptr;
  }
};

}  // namespace weft::model
