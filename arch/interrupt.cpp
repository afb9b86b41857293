// See interrupt.hpp.
//
// Orders     [interrupt] the function is stored before the handler is installed, and cleared after it is gone.
#include "arch/interrupt.hpp"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace weft::arch {
namespace {

constexpr int kSignal = SIGURG;

std::atomic<InterruptFn> call{nullptr};
struct sigaction previous = {};
bool installed = false;

void pass_on(int signo, siginfo_t* info, void* uc) {
  if (previous.sa_flags & SA_SIGINFO) {
    if (previous.sa_sigaction) previous.sa_sigaction(signo, info, uc);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signo);
  }
}

void on_signal(int signo, siginfo_t* info, void* uc) {
  const int saved = errno;
  if (const InterruptFn f = call.load(std::memory_order_acquire)) f(uc);  // [interrupt]
  pass_on(signo, info, uc);
  errno = saved;
}

bool is_ours(const struct sigaction& a) { return (a.sa_flags & SA_SIGINFO) && a.sa_sigaction == on_signal; }

}  // namespace

bool interrupts_install(InterruptFn f) {
  call.store(f, std::memory_order_release);  // [interrupt]
  struct sigaction now = {};
  if (::sigaction(kSignal, nullptr, &now) != 0) return false;
  // Below a handler of somebody else since the last time: on top of that one it would pass on in a circle.
  if (is_ours(now) || installed) return true;
  struct sigaction a = {};
  a.sa_sigaction = on_signal;
  a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  a.sa_mask = now.sa_mask;  // as the one that is passed on to expects
  previous = now;
  if (::sigaction(kSignal, &a, nullptr) != 0) return false;
  installed = true;
  return true;
}

void interrupts_remove() {
  if (installed) {
    struct sigaction now = {};
    ::sigaction(kSignal, nullptr, &now);
    if (is_ours(now)) {
      ::sigaction(kSignal, &previous, nullptr);
      installed = false;
    }
  }
  call.store(nullptr, std::memory_order_release);  // [interrupt]
}

bool interrupt_thread(int tid) { return ::syscall(SYS_tgkill, ::getpid(), tid, kSignal) == 0; }

bool interrupts_unblock() {
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, kSignal);
  ::pthread_sigmask(SIG_UNBLOCK, &set, &old);
  return sigismember(&old, kSignal) == 1;
}

void interrupts_block_again(bool was_blocked) {
  if (!was_blocked) return;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, kSignal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

}  // namespace weft::arch
