// See more_stack.hpp.
#include "arch/more_stack.hpp"

#include <atomic>

namespace weft::arch {
namespace {

std::atomic<bool> is_there{false};

}  // namespace

bool split_code_is_there() { return is_there.load(std::memory_order_relaxed); }

}  // namespace weft::arch

extern "C" void weft_has_more_stack() noexcept { weft::arch::is_there.store(true, std::memory_order_relaxed); }
