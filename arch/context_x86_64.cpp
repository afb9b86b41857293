// x86-64 System V: where Boost.Context keeps what in a saved frame.
//
// 1.74 to 1.80 store rip at 0x38, 1.81 and later at 0x40 (a stack-guard word came in), builds with a shadow stack at
// 0x48; rbp lies 8 below it, rbx (the entry function of a fresh context) 8 below that. The layout is found once, by
// making a context on a scratch buffer and looking where its entry stands.
#include "arch/context.hpp"

#if defined(__x86_64__)

#include <cstring>
#include <initializer_list>

namespace weft::arch {
namespace {

std::size_t rip_offset = 0;

void probe_entry(Transfer) { __builtin_trap(); }

WEFT_NO_SANITIZE std::uintptr_t load(Context ctx, std::size_t off) {
  std::uintptr_t v;
  __builtin_memcpy(&v, static_cast<char*>(ctx) + off, sizeof v);
  return v;
}

}  // namespace

bool probe_context_layout() {
  if (rip_offset) return true;
  alignas(64) static char scratch[1024];
  char* top = scratch + sizeof scratch;
  Context ctx = make_fcontext(top, sizeof scratch, probe_entry);
  auto entry = reinterpret_cast<std::uintptr_t>(&probe_entry);
  for (std::size_t rbx : {0x28, 0x30, 0x38})
    if (load(ctx, rbx) == entry && static_cast<std::size_t>(top - static_cast<char*>(ctx)) >= rbx + 0x18) {
      rip_offset = rbx + 0x10;
      return true;
    }
  return false;
}

Context make_context(void* top, std::size_t size, void (*entry)(Transfer)) {
  Context ctx = make_fcontext(top, size, entry);
  // Frame-pointer walkers stop at a zero: Boost's trampoline pushes this slot as the entry's return address.
  if (rip_offset) std::memset(static_cast<char*>(ctx) + rip_offset - 8, 0, 8);
  return ctx;
}

SavedRegs saved_regs(Context ctx) {
  if (!rip_offset || !ctx) return {};
  return {load(ctx, rip_offset), reinterpret_cast<std::uintptr_t>(ctx) + rip_offset + 8,
          load(ctx, rip_offset - 8)};
}

}  // namespace weft::arch

#endif
