// x86-64: where a ucontext keeps the registers that an unwinder needs.
#if defined(__x86_64__)

#include <ucontext.h>

#include "arch/signal.hpp"

namespace weft::arch {

FaultRegs fault_regs(const void* ucontext) {
  const auto& r = static_cast<const ucontext_t*>(ucontext)->uc_mcontext.gregs;
  return {static_cast<std::uintptr_t>(r[REG_RIP]), static_cast<std::uintptr_t>(r[REG_RSP]),
          static_cast<std::uintptr_t>(r[REG_RBP])};
}

}  // namespace weft::arch

#endif
