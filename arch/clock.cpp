// See clock.hpp.
#include "arch/clock.hpp"

#include "arch/kernel.hpp"

namespace weft::arch {
namespace {

std::int64_t monotonic() {
  timespec ts;
  kernel.clock_gettime(CLOCK_MONOTONIC, &ts);
  return std::int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

}  // namespace

std::int64_t (*clock_source)() = monotonic;

void set_clock(std::int64_t (*source)()) { clock_source = source ? source : monotonic; }

}  // namespace weft::arch
