// The kernel-call table: every call into the kernel goes through one of these pointers.
//
// Protocol   A test replaces a pointer, or asks for the n-th call of a kind to fail (runtime/base/fault.hpp),
//            before the runtime starts; nobody writes the table while it runs. Cost: one load per call.
//            Failure is -1 with errno (mmap: MAP_FAILED; pthread_create: the error number).
// Left out   write(2) to stderr in fatal paths and signal handlers: there is nothing to do when it fails.
#pragma once

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <ctime>

namespace weft::arch {

/// The kernel's struct sched_attr, first version: no header of glibc's has it.
struct SchedAttr {
  std::uint32_t size;
  std::uint32_t policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime;  // SCHED_OTHER: the length of a turn in ns, since Linux 6.12
  std::uint64_t deadline;
  std::uint64_t period;
};

struct Kernel {
  void* (*mmap)(void* addr, std::size_t len, int prot, int flags, int fd, off_t off);
  int (*munmap)(void* addr, std::size_t len);
  int (*mprotect)(void* addr, std::size_t len, int prot);
  int (*madvise)(void* addr, std::size_t len, int advice);
  int (*pthread_create)(pthread_t* out, const pthread_attr_t* attr, void* (*fn)(void*), void* arg);
  int (*sigaltstack)(const stack_t* ss, stack_t* old);
  int (*epoll_create)(int flags);
  int (*epoll_ctl)(int epfd, int op, int fd, epoll_event* ev);
  int (*epoll_pwait2)(int epfd, epoll_event* evs, int n, const timespec* timeout);
  int (*eventfd)(unsigned init, int flags);
  int (*futex_wait)(std::uint32_t* word, std::uint32_t expected, const timespec* timeout);
  int (*futex_wake)(std::uint32_t* word, int n);
  int (*clock_gettime)(clockid_t id, timespec* out);
  int (*sched_getaffinity)(cpu_set_t* set);
  int (*userfaultfd)(int flags);
  int (*ioctl)(int fd, unsigned long request, void* arg);
  int (*membarrier)(int command, unsigned flags);
  ssize_t (*process_madvise)(int pidfd, const iovec* ranges, std::size_t n, int advice);
  /// Of the thread `tid`, 0: the caller (glibc has no wrapper).
  int (*sched_getattr)(int tid, SchedAttr* out);
  int (*sched_setattr)(int tid, const SchedAttr* attr);
  /// The first `size` bytes of a file, or fewer if it is shorter: open, read, close.
  ssize_t (*read_file)(const char* path, void* buffer, std::size_t size);
};

/// The table in force. Points at the real calls until a test says otherwise.
extern Kernel kernel;

/// The real calls, for tests that wrap them.
extern const Kernel kRealKernel;

}  // namespace weft::arch
