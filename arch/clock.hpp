// The one clock. Nanoseconds since an arbitrary start, never going back.
//
// Everything that needs time reads clock_now(); a virtual clock replaces the source for simulated runs
// (a pointer, set before the runtime starts), so no code may call the kernel's clock by itself.
#pragma once

#include <cstdint>

namespace weft::arch {

/// The source in force: the kernel's monotonic clock unless set_clock() put another one there.
extern std::int64_t (*clock_source)();

inline std::int64_t clock_now() { return clock_source(); }

/// Null restores the kernel's clock. Only while no runtime runs.
void set_clock(std::int64_t (*source)());

}  // namespace weft::arch
