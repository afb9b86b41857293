// Room to report: a goroutine's stack may be too small for a demangler or for reading debug information.
#pragma once

#include <type_traits>

namespace weft::rt {

/// Runs f(arg) below g0's frames on the thread's own stack if the caller is a goroutine, else right here. The goroutine stays
/// the current one. f may neither throw, park, nor call what could (stop_world, user code).
void with_room(void (*f)(void*), void* arg);

template <class F>
void with_room(F&& f) {
  using Fn = std::remove_reference_t<F>;
  with_room([](void* p) { (*static_cast<Fn*>(p))(); }, const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace weft::rt
