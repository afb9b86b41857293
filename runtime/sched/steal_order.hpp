// In which order a searcher visits the Ps: start anywhere, step by a stride that shares no factor with their number. So n steps
// visit each of them once.
#pragma once

#include <cstdint>
#include <numeric>

#include "runtime/base/rng.hpp"

namespace weft::rt {

class StealOrder {
 public:
  StealOrder(Rng& rng, std::uint32_t n) : n_(n), stride_(1 + rng.below(n)) {
    while (std::gcd(stride_, n) != 1) stride_++;
    at_ = rng.below(n);
  }
  std::uint32_t next() {
    const std::uint32_t at = at_;
    at_ = (at_ + stride_) % n_;
    return at;
  }

 private:
  std::uint32_t n_;
  std::uint32_t stride_;
  std::uint32_t at_;
};

}  // namespace weft::rt
