/// weft/blocking.hpp: calls that block a thread, without blocking the goroutines behind it.
#pragma once

#include <functional>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {
void enter_syscall();
void exit_syscall() noexcept;
void enter_blocking();
void exit_blocking() noexcept;
}  // namespace detail

/// Runs `f(args...)` on this thread after handing its P to others at once: for calls that are known to block.
/// f must not call the runtime. Cost: the hand-off, some microseconds. On a plain thread it just calls f.
template <class F, class... Args>
decltype(auto) blocking(F&& f, Args&&... args) {
  struct Region {
    Region() { detail::enter_blocking(); }
    ~Region() { detail::exit_blocking(); }
  } region;
  return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
}

/// For calls that may block: keeps the P, which is taken away if the call lasts. No runtime call may stand between
/// construction and destruction. Cost: some nanoseconds.
class [[nodiscard]] SyscallRegion {
 public:
  SyscallRegion() { detail::enter_syscall(); }
  ~SyscallRegion() { detail::exit_syscall(); }
  SyscallRegion(const SyscallRegion&) = delete;
  SyscallRegion& operator=(const SyscallRegion&) = delete;
};

}  // namespace weft
