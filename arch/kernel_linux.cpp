// The kernel-call table's real entries on Linux.
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "arch/cpu.hpp"
#include "arch/kernel.hpp"

namespace weft::arch {
namespace {

#if WEFT_TSAN

// TSan holds a signal's handler back until its thread calls a function that TSan intercepts, and knows nothing of bare system
// calls: a thread that sleeps in one would hold it back for ever. So none sleeps longer than a slice without such a call.
constexpr long long kSlice = 20'000'000;

timespec slice_of(long long left) {  // negative: no limit
  return {0, static_cast<long>(left < 0 || left > kSlice ? kSlice : left)};
}

void run_signal_handlers() {
  const int saved = errno;
  ::poll(nullptr, 0, 0);
  errno = saved;
}

long long ns_of(const timespec* t) { return t ? t->tv_sec * 1'000'000'000LL + t->tv_nsec : -1; }

int real_epoll_pwait2(int epfd, epoll_event* evs, int n, const timespec* timeout) {
  long long left = ns_of(timeout);
  for (;;) {
    const timespec slice = slice_of(left);
    run_signal_handlers();
    const long r = ::syscall(SYS_epoll_pwait2, epfd, evs, n, &slice, nullptr, 0);
    if (r < 0) run_signal_handlers();
    if (r != 0 || slice.tv_nsec == left) return static_cast<int>(r);
    if (left > 0) left -= slice.tv_nsec;
  }
}

int real_futex_wait(std::uint32_t* word, std::uint32_t expected, const timespec* timeout) {
  const timespec slice = slice_of(ns_of(timeout));  // it may return early
  run_signal_handlers();
  const long r = ::syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, &slice, nullptr, 0);
  if (r < 0) run_signal_handlers();
  return static_cast<int>(r);
}

#else

int real_epoll_pwait2(int epfd, epoll_event* evs, int n, const timespec* timeout) {
  // Kernels before 5.11 lack epoll_pwait2: fall back to milliseconds, rounded up, never early.
  static std::atomic<bool> missing{false};
  if (!missing.load(std::memory_order_relaxed)) {
    long r = ::syscall(SYS_epoll_pwait2, epfd, evs, n, timeout, nullptr, 0);
    if (r >= 0 || errno != ENOSYS) return static_cast<int>(r);
    missing.store(true, std::memory_order_relaxed);
  }
  int ms = -1;
  if (timeout) {
    constexpr std::int64_t kLongest = 3600 * 1000;
    std::int64_t t = timeout->tv_sec >= 3600
                         ? kLongest
                         : timeout->tv_sec * 1000 + (timeout->tv_nsec + 999'999) / 1'000'000;
    ms = static_cast<int>(t);
  }
  return ::epoll_wait(epfd, evs, n, ms);
}

int real_futex_wait(std::uint32_t* word, std::uint32_t expected, const timespec* timeout) {
  return static_cast<int>(
      ::syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout, nullptr, 0));
}

#endif

int real_futex_wake(std::uint32_t* word, int n) {
  return static_cast<int>(::syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, nullptr, nullptr, 0));
}

int real_sched_getaffinity(cpu_set_t* set) { return ::sched_getaffinity(0, sizeof *set, set); }

int real_userfaultfd(int flags) { return static_cast<int>(::syscall(SYS_userfaultfd, flags)); }

int real_ioctl(int fd, unsigned long request, void* arg) { return ::ioctl(fd, request, arg); }

int real_membarrier(int command, unsigned flags) {
  return static_cast<int>(::syscall(SYS_membarrier, command, flags, 0));
}

ssize_t real_process_madvise(int pidfd, const iovec* ranges, std::size_t n, int advice) {
  return ::syscall(440, pidfd, ranges, n, advice, 0u);  // SYS_process_madvise, not in every system's headers
}

int real_sched_getattr(int tid, SchedAttr* out) {
  return static_cast<int>(::syscall(SYS_sched_getattr, tid, out, sizeof *out, 0));
}

int real_sched_setattr(int tid, const SchedAttr* attr) { return static_cast<int>(::syscall(SYS_sched_setattr, tid, attr, 0)); }

ssize_t real_read_file(const char* path, void* buffer, std::size_t size) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  std::size_t got = 0;
  ssize_t n = 0;
  while (got < size && ((n = ::read(fd, static_cast<char*>(buffer) + got, size - got)) > 0 || (n < 0 && errno == EINTR)))
    if (n > 0) got += static_cast<std::size_t>(n);
  const int error = errno;
  ::close(fd);
  errno = error;
  return n < 0 ? -1 : static_cast<ssize_t>(got);
}

int real_eventfd(unsigned init, int flags) { return ::eventfd(init, flags); }

}  // namespace

constinit const Kernel kRealKernel = {
    .mmap = ::mmap,
    .munmap = ::munmap,
    .mprotect = ::mprotect,
    .madvise = ::madvise,
    .pthread_create = ::pthread_create,
    .sigaltstack = ::sigaltstack,
    .epoll_create = ::epoll_create1,
    .epoll_ctl = ::epoll_ctl,
    .epoll_pwait2 = real_epoll_pwait2,
    .eventfd = real_eventfd,
    .futex_wait = real_futex_wait,
    .futex_wake = real_futex_wake,
    .clock_gettime = ::clock_gettime,
    .sched_getaffinity = real_sched_getaffinity,
    .userfaultfd = real_userfaultfd,
    .ioctl = real_ioctl,
    .membarrier = real_membarrier,
    .process_madvise = real_process_madvise,
    .sched_getattr = real_sched_getattr,
    .sched_setattr = real_sched_setattr,
    .read_file = real_read_file,
};

Kernel kernel = kRealKernel;

}  // namespace weft::arch
