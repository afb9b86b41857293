/// weft/defer.hpp: Go's defer as RAII. What a ported function needs, with recover and Go's exact order, is weft::func (frame.hpp).
#pragma once

#include <weft/detail/mask.hpp>
#include <weft/frame.hpp>

#include <exception>
#include <type_traits>
#include <utility>

namespace weft {

namespace detail {
[[noreturn]] void defer_failed_while_unwinding(std::exception_ptr second) noexcept;
}

/// Calls f at the end of the block: on return, panic and goexit. In a cancelled task or scope f may wait as always. A panic that leaves f while another exception unwinds is
/// std::terminate, reported with both; otherwise it propagates.
template <class F>
class [[nodiscard]] Defer {
 public:
  explicit Defer(F f) : f_(std::move(f)), in_flight_(std::uncaught_exceptions()) {}
  Defer(const Defer&) = delete;
  Defer& operator=(const Defer&) = delete;
  ~Defer() noexcept(false) {
    detail::CancelMask mask;
    if (std::uncaught_exceptions() > in_flight_) {
      try {
        f_();
      } catch (...) {
        detail::defer_failed_while_unwinding(std::current_exception());
      }
    } else {
      f_();
    }
  }

 private:
  F f_;
  int in_flight_;
};

template <class F>
Defer(F) -> Defer<F>;

}  // namespace weft
