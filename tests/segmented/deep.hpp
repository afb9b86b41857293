// What the segmented suite's files share: recursion of a known depth in code that asks for segments.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {

inline const Spawn kSegmented{.stack = Stack::Segmented};

/// A frame of a bit more than a kibibyte per level; f() at the bottom. The sum is n + what f gives. No tail call.
template <class F>
[[gnu::noinline]] std::uint64_t deep(std::size_t n, F& f) {
  volatile char frame[1024];
  for (std::size_t i = 0; i < sizeof frame; i += 64) frame[i] = static_cast<char>(n);
  if (frame[64] != static_cast<char>(n)) return ~std::uint64_t{0};
  const std::uint64_t below = n == 0 ? f() : deep(n - 1, f) + 1;
  if (frame[0] != static_cast<char>(n) || frame[960] != static_cast<char>(n)) return ~std::uint64_t{0};
  return below;
}

/// Runs f in a segmented goroutine and waits for it.
template <class F>
void on_segments(F f) {
  auto done = make_chan<void>();
  go(kSegmented, [&] {
    f();
    done.send();
  });
  (void)done.recv();
}

inline std::size_t segments_now() { return rt::segments_in_use(); }

}  // namespace weft::test
