// A channel's insides, for select, timers and reports.
#pragma once

#include <weft/chan.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "runtime/base/lock.hpp"
#include "runtime/core/waiter.hpp"

namespace weft::rt {

/// Everything but `refs` under `lock`; `closed`, `count` and the queues' emptiness may also be read without it, stale.
struct ChanCore : weft::detail::ChanHead {
  SpinLock lock;
  std::atomic<bool> closed{false};
  bool is_timer = false;  // looks unbuffered, and is part of a timer (block/timer.cpp)
  std::atomic<std::size_t> count{0};
  std::size_t cap = 0;
  std::size_t size = 0;   // of an element's cell
  std::size_t send_at = 0;
  std::size_t recv_at = 0;
  std::byte* buffer = nullptr;
  WaitQueue receivers;
  WaitQueue senders;
  const weft::detail::ElemType* type = nullptr;
};

inline ChanCore* core_of(weft::detail::ChanHead* h) { return static_cast<ChanCore*>(h); }

WEFT_ALWAYS_INLINE void copy_element(void* to, const void* from, std::size_t size) {
  if (WEFT_LIKELY(size == 8))
    std::memcpy(to, from, 8);
  else if (size == 4)
    std::memcpy(to, from, 4);
  else if (size != 0)
    std::memcpy(to, from, size);
}

/// One attempt at an operation, all of it but the parking. With the lock held; releases it if something happened.
/// Send: panics (lock released) if closed.
enum class Attempt : std::uint8_t { Done, Closed, WouldBlock };
Attempt attempt_send(ChanCore* c, void* elem);
Attempt attempt_recv(ChanCore* c, void* elem);

/// Could an operation proceed now? Without the lock: may be stale.
WEFT_ALWAYS_INLINE bool maybe_sendable(const ChanCore* c) {
  return peek(c->closed) || !c->receivers.empty() || peek(c->count) < c->cap;
}
WEFT_ALWAYS_INLINE bool maybe_receivable(const ChanCore* c) {
  return peek(c->count) != 0 || !c->senders.empty() || peek(c->closed);
}

/// Frees a channel that is part of a timer.
void free_timer_chan(ChanCore* c);

/// For reports. The world should be stopped, so that who waits stays; plain threads come and go even then.
struct ChanView {
  std::size_t cap = 0;
  std::size_t len = 0;
  bool closed = false;
  unsigned receivers = 0;
  unsigned senders = 0;
  bool busy = false;  // somebody holds its lock and does not let go: who waits is not known
};
ChanView chan_view(const void* chan);

}  // namespace weft::rt
