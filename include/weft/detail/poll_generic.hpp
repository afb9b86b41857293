// The same as poll_x86_64.hpp for CPUs without a file of their own: by call instead of inlined.
#pragma once

namespace weft::detail {

bool preempt_requested_call() noexcept;

[[gnu::always_inline]] inline const void* here() {
  return __builtin_extract_return_addr(__builtin_return_address(0));
}

inline bool preempt_requested() { return preempt_requested_call(); }

}  // namespace weft::detail
