// P: the right to run goroutines, and everything that is worth having per CPU.
//
// Only the M that holds a P touches its plain fields. Others read the atomics, take from the queues' thief ends, lock the
// timer heap, and raise `attention`.
//
//   status    M           queues           who may change it
//   Running   one         its own          that M
//   Syscall   none, but   may be stolen    that M by CAS (exit), sysmon or a stop by CAS (retake)
//             one may come back for it
//   Idle      none        may be stolen    whoever takes it off the idle list (Sched::mu)
//   Stopped   none        nobody runs      the stopper (Sched::mu)
//   Retired   none        empty            set_procs, with the world stopped
//
// Orders     [p-status] CAS/stores acq_rel: who takes a P sees what its last owner did.
//            [attention] relaxed bits; the facts behind them are read under their own locks.
//            [clock-seen] see sched/sysmon.cpp.
//            [runnext] exchange by the owner, CAS by owner and thieves; also the publication that [idle] looks for.
#pragma once

#include <cstdint>

#include "runtime/base/rng.hpp"
#include "runtime/core/g.hpp"
#include "runtime/core/run_queue.hpp"
#include "runtime/core/timer_heap.hpp"

namespace weft::rt {

struct M;

enum class PStatus : std::uint32_t { Idle, Running, Syscall, Stopped, Retired };

inline constexpr std::uint32_t kRunQueueCapacity = 256;
/// Every so many picks the loop looks at the global queue, the timers and the poller first.
inline constexpr std::uint32_t kPicksPerRound = 61;

/// So many that were woken come before the next one that computes, after a slice.
inline constexpr std::uint8_t kWokenAfterSlice = 4;

/// P::started_first after a P was taken for such a one.
inline constexpr std::uint8_t kStartedAfterOverrun = 4;

/// Dead descriptors that a P keeps.
inline constexpr std::uint32_t kFreeCapacity = 512;

enum Attention : std::uint32_t {
  kAttendStop = 1,   // the world stops, or the run ends
  kAttendLoop = 2,   // others wait for their turn: a timer of this P is due, or a slice is over
};

struct alignas(arch::kCacheLine) P {
  // --- every switch ---
  std::atomic<std::uint32_t> attention{0};
  std::uint32_t picks_left = kPicksPerRound;
  std::atomic<G*> runnext{nullptr};
  bool solo = false;  // the only P: no thieves
  bool fresh_turn = false;
  std::uint8_t started_first = 0;  // so many picks look in the global queue first for one who has run before
  std::uint8_t round_turn = 0;  // which source is first at the next round (sched/loop.cpp)
  std::uint8_t woken_first = 0; // so many picks look for woken ones in the global queue first: somebody has computed for a whole slice
  std::atomic<std::uint64_t> switches{0};  // sysmon and thieves see by it that the P moves on
  std::uint32_t free_count = 0;
  std::uint32_t ids_left = 0;
  std::uint64_t next_id = 0;
  std::atomic<std::uint64_t> created{0};
  std::atomic<std::uint64_t> ended{0};

  std::atomic<std::uint32_t> woken_to{0};  // place in `ring` up to which somebody waits whose time or descriptor has come

  // --- waking for a lone runnext (sched/idle.cpp) ---
  std::atomic<std::uint32_t> lone_left{0};    // so many more are not worth a wake-up
  std::atomic<std::uint32_t> lone_skip{0};    // what `lone_left` starts from; raised by searchers that found nothing

  alignas(arch::kCacheLine) std::atomic<PStatus> status{PStatus::Idle};
  Published<M> m;
  M* last_m = nullptr;  // that stopped with it: gets it back (sched/world.cpp); under Sched::mu
  std::atomic<bool> let_go{false};  // in Syscall, and sysmon is to pass it on at once
  P* idle_link = nullptr;
  std::uint32_t id = 0;
  std::atomic<std::int64_t> syscall_since{0};
  std::atomic<std::uint64_t> syscall_tick{0};
  std::uint32_t sample_in = 1;  // so many regions until one is measured
  Rng rng;

  alignas(arch::kCacheLine) RunQueue<G, kRunQueueCapacity> ring;
  alignas(arch::kCacheLine) FreshQueue<G, kRunQueueCapacity> fresh;
  alignas(arch::kCacheLine) TimerHeap timers;
  StackCache stacks;
  std::uint32_t run_slot_turn = 0;  // of the run slots, the next one for a newcomer
  G* free_gs[kFreeCapacity];  // dead descriptors, hottest last

  // --- the last look at the clock by somebody who then switches: whoever is switched to has run since then (sysmon) ---
  static constexpr std::uint64_t kUnknown = ~std::uint64_t{0};
  std::atomic<std::int64_t> clock_at{0};
  std::atomic<std::uint64_t> clock_switches{kUnknown};  // `switches` at that moment

  WEFT_ALWAYS_INLINE void clock_seen(std::int64_t now) {
    clock_at.store(now, memory_order_relaxed);
    clock_switches.store(peek(switches), memory_order_release);  // [clock-seen]
  }

  // --- sysmon's memory of it ---
  std::uint64_t seen_switches = 0;
  std::int64_t seen_since = 0;
  std::uint64_t seen_tick = 0;
  std::uint64_t asked_switches = 0;  // who ran when it was asked to give way
  std::int64_t asked_at = 0;         // 0: not asked
  std::int64_t patience = 0;         // how long it may take after that

  bool has_local_work() const {
    return ring.size() || fresh.size() || runnext.load(memory_order_seq_cst) != nullptr;  // [idle] last look
  }
};

}  // namespace weft::rt
