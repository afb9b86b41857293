// See sched_point.hpp.
#include "runtime/base/sched_point.hpp"

#if defined(WEFT_PERTURB) && WEFT_PERTURB

#include <sched.h>

#include <atomic>
#include <cstdlib>

#include "arch/cpu.hpp"
#include "runtime/base/rng.hpp"

namespace weft::rt {
namespace {

std::atomic<std::uint64_t> threads_seen{0};

Rng& thread_rng() {
  static const std::uint64_t base = [] {
    const char* s = std::getenv("WEFT_SEED");
    return s ? std::strtoull(s, nullptr, 0) : 1;
  }();
  thread_local Rng rng = [] {
    Rng r;
    r.seed(base + 0x9e3779b97f4a7c15ULL * (1 + threads_seen.fetch_add(1, std::memory_order_relaxed)));
    return r;
  }();
  return rng;
}

}  // namespace

// Out of line and without a switch inside: the thread-local is this thread's.
WEFT_NOINLINE void perturb(const char*) {
  const std::uint32_t r = thread_rng().below(64);
  if (r == 0) {
    ::sched_yield();
  } else if (r < 6) {
    for (std::uint32_t i = 0; i < r * 40; i++) arch::cpu_pause();
  }
}

}  // namespace weft::rt

#endif
