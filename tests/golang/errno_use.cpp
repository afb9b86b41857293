// See errno_use.hpp.
#include "tests/golang/errno_use.hpp"

#include <cerrno>

namespace weft::test::ERRNO_USE {

// TSan takes the stale place for a race with the thread that the place belongs to, which it is.
__attribute__((no_sanitize("thread"))) int errno_around(int before, void (*migrate)()) {
  errno = before;
  migrate();
  return errno;
}

__attribute__((no_sanitize("thread"))) int errno_in_a_loop(int rounds, void (*migrate)()) {
  int sum = 0;
  for (int i = 0; i < rounds; i++) {
    errno = 0;
    migrate();
    sum += errno;
  }
  return sum;
}

}  // namespace weft::test::ERRNO_USE
