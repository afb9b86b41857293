#pragma once

#include <cstddef>

namespace weft::test {

/// Without end.
int recurses_without_asking(int n);
/// Touches so much stack. Returns `bytes`.
std::size_t takes(std::size_t bytes);

}  // namespace weft::test
