// A freeze of the world that a machine without CPU time to spare does not turn into a failure.
#pragma once

#include <weft/gc_hook.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "tests/support/support.hpp"

namespace weft::test {

/// How long the threads of this process have been runnable and had no CPU, all together. Zero where the kernel does not
/// count it.
inline std::chrono::nanoseconds waited_for_cpu() {
  long long sum = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
    if (std::FILE* f = std::fopen((task.path() / "schedstat").c_str(), "r")) {
      long long waited = 0;
      if (std::fscanf(f, "%*d %lld", &waited) == 1) sum += waited;
      std::fclose(f);
    }
  return std::chrono::nanoseconds(sum);
}

/// gc::freeze_world(), which gives up after a second: once more if the threads had no CPU in that second, or the whole
/// process stood still. TSan holds signals back from threads that sleep in a lock of the runtime, which one that stands
/// may have: there too.
inline bool freeze_in_time() {
  using std::chrono::steady_clock;
  static std::atomic<std::int64_t> looked{0}, waited{0};  // at most a second ago: looking takes longer than a freeze
  for (int tries = 0; tries < 10; tries++) {
    const std::int64_t begun = steady_clock::now().time_since_epoch().count();
    if (tries > 0 || begun - looked > 1'000'000'000) {
      waited = waited_for_cpu().count();
      looked = begun;
    }
    if (gc::freeze_world()) return true;
    const bool starved = waited_for_cpu().count() - waited > 200'000'000 ||
                         steady_clock::now().time_since_epoch().count() - begun > 1'300'000'000;
    if (!starved && !kTsan) return false;
  }
  return false;
}

}  // namespace weft::test
