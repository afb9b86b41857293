// Events of goroutines' lives, for whoever set_hooks() named. One relaxed load each when nobody did.
#pragma once

#include <cstdint>

#include "runtime/base/atomic.hpp"

namespace weft::rt::probe {

extern std::atomic<void (*)(std::uint64_t id, std::uint64_t parent)> on_create;
extern std::atomic<void (*)(std::uint64_t id, const char* reason)> on_park;
extern std::atomic<void (*)(std::uint64_t id)> on_exit;

/// `collector` has just got its functions: they are told as well from now on.
void tell_collector();

#ifndef NDEBUG
/// Builds with checks: a context has just gone on, on the M `m` (obs/tls_watch.cpp).
extern std::atomic<void (*)(void* m)> on_landed;
WEFT_ALWAYS_INLINE void landed(void* m) {
  if (auto f = peek(on_landed); WEFT_UNLIKELY(f != nullptr)) f(m);
}
#endif

WEFT_ALWAYS_INLINE void created(std::uint64_t id, std::uint64_t parent) {
  if (auto f = peek(on_create); WEFT_UNLIKELY(f != nullptr)) f(id, parent);
}

/// `reason` is what the layer above knows waits by: wait_reason_text() is found there.
template <class Reason>
WEFT_ALWAYS_INLINE void parked(std::uint64_t id, Reason reason) {
  if (auto f = peek(on_park); WEFT_UNLIKELY(f != nullptr)) f(id, wait_reason_text(reason));
}

WEFT_ALWAYS_INLINE void ended(std::uint64_t id) {
  if (auto f = peek(on_exit); WEFT_UNLIKELY(f != nullptr)) f(id);
}

}  // namespace weft::rt::probe
