// Timers: a 4-ary min-heap per P, ordered by (when, sequence): equal times fire in the order they were armed.
//
// Protocol   A TimerNode is in at most one heap, guarded by that heap's lock; `heap` says which and is written under it.
//            A node may be removed by any thread: it reads `heap`, locks it, and looks again. Removal is immediate.
//            expire() pops what is due, copies what it will call, and calls it without the lock: a callback may arm
//            timers, ready Gs, never block. After the pop the node is not touched again: its owner may arm it anew.
// earliest   When the first timer is due, readable without the lock; may be stale: a stale early value costs a look, a
//            stale late one is made good by the lock's holder before it lets go.
// Orders     [timer-heap] `heap` release/acquire, so that who finds it sees the node's position after locking.
//            [earliest] release by the writer, acquire by P's loop and sysmon; seq_cst by a last look, against the
//            fence of who arms a timer without a P (sched/timers.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "runtime/base/atomic.hpp"
#include "runtime/base/lock.hpp"

namespace weft::rt {

class TimerHeap;

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

struct TimerNode {
  /// What firing means for this kind of timer. Neither may touch the node: after claim it may be armed anew, or be gone.
  struct Ops {
    void (*fire)(TimerNode* which, std::uint64_t ticket, std::int64_t now);  // no locks held; on g0 or in who expires
    bool (*claim)(TimerNode* which);  // under the heap's lock: takes a reference; false: it is dying. Null: no need
    void (*forget)(TimerNode* which) = nullptr;  // instead of firing, once the runtime has ended; no locks held
  };
  std::atomic<TimerHeap*> heap{nullptr};
  std::uint32_t slot = 0;
  std::int64_t when = 0;
  const Ops* ops = nullptr;
  std::uint64_t ticket = 0;  // of the wait it may end
};

class TimerHeap {
 public:
  /// Arms `t` (not armed now) for t->when. True: it is the heap's earliest now.
  bool add(TimerNode* t);
  /// Pops and fires everything due at `now`. Returns how many fired.
  unsigned expire(std::int64_t now);
  /// When the first is due; kNever: none.
  std::int64_t earliest() const { return earliest_.load(memory_order_acquire); }  // [earliest]
  /// For the last look of an M that goes to sleep, after it has shown that it does: an acquire could still read an
  /// older value.
  std::int64_t earliest_by_now() const { return earliest_.load(memory_order_seq_cst); }  // [earliest]
  bool idle() const { return peek(earliest_) == kNever; }
  std::size_t size() const { return peek(count_); }
  /// Moves everything to `other` (a P is retired).
  void drain_to(TimerHeap& other);
  /// Disarms everything without firing: the runtime has ended.
  void forget_all();

 private:
  friend bool timer_remove(TimerNode* t);
  struct Entry {
    std::int64_t when;
    std::uint64_t seq;
    TimerNode* node;
    bool before(const Entry& o) const { return when != o.when ? when < o.when : seq < o.seq; }
  };
  void insert(TimerNode* t);
  void remove_at(std::uint32_t i);
  void place(std::uint32_t i, const Entry& e);
  void up(std::uint32_t i);
  void down(std::uint32_t i);
  void publish();

  SpinLock lock_;
  std::vector<Entry> entries_;
  std::uint64_t seq_ = 0;
  std::atomic<std::int64_t> earliest_{kNever};
  std::atomic<std::size_t> count_{0};
};

/// Disarms `t` if it is armed. True: it was, and will not fire. False: it has fired or is firing.
bool timer_remove(TimerNode* t);

}  // namespace weft::rt
