// What waits need of a context.
#pragma once

#include <weft/context.hpp>

#include "runtime/block/wait.hpp"

namespace weft::rt {

/// A wait's hold on a context: its source of cancellation, and the error if it is done. Lives in the frame of the operation,
/// outside any lock: making one may allocate, and for a context of the user's own kind start the goroutine that watches it.
class ContextWait {
 public:
  explicit ContextWait(const Context& ctx);
  ~ContextWait();
  ContextWait(const ContextWait&) = delete;
  ContextWait& operator=(const ContextWait&) = delete;

  /// The context's error, none while it is not done. After Outcome::Cancel it is set.
  std::error_code error() const;
  Limit limit(std::int64_t deadline = kNever) const { return {deadline, source_}; }

 private:
  weft::detail::ContextRef keep_;
  CancelSource* source_ = nullptr;  // null: never done
  bool bridged_ = false;            // keep_ is a child made for this wait
};

}  // namespace weft::rt
