/// weft/test.hpp: for tests of programs that use weft.
#pragma once

#include <weft/detail/clock.hpp>

namespace weft {

namespace detail {
bool settle_until(int n, std::int64_t deadline);
}

/// Waits until at most n goroutines are left (the caller counts if it is one). Woken by exits, no polling.
/// Returns false if `limit` passed first.
template <class Rep, class Period>
bool settle(int n, std::chrono::duration<Rep, Period> limit) {
  return detail::settle_until(n, detail::deadline_after(detail::to_ns(limit)));
}

}  // namespace weft
