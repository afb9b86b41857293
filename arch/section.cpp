// See section.hpp. Sections need rseq, registered by the C library for each of its threads, and the membarrier that knows
// them.
//
// Refused    A kernel that has no memory for it at the moment is asked again. One that refuses what it granted (a
//            filter that the process has put on since): there are no new sections then, and the old ones, a few
//            instructions long and undone by any interruption that the kernel knows of, are given kLong to end.
// Orders     [section] release by who ends all sections, acquire by who relies on it: it waits as long.
#include "arch/section.hpp"

#include <weft/detail/section_cpu.hpp>

#include "arch/cpu.hpp"
#include "arch/kernel.hpp"

#if __has_include(<sys/rseq.h>) && defined(__x86_64__) && !WEFT_TSAN

#include <linux/membarrier.h>
#include <sys/rseq.h>

#include <cerrno>
#include <ctime>

static_assert(RSEQ_SIG == 0x53053053, "section_x86_64.hpp");
static_assert(offsetof(struct rseq, cpu_id) == 4 && offsetof(struct rseq, rseq_cs) == 8, "section_x86_64.hpp");

namespace weft {
namespace detail {

__attribute__((visibility("default"))) constinit std::atomic<std::ptrdiff_t> section_at{0};

}  // namespace detail

namespace arch {
namespace {

constexpr timespec kLong{.tv_sec = 0, .tv_nsec = 100'000'000};
std::atomic<bool> ended{false};  // kLong is not over yet

bool have_barrier() {
  return kernel.membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0) == 0 &&
         kernel.membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, 0) == 0;
}

// Whoever unlocks before this has run does without.
[[maybe_unused]] const bool started = [] {
  if (__rseq_size == 0 || !have_barrier()) return false;
  detail::section_at.store(__rseq_offset, std::memory_order_relaxed);
  return true;
}();

}  // namespace

void section_barrier() {
  const int error = errno;
  while (detail::section_at.load(std::memory_order_acquire) != 0) {  // [section]
    if (kernel.membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, 0) == 0) break;
    if (errno == ENOMEM || have_barrier()) continue;
    ended.store(true, std::memory_order_relaxed);
    detail::section_at.store(0, std::memory_order_release);  // [section]
  }
  if (ended.load(std::memory_order_relaxed)) {
    ::nanosleep(&kLong, nullptr);
    ended.store(false, std::memory_order_relaxed);
  }
  errno = error;
}

}  // namespace arch
}  // namespace weft

#else

namespace weft {
namespace detail {

// Others' code may have been built where there are some.
extern std::atomic<std::ptrdiff_t> section_at;
__attribute__((visibility("default"))) constinit std::atomic<std::ptrdiff_t> section_at{0};

}  // namespace detail

void arch::section_barrier() {}

}  // namespace weft

#endif
