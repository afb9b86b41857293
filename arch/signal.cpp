// See signal.hpp.
//
// Orders     [ours] the function is stored before the handlers are installed and cleared after they are gone: a handler
//            that reads null passes on.
#include "arch/signal.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <new>

#include "arch/cpu.hpp"
#include "arch/kernel.hpp"
#include "arch/stack_memory.hpp"

namespace weft::arch {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS};

std::atomic<FaultFn> ours_{nullptr};
struct sigaction previous[2];
bool installed[2];

void set_default(int signo) {
  struct sigaction dfl = {};
  dfl.sa_handler = SIG_DFL;
  ::sigaction(signo, &dfl, nullptr);
}

void pass_on(int signo, siginfo_t* info, void* uc) {
  const struct sigaction& prev = previous[signo == SIGSEGV ? 0 : 1];
  const bool sent = info->si_code <= 0;  // by kill() and the like: does not happen again by itself
  if (!(prev.sa_flags & SA_SIGINFO) && prev.sa_handler == SIG_IGN && sent) return;
  if (!(prev.sa_flags & SA_SIGINFO) && (prev.sa_handler == SIG_DFL || prev.sa_handler == SIG_IGN)) {
    set_default(signo);
    if (sent) ::raise(signo);
    return;
  }
  sigset_t mask = prev.sa_mask;
  if (!(prev.sa_flags & SA_NODEFER)) sigaddset(&mask, signo);
  sigset_t old;
  ::pthread_sigmask(SIG_BLOCK, &mask, &old);
  if (prev.sa_flags & SA_RESETHAND) set_default(signo);
  if (prev.sa_flags & SA_SIGINFO) prev.sa_sigaction(signo, info, uc);
  else prev.sa_handler(signo);
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void on_fault(int signo, siginfo_t* info, void* uc) {
  const int saved = errno;
  const FaultFn ours = ours_.load(std::memory_order_acquire);  // [ours]
  if (!ours || !ours(signo, info, uc)) pass_on(signo, info, uc);
  errno = saved;
}

bool is_ours(const struct sigaction& a) {
  return (a.sa_flags & SA_SIGINFO) && a.sa_sigaction == on_fault;
}

constexpr std::size_t kGuard = 4 * kPageBytes;  // below an alternate stack

// What an installed alternate stack must remember; lies at its top.
struct SignalStack {
  stack_t before;
};

}  // namespace

bool install_fault_handlers(FaultFn ours) {
  ours_.store(ours, std::memory_order_release);  // [ours]
  struct sigaction a = {};
  a.sa_sigaction = on_fault;
  a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&a.sa_mask);
  for (int i = 0; i < 2; i++) {
    struct sigaction now = {};
    ::sigaction(kSignals[i], nullptr, &now);
    // Still there from the last time, below somebody else's: on top of that one it would pass on in a circle.
    const bool vacant = !(now.sa_flags & SA_SIGINFO) && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN);
    if (installed[i] && !vacant) continue;
    if (::sigaction(kSignals[i], &a, &now) != 0) {
      remove_fault_handlers();
      return false;
    }
    previous[i] = now;
    installed[i] = true;
  }
  return true;
}

void remove_fault_handlers() {
  for (int i = 0; i < 2; i++) {
    if (!installed[i]) continue;
    struct sigaction now = {};
    ::sigaction(kSignals[i], nullptr, &now);
    if (!is_ours(now)) continue;
    ::sigaction(kSignals[i], &previous[i], nullptr);
    installed[i] = false;
  }
  ours_.store(nullptr, std::memory_order_release);  // [ours]
}

void* install_signal_stack() {
  bool needs_commit = false;
  char* lo = reserve_range(kGuard + kSignalStackBytes, &needs_commit);
  if (!lo) return nullptr;
  if (needs_commit && !commit_range(lo + kGuard, kSignalStackBytes)) {
    release_range(lo, kGuard + kSignalStackBytes);
    return nullptr;
  }
  if (!needs_commit && !install_guard(lo, kGuard)) deny_access(lo, kGuard);
  auto* block = ::new (lo + kGuard + kSignalStackBytes - sizeof(SignalStack)) SignalStack;
  stack_t ss = {};
  ss.ss_sp = lo + kGuard;
  ss.ss_size = (kSignalStackBytes - sizeof(SignalStack)) & ~std::size_t{63};
  if (kernel.sigaltstack(&ss, &block->before) != 0) {
    release_range(lo, kGuard + kSignalStackBytes);
    return nullptr;
  }
  return lo;
}

void signal_stack_range(const void* stack, std::uintptr_t* lo, std::uintptr_t* hi) {
  *lo = *hi = 0;
  if (!stack) return;
  *lo = reinterpret_cast<std::uintptr_t>(stack) + kGuard;
  *hi = *lo + kSignalStackBytes;
}

void remove_signal_stack(void* stack) {
  if (!stack) return;
  auto* lo = static_cast<char*>(stack);
  auto* block = reinterpret_cast<SignalStack*>(lo + kGuard + kSignalStackBytes - sizeof(SignalStack));
  stack_t now = {};
  kernel.sigaltstack(nullptr, &now);
  // Somebody who installed another one since has to be left alone.
  if (now.ss_sp == lo + kGuard) {
    stack_t before = block->before;
    before.ss_flags = before.ss_flags & SS_DISABLE;
    kernel.sigaltstack(&before, nullptr);
  }
  release_range(lo, kGuard + kSignalStackBytes);
}

}  // namespace weft::arch
