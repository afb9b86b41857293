// SCHED_POINT(id): one in every runtime operation, where the order of threads may matter.
//
// Nothing in releases. In builds with checks perturb(seed) makes rare schedules common: from then on threads are held up at these points
// at random, and goroutines give way at random where they enter the runtime (sched/sched.hpp, by the P's generator: as if somebody had
// asked them to, so nothing happens that could not happen anyway). A simulator takes the same points over.
#pragma once

#ifndef NDEBUG
#include <cstdint>

#include "runtime/base/atomic.hpp"

namespace weft::rt {
extern Relaxed<std::uint64_t> perturb_seed;  // 0: off
/// Holds the thread up, or not.
void perturb_point(const char* id);
/// Zero ends it.
void perturb(std::uint64_t seed);
}  // namespace weft::rt
#define SCHED_POINT(id) \
  (::weft::rt::perturb_seed ? ::weft::rt::perturb_point(id) : (void)0)
#else
#define SCHED_POINT(id) ((void)0)
#endif
