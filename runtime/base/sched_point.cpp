// See sched_point.hpp.
#include "runtime/base/sched_point.hpp"

#ifndef NDEBUG

#include <sched.h>

#include "arch/cpu.hpp"
#include "runtime/base/rng.hpp"

namespace weft::rt {

Relaxed<std::uint64_t> perturb_seed;

namespace {

std::atomic<std::uint64_t> threads_seen{0};

// A thread's choices follow from the seed and from when it came to its first point.
std::uint32_t choose(std::uint32_t n) {
  struct Choices {
    Rng rng;
    std::uint64_t seed = 0;
  };
  thread_local Choices mine;
  if (const std::uint64_t seed = perturb_seed; seed != mine.seed) {
    mine.seed = seed;
    mine.rng.seed(seed + 0x9e3779b97f4a7c15ULL * (1 + threads_seen.fetch_add(1, std::memory_order_relaxed)));
  }
  return mine.rng.below(n);
}

}  // namespace

// Out of line and without a switch inside: the thread-local is this thread's.
WEFT_NOINLINE void perturb_point(const char*) {
  const std::uint32_t r = choose(64);
  if (r == 0) {
    ::sched_yield();
  } else if (r < 6) {
    for (std::uint32_t i = 0; i < r * 40; i++) arch::cpu_pause();
  }
}

void perturb(std::uint64_t seed) {
  threads_seen.store(0, std::memory_order_relaxed);
  perturb_seed = seed;
}

}  // namespace weft::rt

#endif
