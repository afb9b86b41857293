// Unlocking from within another operation of the runtime, which parks next: no safepoint, so it may be done under that
// operation's SpinLock.
// And what Cond does to a waiter that could not go on yet.
// Lock order: the caller's object, then the lock's own guard.
#pragma once

#include <weft/mutex.hpp>
#include <weft/rw_mutex.hpp>

#include "runtime/core/waiter.hpp"

namespace weft::rt {

void unlock_inside(weft::Mutex& mu);
/// WaitNode::index of an exclusive wait: in whose queue it ended.
inline constexpr std::uint32_t kInPlace = 0, kMoved = 1;

/// True: mu is held, and n, an exclusive wait's node whose queue is locked, waits for its unlock from here on: n->success says
/// then whether the lock was handed over. lock_resumed() does the rest of the locking once n's waiter runs.
bool move_waiter(WaitQueue& from, WaitNode* n, weft::Mutex& mu);
void lock_resumed(weft::Mutex& mu, const WaitNode* n);
void unlock_inside(weft::RwMutex& mu);
void unlock_shared_inside(weft::RwMutex& mu);

}  // namespace weft::rt
