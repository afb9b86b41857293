// x86-64: where a ucontext keeps the registers that an unwinder needs, and all those that a collector needs.
//
// The vector registers stand where uc_mcontext.fpregs points: 512 bytes, or as many as a block in their reserved part says, in the
// layout of XSAVE that is not compacted. The kernel puts them above the ucontext in the same frame.
#if defined(__x86_64__)

#include <ucontext.h>

#include <cstring>

#include "arch/registers.hpp"
#include "arch/signal.hpp"

namespace weft::arch {

FaultRegs fault_regs(const void* ucontext) {
  const auto& r = static_cast<const ucontext_t*>(ucontext)->uc_mcontext.gregs;
  return {static_cast<std::uintptr_t>(r[REG_RIP]), static_cast<std::uintptr_t>(r[REG_RSP]),
          static_cast<std::uintptr_t>(r[REG_RBP])};
}

RegisterFile register_file(const void* ucontext) {
  constexpr std::size_t kLegacyBytes = 512, kSoftwareBytesAt = 464;
  constexpr std::uint32_t kMagic = 0x46505853;
  const auto& mc = static_cast<const ucontext_t*>(ucontext)->uc_mcontext;
  RegisterFile r{&mc.gregs[0], &mc.gregs[NGREG]};
  if (WEFT_TSAN) return r;  // a copy, handed on later: what it points to is gone
  const auto* fp = reinterpret_cast<const char*>(mc.fpregs);
  if (fp < static_cast<const char*>(r.hi)) return r;  // none
  std::uint32_t software[2];  // magic, bytes of all of it
  std::memcpy(software, fp + kSoftwareBytesAt, sizeof software);
  r.hi = fp + (software[0] == kMagic ? software[1] : kLegacyBytes);
  return r;
}

}  // namespace weft::arch

#endif
