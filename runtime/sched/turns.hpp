// Turns: what the kernel is asked for once goroutines overrun.
//
// A thread whose P was taken computes on as one of many, and the CPUs are fewer: who has a P, and sysmon, wait for a CPU behind
// them, a tick (1-4 ms) or several. The kernel gives every thread its share either way; but it lets one with short turns come
// before one with long turns as soon as it wakes up. So overrun goroutines' threads are asked to take turns of 20 ms, and who has
// a P, and sysmon, turns of 0.1 ms. Shorter turns for all, without the contrast, change nothing.
//
// A process in which nobody overruns is not touched: the first P that is taken switches it on.
// Owner      M::turns is written by its own thread, and by who takes its P, under M::take: the thread looks at it after it has had
//            that lock (keeps_p).
// Left       Linux before 6.12 has no such turns. A kernel that refuses is not asked again. Programs that a goroutine starts by
//            posix_spawn inherit its thread's turns; after fork they are set back.
// Measured   (2 CPUs, 8 loops, other load) the 99th of 100 sleeps of 1 ms was late by 8.5 ms, without this by 12.7.
#pragma once

#include "runtime/core/m.hpp"

namespace weft::rt {

/// Somebody has overrun in this run, and the kernel has not refused.
extern std::atomic<bool> turns_matter;

/// `enabled`: not by WEFT_DEBUG=sameturns.
void turns_start(bool enabled);

/// The P was taken from under it. By who took it, under M::take, or on its own thread; async-signal-safe.
void take_long_turns(M* mp);
/// The calling thread, an M that has a P or looks for one.
void take_short_turns(M* mp);
/// The calling thread, which is a runtime's no longer, or a forked child's.
void take_usual_turns(M* mp);
/// sysmon itself, at each look.
void sysmon_turns();

WEFT_ALWAYS_INLINE void fit_turns(M* mp) {
  if (WEFT_UNLIKELY(turns_matter.load(std::memory_order_relaxed)) && mp->turns != Turns::Short) take_short_turns(mp);
}

}  // namespace weft::rt
