// The few things that once.hpp needs of the runtime.
#include <weft/once.hpp>

#include "runtime/block/panic.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::detail {

bool unwinding_now() noexcept {
  const rt::G* gp = rt::current_g();
  return gp && gp->unwinding == rt::Unwinding::UnderWay;
}

void panic_once_unwound() { rt::panic_runtime("weft: the function of once_func has not returned: goexit ended it"); }

}  // namespace weft::detail
