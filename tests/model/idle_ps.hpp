// The idle Ps and the searcher's place, for the models of who sleeps and who wakes whom: idle_test.cpp,
// poller_sleep_test.cpp and world.hpp.
//
// Functions mirror those of the same name in sched/idle.cpp; claim_search() is wake_one() up to mu. The rest of it is
// each model's own: what else forbids to take a P, and who gets it, is what they differ in.
#pragma once

#include <cstdint>

#include "tests/model/atomic.hpp"

namespace weft::model {

template <class P>
class IdlePs {
 protected:
  P* pop_idle_p() {
    P* pp = idle_ps_;
    if (!pp) return nullptr;
    idle_ps_ = pp->idle_link;
    idle_ps_count_.fetch_sub(1, std::memory_order_seq_cst);
    pp->idle_link = nullptr;
    return pp;
  }
  void push_idle_p(P* pp) {
    for (const P* at = idle_ps_; at; at = at->idle_link) check(at != pp, "a P is idle twice");
    pp->idle_link = idle_ps_;
    idle_ps_ = pp;
    idle_ps_count_.fetch_add(1, std::memory_order_seq_cst);
  }

  bool claim_search() {
    if (idle_ps_count_.load(std::memory_order_seq_cst) == 0) return false;
    std::uint32_t none = 0;
    return searching_.load(std::memory_order_seq_cst) == 0 &&
           searching_.compare_exchange_strong(none, 1, std::memory_order_seq_cst);
  }

  /// How many there are in the end; nobody searches then.
  int idle_in_the_end() const {
    check(searching_.final() == 0, "searching is off: nobody searches");
    int idle = 0;
    for (const P* pp = idle_ps_; pp; pp = pp->idle_link) idle++;
    check(static_cast<int>(idle_ps_count_.final()) == idle, "idle_ps_count is off");
    return idle;
  }

  Lock mu_;
  Atomic<std::uint32_t> searching_{0};
  Atomic<std::uint32_t> idle_ps_count_{0};
  P* idle_ps_ = nullptr;  // under mu_
};

}  // namespace weft::model
