// Built without -fsplit-stack, as other people's libraries are: it never asks for a segment.
#include "tests/segmented/unsplit.hpp"

namespace weft::test {

[[gnu::noinline]] int recurses_without_asking(int n) {
  volatile char frame[1024];
  frame[0] = static_cast<char>(n);
  return n < 0 ? 0 : recurses_without_asking(n + 1) + frame[0];
}

[[gnu::noinline]] std::size_t takes(std::size_t bytes) {
  auto* p = static_cast<volatile char*>(__builtin_alloca(bytes));
  for (std::size_t i = 0; i < bytes; i += 256) p[i] = 1;
  return bytes + static_cast<std::size_t>(p[0]) - 1;
}

}  // namespace weft::test
