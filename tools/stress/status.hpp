// The page that the tool and its child process share: heartbeat, round, finding.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace stress {

inline constexpr int kBeatShards = 16;  // by goroutine: one counter for all would be the bottleneck

struct Status {
  struct alignas(64) Beats {
    std::atomic<std::uint64_t> n;
  };
  Beats beats[kBeatShards];
  std::atomic<std::uint64_t> round;
  std::atomic<std::uint64_t> rounds_done;
  std::atomic<std::uint32_t> finished;  // the child has come to its end
  std::atomic<std::uint32_t> finding_taken;
  std::atomic<std::uint32_t> finding_ready;
  char finding[512];
  char scenarios[512];  // of this round, written before it starts

  std::uint64_t operations() const {
    std::uint64_t sum = 0;
    for (const Beats& shard : beats) sum += shard.n.load(std::memory_order_relaxed);
    return sum;
  }
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "shared between processes");

/// How the run ends that main() and the child agree on.
struct Run {
  const char* workload = "mix";
  std::uint64_t seed = 0;
  std::uint64_t first_round = 0;
  int procs = 0;
  std::int64_t duration_ns = 0;
  bool small = false;
  const char* plant = "";  // a fault to make, for the tool's own tests
};

/// The child process: rounds until the time is over. Returns its exit status.
int run_child(const Run& run, Status* status);

}  // namespace stress
