// See tls_block.hpp.
//
// x86-64     The thread pointer (fs) points at the control block; the variables of the modules that were there at start lie
//            below it, at offsets that are the same in each thread. dl_iterate_phdr() tells where the caller's own are.
#include "arch/tls_block.hpp"

#include <link.h>
#include <unwind.h>

#include <cerrno>

#include "arch/cpu.hpp"

namespace weft::arch {

#if defined(__x86_64__)

const char* const kKeptRegNames[kKeptRegs] = {"rbx", "rbp", "r12", "r13", "r14", "r15"};

namespace {

constexpr int kDwarfNumbers[kKeptRegs] = {3, 6, 12, 13, 14, 15};
constexpr std::uintptr_t kControlBytes = 0x900;   // glibc's struct pthread
constexpr std::uintptr_t kFarthest = 1 << 20;     // a module farther below was loaded later and has its block elsewhere

std::uintptr_t bytes_below = 0;
std::uintptr_t errno_below = 0;

WEFT_ALWAYS_INLINE std::uintptr_t thread_pointer() {
  std::uintptr_t fs;
  asm volatile("movq %%fs:0, %0" : "=r"(fs)::"memory");
  return fs;
}

int look_at_module(dl_phdr_info* info, std::size_t, void* arg) {
  const std::uintptr_t fs = thread_pointer();
  const auto at = reinterpret_cast<std::uintptr_t>(info->dlpi_tls_data);
  auto* most = static_cast<std::uintptr_t*>(arg);
  if (at != 0 && at < fs && fs - at < kFarthest && fs - at > *most) *most = fs - at;
  return 0;
}

}  // namespace

bool probe_tls_block() {
  if (bytes_below != 0) return true;
  std::uintptr_t most = 0;
  dl_iterate_phdr(look_at_module, &most);
  errno_below = thread_pointer() - reinterpret_cast<std::uintptr_t>(&errno);
  bytes_below = most;
  return most != 0;
}

TlsBlock tls_block() {
  const std::uintptr_t fs = thread_pointer();
  return {fs - bytes_below, fs + kControlBytes};
}

const char* tls_name(const TlsBlock& block, std::uintptr_t address) {
  const std::uintptr_t fs = block.hi - kControlBytes;
  if (address == fs) return "its thread's handle";
  return address == fs - errno_below ? "errno" : nullptr;
}

namespace {

struct Walk {
  bool (*f)(const KeptFrame& frame, void* arg);
  void* arg;
};

_Unwind_Reason_Code at_frame(_Unwind_Context* context, void* arg) {
  auto* w = static_cast<Walk*>(arg);
  KeptFrame frame;
  frame.pc = _Unwind_GetIP(context);
  frame.sp = _Unwind_GetCFA(context);
  for (unsigned i = 0; i < kKeptRegs; i++) frame.kept[i] = _Unwind_GetGR(context, kDwarfNumbers[i]);
  return frame.pc != 0 && w->f(frame, w->arg) ? _URC_NO_REASON : _URC_END_OF_STACK;
}

}  // namespace

WEFT_NOINLINE void walk_kept_registers(bool (*f)(const KeptFrame& frame, void* arg), void* arg) {
  Walk w{f, arg};
  _Unwind_Backtrace(at_frame, &w);
}

#else

const char* const kKeptRegNames[kKeptRegs] = {};
bool probe_tls_block() { return false; }
TlsBlock tls_block() { return {}; }
const char* tls_name(const TlsBlock&, std::uintptr_t) { return nullptr; }
void walk_kept_registers(bool (*)(const KeptFrame&, void*), void*) {}

#endif

}  // namespace weft::arch
