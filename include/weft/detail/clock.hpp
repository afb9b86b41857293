// Clock, points in time, and durations that saturate instead of wrapping. Users include weft/time.hpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace weft {

/// Steady; virtual under simulation. Never goes back.
struct Clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<Clock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};

using Time = Clock::time_point;

namespace detail {

inline constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();

/// Any duration as nanoseconds, rounded up (never early), saturating at both ends.
template <class Rep, class Period>
constexpr std::int64_t to_ns(std::chrono::duration<Rep, Period> d) {
  using Ns = std::chrono::duration<long double, std::nano>;
  if constexpr (std::is_same_v<std::chrono::duration<Rep, Period>, std::chrono::nanoseconds>) return d.count();
  const long double ns = std::chrono::duration_cast<Ns>(d).count();
  if (!(ns < static_cast<long double>(kForever))) return kForever;  // NaN counts as for ever
  if (ns <= static_cast<long double>(std::numeric_limits<std::int64_t>::min()))
    return std::numeric_limits<std::int64_t>::min();
  const auto whole = static_cast<std::int64_t>(ns);
  return static_cast<long double>(whole) < ns ? whole + 1 : whole;
}

std::int64_t clock_now() noexcept;

/// now + d, saturating: kForever never comes.
inline std::int64_t deadline_after(std::int64_t d) {
  const std::int64_t now = clock_now();
  return d > 0 && now > kForever - d ? kForever : now + d;
}

/// A deadline that a user gave: even the farthest is a pending timer, not "no limit".
inline std::int64_t finite(std::int64_t deadline) { return deadline < kForever ? deadline : kForever - 1; }

}  // namespace detail

inline Time Clock::now() noexcept { return Time{duration{detail::clock_now()}}; }

}  // namespace weft
