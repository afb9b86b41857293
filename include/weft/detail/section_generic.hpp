// The same as section_x86_64.hpp where there are none: every one says that it did not happen.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace weft::detail {

inline bool has_sections() { return false; }
struct PerCpu;  // see there
inline bool section_count_in(std::atomic<PerCpu*>&) { return false; }
inline bool section_count_out(std::atomic<PerCpu*>&) { return false; }
inline bool section_replace(std::atomic<std::uint32_t>&, std::uint32_t, std::uint32_t) { return false; }

}  // namespace weft::detail
