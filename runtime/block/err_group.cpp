// What err_group.hpp needs of the runtime.
#include <weft/err_group.hpp>
#include <weft/panic.hpp>

#include <string>

namespace weft::detail {

void panic_err_group_limit(int active) {
  weft::panic("errgroup: modify limit while " + std::to_string(active) + " goroutines in the group are still active");
}

}  // namespace weft::detail
