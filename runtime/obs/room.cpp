// See room.hpp.
//
// g0 does not run while its M runs a goroutine: below its saved context the thread's stack is free. A context is made there,
// runs f, and switches back; it never becomes anybody's saved context, so f must not switch.
#include "runtime/obs/room.hpp"

#include <cstdint>

#include "arch/context.hpp"
#include "arch/sanitizer.hpp"
#include "arch/tls.hpp"
#include "runtime/core/m.hpp"
#include "runtime/core/segments.hpp"

namespace weft::rt {
namespace {

// What a leaf function may use below its stack pointer, and some.
constexpr std::uintptr_t kGap = 512;
constexpr std::size_t kRoom = 256 << 10;

struct Visit {
  void (*f)(void*);
  void* arg;
  arch::SanStack* home;
  arch::SanStack room;
};


WEFT_NO_SANITIZE void visit(arch::Transfer t) {
  WEFT_MARK_ENTRY;
  auto* v = static_cast<Visit*>(t.data);
  arch::san_take_over(v);
  arch::san_finish_switch(v->room);
  v->f(v->arg);
  arch::san_start_switch(v->room, *v->home, true, v);
  arch::switch_context(t.from, nullptr);
  __builtin_unreachable();
}

}  // namespace

WEFT_NO_SANITIZE WEFT_NOINLINE void with_room(void (*f)(void*), void* arg) {
  M* mp = arch::current_m();
  // Or there already (a report that fails inside a report), or on a signal's stack.
  if (!mp || mp->curg->system || !mp->g0.ctx || !on_stack_of(mp->curg, __builtin_frame_address(0))) {
    f(arg);
    return;
  }
  Visit v{f, arg, &mp->curg->stack->san, mp->g0.san};
#if WEFT_ASAN
  v.room.fake = nullptr;
#endif
  const std::uintptr_t top = (reinterpret_cast<std::uintptr_t>(mp->g0.ctx) - kGap) & ~std::uintptr_t{63};
  arch::Context there = arch::make_context(reinterpret_cast<void*>(top), kRoom, visit);
  arch::san_start_switch(*v.home, v.room, false, &v);
  arch::switch_context(there, &v);
  arch::san_take_over(&v);
  arch::san_finish_switch(*v.home);
}

}  // namespace weft::rt
