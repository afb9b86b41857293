// What the suites share: bodies run under several procs and seeds, and waits on conditions instead
// of sleeps.
//
// A test that leaves goroutines parked for ever uses each_runtime(): its stop unwinds them, so that
// nothing of the test's is left for the leak checkers. All others use each_run(), where a goroutine
// that is never readied again is the deadlock report and names itself.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <weft/weft.hpp>

#include "tests/support/internals.hpp"

namespace weft::test {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kTsan = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool kTsan = true;
#else
inline constexpr bool kTsan = false;
#endif
#else
inline constexpr bool kTsan = false;
#endif

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAsan = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool kAsan = true;
#else
inline constexpr bool kAsan = false;
#endif
#else
inline constexpr bool kAsan = false;
#endif

/// A size for plain builds and for sanitizer builds. Goroutines alive at once stay below 2,000
/// under TSan.
template <class T>
constexpr T scaled(T plain, T sanitized) {
  return kTsan || kAsan ? sanitized : plain;
}

/// WEFT_TEST_SCHEDULES=FIRST-LAST, in a build with checks: instead of the machines below each body runs on one and on two procs with each
/// of these seeds, and its schedule is perturbed by it (golang/schedules_test.cpp). Zeros: unset.
inline std::pair<uint64_t, uint64_t> schedules() {
  static const std::pair<uint64_t, uint64_t> range = [] {
    unsigned long long first = 0, last = 0;
    if (const char* text = std::getenv("WEFT_TEST_SCHEDULES"))
      if (const int n = std::sscanf(text, "%llu-%llu", &first, &last); n == 1) last = first;
    return std::pair<uint64_t, uint64_t>(first, last);
  }();
  return range;
}

/// What a body runs under: procs and a seed that goes with it.
struct Machine {
  int procs;
  uint64_t seed;
  Config config() const {
    Config c;
#ifndef NDEBUG
    if (schedules().first) rt::perturb(seed);
#endif
    c.procs = procs;
    c.seed = seed;
    return c;
  }
};

inline const std::vector<Machine> kMachines = [] {
  const auto [first, last] = schedules();
  if (!first) return std::vector<Machine>{{1, 1}, {2, 2}, {8, 3}};
  std::vector<Machine> all;
  for (uint64_t seed = first; seed <= last; seed++)
    for (int procs : {1, 2}) all.push_back({procs, seed});
  return all;
}();

/// How often to do something: `few` times where it is done for each of many schedules.
template <class T>
T per_schedule(T plain, T few) {
  return schedules().first ? few : plain;
}

/// How long a condition may take before a test gives up on it. No test waits this long when it
/// passes.
inline constexpr std::chrono::seconds kPatience{kTsan ? 90 : 45};

/// Yields until `holds()` does. Callable from a goroutine and from a plain thread.
template <class F>
bool eventually(F holds, std::chrono::seconds patience = kPatience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "a condition did not come true in " << patience.count() << " s";
      return false;
    }
    if (goid() != 0)
      yield();
    else
      std::this_thread::yield();
  }
  return true;
}

namespace internal {

struct Look {
  uint64_t id;
  rt::WaitReason reason = rt::WaitReason::None;
};

// Reads descriptors of goroutines that run on: a stale answer only makes the caller look again.
__attribute__((no_sanitize("thread"))) inline void look_at(rt::G* gp, void* arg) {
  Look* look = static_cast<Look*>(arg);
  if (gp->id == look->id && gp->status.load(std::memory_order_acquire) == rt::GStatus::Waiting)
    look->reason = gp->reason;
}

}  // namespace internal

/// What goroutine `id` is parked for, as a dump spells it; empty if it is not parked now.
inline std::string wait_reason(uint64_t id) {
  internal::Look look{id};
  rt::g_table_each(internal::look_at, &look);
  return look.reason == rt::WaitReason::None ? std::string() : rt::wait_reason_text(look.reason);
}

/// Waits until goroutine `id` is parked for `reason` (as a dump spells it; empty: for any).
inline bool until_parked(uint64_t id, std::string_view reason = {}) {
  const bool parked = eventually([&] {
    const std::string now = wait_reason(id);
    return reason.empty() ? !now.empty() : now == reason;
  });
  if (!parked)
    ADD_FAILURE() << "goroutine " << id << " waits for \"" << wait_reason(id) << "\", not \""
                  << reason << '"';
  return parked;
}

/// Starts `f` and returns its id once it is parked for `reason`.
template <class F>
uint64_t go_parked(std::string_view reason, F f) {
  auto id = std::make_shared<std::atomic<uint64_t>>(0);
  go([id, f = std::move(f)]() mutable {
    id->store(goid());
    id.reset();
    f();
  });
  eventually([&] { return id->load() != 0; });
  const uint64_t g = id->load();
  until_parked(g, reason);
  return g;
}

namespace internal {

template <class Body>
void under(const Machine& m, Body body) {
  const bool failed = testing::Test::HasFailure();
  body();
  if (!failed && testing::Test::HasFailure()) {
    const testing::TestInfo* info = testing::UnitTest::GetInstance()->current_test_info();
    const auto seed = static_cast<unsigned long long>(m.seed);
    if (schedules().first)
      std::fprintf(stderr, "reproduce: WEFT_TEST_SCHEDULES=%llu --gtest_filter=%s.%s (procs %d)\n", seed, info->test_suite_name(),
                   info->name(), m.procs);
    else
      std::fprintf(stderr, "reproduce: WEFT_PROCS=%d WEFT_SEED=%llu --gtest_filter=%s.%s\n", m.procs, seed, info->test_suite_name(),
                   info->name());
  }
}

}  // namespace internal

/// Runs `body` as goroutine 1 of a run() of its own. Every goroutine that it started has to end.
template <class Body>
void in_run(const Machine& m, Body body) {
  internal::under(m, [&] {
    const int status = run(
        [&] {
          body();
          const bool ended =
              settle(1, testing::Test::HasFailure() ? std::chrono::seconds(1) : kPatience);
          EXPECT_TRUE(ended) << num_goroutines() - 1 << " goroutines are left:\n"
                             << dump_goroutines();
        },
        m.config());
    EXPECT_EQ(status, 0);
  });
}

/// The same under each of kMachines.
template <class Body>
void each_run(Body body) {
  for (const Machine& m : kMachines) in_run(m, [&] { body(); });
}

/// Runs `body` as a goroutine of a Runtime, then stops it: what is still parked is unwound.
template <class Body>
StopResult in_runtime(const Machine& m, Body body) {
  StopResult stopped;
  internal::under(m, [&] {
    Runtime rt{m.config()};
    const std::error_code e = rt.start();
    ASSERT_FALSE(e) << e.message();
    std::promise<void> done;
    rt.go([&] {
      try {
        body();
        done.set_value();
      } catch (const std::exception&) {
        done.set_exception(std::current_exception());
      }
    });
    try {
      done.get_future().get();
    } catch (const std::exception& e) {
      ADD_FAILURE() << "the body threw: " << e.what();
    }
    stopped = rt.stop(std::chrono::nanoseconds(0));
    for (const auto& left : stopped.abandoned)
      ADD_FAILURE() << "goroutine " << left.id << " was abandoned: " << left.reason;
  });
  return stopped;
}

template <class Body>
void each_runtime(Body body) {
  for (const Machine& m : kMachines) in_runtime(m, [&] { body(); });
}

/// The thread that the caller is on now. std::this_thread::get_id() will not do: pthread_self() is
/// declared to give the same answer for ever, so a compiler calls it once and keeps that across a
/// switch to another thread.
inline pid_t thread_now() { return ::gettid(); }

/// VmRSS of this process.
inline size_t resident_bytes() {
  long pages = 0;
  if (std::FILE* f = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
    std::fclose(f);
  }
  return static_cast<size_t>(pages) * 4096;
}

/// The message of the Panic that `f` throws; "no panic" if it returns.
template <class F>
std::string panic_of(F f) {
  try {
    f();
  } catch (const Panic& p) {
    return p.what();
  }
  return "no panic";
}

/// Whether `f` throws a Panic of the runtime's own kind (Go: runtime.Error).
template <class F>
bool runtime_panic(F f) {
  try {
    f();
  } catch (const Panic& p) {
    return p.is_runtime_error();
  }
  return false;
}

}  // namespace weft::test
