// Unlocking from within another operation of the runtime: no safepoint, so it may be done under that operation's SpinLock.
// Lock order: the caller's object, then the lock's own guard.
#pragma once

#include <weft/mutex.hpp>
#include <weft/rw_mutex.hpp>

namespace weft::rt {

void unlock_inside(weft::Mutex& mu);
void unlock_inside(weft::RwMutex& mu);
void unlock_shared_inside(weft::RwMutex& mu);

}  // namespace weft::rt
