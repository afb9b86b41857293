// What a workload is given: its size, its clock and its checks.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bench {

using Int = std::int64_t;  // Go's int, which the Go twin of each workload sends

/// One run of a workload. It does `n` operations between start() and stop(), then checks the
/// result.
class Bench {
 public:
  Bench(Int n, std::uint64_t seed) : n(n), seed(seed) {}

  void start() { began_ = std::chrono::steady_clock::now(); }
  void stop() { elapsed_ = std::chrono::steady_clock::now() - began_; }

  void set_elapsed(std::chrono::nanoseconds t) {
    elapsed_ = t;
  }  // for what start() and stop() cannot bracket

  /// A figure beside ns/op.
  void report(double value, std::string unit) { metrics_.emplace_back(value, std::move(unit)); }

  /// The first wrong result makes the measurement worth nothing; `what` says which it is.
  [[gnu::format(printf, 3, 4)]] void check(bool ok, const char* what, ...);

  std::chrono::nanoseconds elapsed() const { return elapsed_; }
  const std::vector<std::pair<double, std::string>>& metrics() const { return metrics_; }
  const std::string& failure() const { return failure_; }

  const Int n;
  const std::uint64_t seed;

 private:
  std::chrono::steady_clock::time_point began_;
  std::chrono::nanoseconds elapsed_{0};
  std::vector<std::pair<double, std::string>> metrics_;
  std::string failure_;
};

struct Workload {
  const char* name;
  Int fixed;  // operations of one measurement; 0: as many as fill --benchtime
  void (*run)(Bench& b);
  std::size_t hibernate_target = 0;  // Config's
};

/// Runs `w` until one run fills `benchtime`, each run larger than the one before, which was its
/// warm-up: the policy of Go's testing.B. A workload of fixed size runs once, cold, in a process
/// that has run nothing else.
Bench measure(const Workload& w, std::chrono::nanoseconds benchtime, std::uint64_t seed);

/// "BenchmarkRing-2  4977995  115.3 ns/op ...": the name carries the procs unless they are 1, as
/// Go's does.
std::string label(std::string_view name, int procs);
std::string result_line(const std::string& label, const Bench& b);

inline long long as_ll(Int n) { return n; }  // for printf

/// What worker i of k does of n operations.
inline Int share(Int n, Int k, Int i) { return n / k + (i < n % k ? 1 : 0); }

/// splitmix64: the same numbers from the same seed as in the Go program.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();

 private:
  std::uint64_t state_;
};

/// VmHWM: the most that was ever resident.
std::optional<Int> peak_bytes();
/// VmRSS + VmPTE of this process: what its pages cost and what their page tables cost.
std::optional<Int> resident_bytes();

extern const std::vector<Workload> kWorkloads;  // measured against Go
extern const std::vector<Workload>
    kCalibrations;  // what this machine takes for the parts of an operation

}  // namespace bench
