// Where a thread's thread-local variables are: for the detector of addresses that outlive a migration (obs/tls_watch.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::arch {

/// The static TLS block of a thread with its control block, [lo, hi). Blind to the variables of libraries loaded by dlopen that
/// found no room there.
struct TlsBlock {
  std::uintptr_t lo = 0;
  std::uintptr_t hi = 0;
  bool holds(std::uintptr_t a) const { return a >= lo && a < hi; }
};

/// How far the block reaches, which is the same for all threads. Once, before tls_block(). False: not known on this machine.
bool probe_tls_block();
/// The calling thread's. Cost: a load.
TlsBlock tls_block();
/// What `address` in `block` is: "errno", "its thread's handle", or null: some thread-local variable.
const char* tls_name(const TlsBlock& block, std::uintptr_t address);

/// Registers that a function keeps for its caller, and their names.
inline constexpr unsigned kKeptRegs = 6;
extern const char* const kKeptRegNames[kKeptRegs];

/// A frame of the own stack: where it called, its stack pointer there, and what it will find in the registers when that returns.
struct KeptFrame {
  std::uintptr_t pc;
  std::uintptr_t sp;
  std::uintptr_t kept[kKeptRegs];
};

/// The caller's own stack, innermost frame first. f returns false for: enough. Cost: microseconds and more.
void walk_kept_registers(bool (*f)(const KeptFrame& frame, void* arg), void* arg);

}  // namespace weft::arch
