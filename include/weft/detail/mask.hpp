// What must not be cut short by the end of a task: deferred calls, taking a lock again.
#pragma once

namespace weft::detail {

/// What to give to unmask_cancel(): null outside tasks and scopes.
void* mask_cancel() noexcept;
void unmask_cancel(void* domain) noexcept;
/// A wait was cancelled that says so in its result: throws all the same if the scope wants that (throw_on_cancel).
void result_canceled();

/// While one lives, nothing cancels the waits of the calling goroutine. In the frame that made it.
class CancelMask {
 public:
  CancelMask() noexcept : domain_(mask_cancel()) {}
  ~CancelMask() {
    if (domain_) unmask_cancel(domain_);
  }
  CancelMask(const CancelMask&) = delete;
  CancelMask& operator=(const CancelMask&) = delete;

 private:
  void* domain_;
};

/// A short internal lock, which is no wait in its user's eyes.
template <class Mutex>
class [[nodiscard]] MaskedLock {
 public:
  explicit MaskedLock(Mutex& mu) : mu_(mu) {
    if (mu.try_lock()) return;
    CancelMask mask;
    mu.lock();
  }
  ~MaskedLock() { mu_.unlock(); }
  MaskedLock(const MaskedLock&) = delete;
  MaskedLock& operator=(const MaskedLock&) = delete;

 private:
  Mutex& mu_;
};

template <class Mutex>
class [[nodiscard]] MaskedSharedLock {
 public:
  explicit MaskedSharedLock(Mutex& mu) : mu_(mu) {
    if (mu.try_lock_shared()) return;
    CancelMask mask;
    mu.lock_shared();
  }
  ~MaskedSharedLock() { mu_.unlock_shared(); }
  MaskedSharedLock(const MaskedSharedLock&) = delete;
  MaskedSharedLock& operator=(const MaskedSharedLock&) = delete;

 private:
  Mutex& mu_;
};

}  // namespace weft::detail
