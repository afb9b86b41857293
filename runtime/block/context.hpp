// What waits need of a context.
#pragma once

#include <weft/context.hpp>

#include "runtime/block/wait.hpp"

namespace weft::rt {

/// What a context is to a wait: the error if it is done, and a source of cancellation. Lives in the frame of the operation,
/// which asks for the limit when it cannot go on without waiting, outside any lock: that may allocate, and for a context of the
/// user's own kind start the goroutine that watches it.
class ContextWait {
 public:
  explicit ContextWait(const Context& ctx);
  ~ContextWait() {
    if (WEFT_UNLIKELY(bridged_)) unbridge();
  }
  ContextWait(const ContextWait&) = delete;
  ContextWait& operator=(const ContextWait&) = delete;

  /// The context's error, none while it is not done. After Outcome::Cancel it is set.
  std::error_code error() const { return weft::detail::context_err(keep_.head() ? keep_.head() : ctx_); }
  Limit limit() {
    if (!keep_.head()) hold();
    return {kNever, source_};
  }
  Limit limit(std::int64_t deadline) { return {deadline, limit().source}; }

 private:
  void hold();
  void unbridge();

  weft::detail::ContextHead* ctx_;    // the caller's, who holds it
  weft::detail::ContextRef keep_;     // what the wait registers with
  CancelSource* source_ = nullptr;    // null: never done
  bool bridged_ = false;              // keep_ is a child made for this wait
};

}  // namespace weft::rt
