// What public templates need of the CPU: the address of the code that spawns, and the inlined safepoint poll.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::rt {
struct M;
}

namespace weft::detail {

/// The PC here: inlined into the caller by force, so it names the line that says `go`. A return address would not:
/// tail calls falsify it.
[[gnu::always_inline]] inline const void* here() {
  const void* pc;
  asm volatile("leaq 0(%%rip), %0" : "=r"(pc));
  return pc;
}

// Offsets in the runtime's M and G, asserted in runtime/core/g.hpp.
inline constexpr std::size_t kMCurgOffset = 0;
inline constexpr std::size_t kGPreemptOffset = 0;

#if defined(__SANITIZE_THREAD__)

// By call: TSan must see the loads.
bool preempt_requested_call() noexcept;
inline bool preempt_requested() { return preempt_requested_call(); }

#else

/// True if somebody asked this goroutine to stop at its next safepoint. Three loads, no branch miss.
[[gnu::always_inline]] inline bool preempt_requested() {
  const char* m;
  asm volatile("movq weft_current_m@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(m)::"memory");
  if (!m) return false;
  const char* g = *reinterpret_cast<const char* const volatile*>(m + kMCurgOffset);
  return *reinterpret_cast<const volatile std::uint8_t*>(g + kGPreemptOffset) != 0;
}

#endif

}  // namespace weft::detail
