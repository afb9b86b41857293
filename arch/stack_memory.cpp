// See stack_memory.hpp.
#include "arch/stack_memory.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "arch/kernel.hpp"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

namespace weft::arch {
namespace {

// Not in the C library's headers yet.
constexpr int kPopulateRead = 22;   // MADV_POPULATE_READ, Linux 5.14
constexpr int kGuardInstall = 102;  // MADV_GUARD_INSTALL, Linux 6.13

uffdio_range range_of(char* lo, std::size_t bytes) {
  return {reinterpret_cast<std::uintptr_t>(lo), bytes};
}

}  // namespace

std::size_t reservation_limit(std::size_t wish) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return wish;
  return std::min<std::size_t>(wish, limit.rlim_cur / 16);
}

char* reserve_range(std::size_t bytes, bool* needs_commit) {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  *needs_commit = false;
  void* p = kernel.mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (p == MAP_FAILED) {
    p = kernel.mmap(nullptr, bytes, PROT_NONE, kFlags, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    *needs_commit = true;
  }
  // With huge pages and no guards a touched stack takes 64 KiB. Refused where the kernel has no huge pages: the same.
  kernel.madvise(p, bytes, MADV_NOHUGEPAGE);
  return static_cast<char*>(p);
}

bool commit_range(char* lo, std::size_t bytes) {
  return kernel.mprotect(lo, bytes, PROT_READ | PROT_WRITE) == 0;
}

void release_range(char* lo, std::size_t bytes) { kernel.munmap(lo, bytes); }

bool empty_range(char* lo, std::size_t bytes) {
  return kernel.madvise(lo, bytes, MADV_DONTNEED) == 0;
}

bool empty_ranges(const Range* ranges, std::size_t n) {
  constexpr std::size_t kAtOnce = 256;
  constexpr int kSelf = -10001;  // PIDFD_SELF: Linux 6.14
  static_assert(sizeof(Range) == sizeof(iovec) && offsetof(Range, bytes) == offsetof(iovec, iov_len));
  std::size_t i = 0;
  for (; i < n; i += kAtOnce) {
    const std::size_t k = n - i < kAtOnce ? n - i : kAtOnce;
    std::size_t bytes = 0;
    for (std::size_t j = 0; j < k; j++) bytes += ranges[i + j].bytes;
    if (kernel.process_madvise(kSelf, reinterpret_cast<const iovec*>(ranges + i), k, MADV_DONTNEED) !=
        static_cast<ssize_t>(bytes))
      break;
  }
  bool all = true;
  for (; i < n; i++) all = empty_range(ranges[i].lo, ranges[i].bytes) && all;
  return all;
}

bool install_guard(char* lo, std::size_t bytes) {
  for (int tries = 0; tries < 100; tries++) {
    if (kernel.madvise(lo, bytes, kGuardInstall) == 0) return true;
    if (errno != EAGAIN && errno != EINTR) return false;
  }
  return false;
}

bool probe_install_guard() {
  void* p = kernel.mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return false;
  bool works = install_guard(static_cast<char*>(p), kPageBytes);
  // Kernels that accept any advice exist: populating a page that is guarded fails.
  if (works && kernel.madvise(p, kPageBytes, kPopulateRead) == 0) works = false;
  kernel.munmap(p, kPageBytes);
  return works;
}

bool deny_access(char* lo, std::size_t bytes) { return kernel.mprotect(lo, bytes, PROT_NONE) == 0; }

int open_holes() {
  const int fd = kernel.userfaultfd(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  if (fd < 0) return -1;
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_SIGBUS;
  if (kernel.ioctl(fd, UFFDIO_API, &api) == 0) return fd;
  ::close(fd);
  return -1;
}

bool allow_access(char* lo, std::size_t bytes) { return kernel.mprotect(lo, bytes, PROT_READ | PROT_WRITE) == 0; }

char* map_chunk(std::size_t bytes, bool huge) {
  void* p = kernel.mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  char* raw = static_cast<char*>(p);
  char* at = reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(raw) + bytes - 1) & ~(bytes - 1));
  if (at > raw) kernel.munmap(raw, static_cast<std::size_t>(at - raw));
  if (at + bytes < raw + 2 * bytes) kernel.munmap(at + bytes, static_cast<std::size_t>(raw + 2 * bytes - (at + bytes)));
  if (huge) kernel.madvise(at, bytes, MADV_HUGEPAGE);
  return at;
}

void unmap_chunk(char* chunk, std::size_t bytes) { kernel.munmap(chunk, bytes); }

void close_holes(int fd) { ::close(fd); }

bool register_holes(int fd, char* lo, std::size_t bytes) {
  uffdio_register r{};
  r.range = range_of(lo, bytes);
  r.mode = UFFDIO_REGISTER_MODE_MISSING;
  return kernel.ioctl(fd, UFFDIO_REGISTER, &r) == 0;
}

bool unregister_holes(int fd, char* lo, std::size_t bytes) {
  uffdio_range r = range_of(lo, bytes);
  return kernel.ioctl(fd, UFFDIO_UNREGISTER, &r) == 0;
}

bool fill_hole(int fd, char* lo, std::size_t bytes) {
  for (int tries = 0; tries < 1000 && bytes > 0; tries++) {
    uffdio_zeropage z{};
    z.range = range_of(lo, bytes);
    if (kernel.ioctl(fd, UFFDIO_ZEROPAGE, &z) == 0) return true;
    if (errno != EAGAIN) return false;
    // Interrupted by a change of the address space; the part that is done is told.
    if (z.zeropage > 0) {
      lo += z.zeropage;
      bytes -= static_cast<std::size_t>(z.zeropage);
    }
  }
  return bytes == 0;
}

void san_forget_stack([[maybe_unused]] SanStack& s) {
#if WEFT_TSAN
  san_destroy_fiber(s.fiber);
  s.fiber = nullptr;
#endif
}

void san_forget_range(char* lo, std::size_t bytes) {
  SanStack scratch;
  san_fresh_stack(scratch, lo, bytes);
}

}  // namespace weft::arch
