// How large a run is, and how its result is written. The Go program (go/bench.go) does both to the
// letter.
#include "tools/bench/bench.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace bench {

namespace {

constexpr Int kMaxOps = 1'000'000'000;

// Four significant digits without an exponent, as testing.B prints them.
std::string figure(double value) {
  int decimals = 0;
  for (double limit = 999.95; decimals < 6 && value < limit; limit /= 10) decimals++;
  char text[64];
  std::snprintf(text, sizeof text, "%*.*f", decimals == 0 ? 10 : 11 + decimals, decimals, value);
  return text;
}

}  // namespace

void Bench::check(bool ok, const char* what, ...) {
  if (ok || !failure_.empty()) return;
  char text[256];
  std::va_list args;
  va_start(args, what);
  std::vsnprintf(text, sizeof text, what, args);
  va_end(args);
  failure_ = text;
}

Bench measure(const Workload& w, std::chrono::nanoseconds benchtime, std::uint64_t seed) {
  Int n = w.fixed > 0 ? w.fixed : 1;
  for (;;) {
    Bench b(n, seed);
    w.run(b);
    if (!b.failure().empty() || w.fixed > 0 || b.elapsed() >= benchtime || n >= kMaxOps) return b;
    double fill = static_cast<double>(benchtime.count()) /
                  static_cast<double>(std::max<Int>(b.elapsed().count(), 1)) *
                  static_cast<double>(n) * 1.2;
    Int next = fill >= static_cast<double>(kMaxOps) ? kMaxOps : static_cast<Int>(fill);
    n = std::min(std::max(std::min(next, 100 * n), n + 1), kMaxOps);
  }
}

std::string label(std::string_view name, int procs) {
  std::string text(name);
  if (procs != 1) text += "-" + std::to_string(procs);
  return text;
}

std::string result_line(const std::string& label, const Bench& b) {
  char head[96];
  std::snprintf(head, sizeof head, "%-24s\t%10lld\t", ("Benchmark" + label).c_str(),
                static_cast<long long>(b.n));
  std::string line =
      head + figure(static_cast<double>(b.elapsed().count()) / static_cast<double>(b.n)) + " ns/op";
  for (const auto& [value, unit] : b.metrics()) line += "\t" + figure(value) + " " + unit;
  return line;
}

std::uint64_t Random::next() {
  state_ += 0x9e3779b97f4a7c15;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::optional<Int> resident_bytes() {
  std::ifstream status("/proc/self/status");
  Int total = 0;
  int found = 0;
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) != 0 && line.rfind("VmPTE:", 0) != 0) continue;
    long long kib = 0;
    if (std::sscanf(line.c_str() + std::strlen("VmRSS:"), "%lld kB", &kib) != 1)
      return std::nullopt;
    total += kib * 1024;
    found++;
  }
  if (found != 2) return std::nullopt;
  return total;
}

std::optional<Int> peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    long long kib = 0;
    if (std::sscanf(line.c_str(), "VmHWM: %lld kB", &kib) == 1) return kib * 1024;
  }
  return std::nullopt;
}

}  // namespace bench
