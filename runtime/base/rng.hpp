// The only randomness of the runtime: one generator per P (and one per plain thread), all from one seed.
#pragma once

#include <cstdint>

namespace weft::rt {

/// wyrand: one multiplication per number, any seed.
class Rng {
 public:
  void seed(std::uint64_t s) { state_ = s; }
  std::uint64_t next() {
    state_ += 0xa0761d6478bd642fULL;
    const auto m = static_cast<unsigned __int128>(state_) * (state_ ^ 0xe7037ed1a0b428dbULL);
    return static_cast<std::uint64_t>(m >> 64) ^ static_cast<std::uint64_t>(m);
  }
  /// Uniform in [0, n), n > 0.
  std::uint32_t below(std::uint32_t n) {
    return static_cast<std::uint32_t>((static_cast<std::uint64_t>(static_cast<std::uint32_t>(next())) * n) >> 32);
  }

 private:
  std::uint64_t state_ = 0x9e3779b97f4a7c15ULL;
};

}  // namespace weft::rt
