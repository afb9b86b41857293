// What an operation does when its wait was cancelled by the task or scope that it runs in (sched/cancel.hpp).
//
// Results    One that has a result says so in it (result_canceled() looks whether the scope wants an exception all the same); one
//            that has none throws weft::Canceled, so that nobody goes on without the lock, the value or the time.
#pragma once

#include <system_error>

#include "runtime/block/context.hpp"
#include "runtime/sched/cancel.hpp"

namespace weft::rt {

[[noreturn]] void throw_canceled();
/// The caller's domain has throw_on_cancel: throws. Else returns, and the operation says it in its result.
void result_canceled();

/// For an operation without a result.
WEFT_ALWAYS_INLINE void must_not_be_canceled(Outcome o) {
  if (WEFT_UNLIKELY(o == Outcome::Cancel)) throw_canceled();
}

/// For one with a bool: true if it has happened.
WEFT_ALWAYS_INLINE bool has_happened(Outcome o) {
  if (WEFT_LIKELY(o == Outcome::Wake)) return true;
  if (WEFT_UNLIKELY(o == Outcome::Cancel)) result_canceled();
  return false;
}

/// For one with a Context: the context's error, or that of the caller's domain. None if it has happened.
std::error_code error_of(Outcome o, const ContextWait& by);

}  // namespace weft::rt
