// See hibernation.hpp.
#include "arch/hibernation.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

#include "arch/kernel.hpp"
#include "arch/stack_memory.hpp"

namespace weft::arch {
namespace {

// Not yet in every system's headers.
constexpr std::uint64_t kFeatureMove = std::uint64_t{1} << 16;
struct Move {
  std::uint64_t dst, src, len, mode;
  std::int64_t move;
};
constexpr unsigned long kMove = _IOWR(UFFDIO, 0x05, Move);
constexpr int kUserModeOnly = 1;

std::uint64_t number(const char* p) { return reinterpret_cast<std::uintptr_t>(p); }

/// Changes of the address space by other threads interrupt these calls.
template <class T>
bool try_ioctl(int fd, unsigned long what, T* arg) {
  for (int tries = 0; tries < 10'000; tries++) {
    if (kernel.ioctl(fd, what, arg) == 0) return true;
    if (errno != EAGAIN) return false;
  }
  return false;
}

}  // namespace

int open_faults(bool user_only) {
  const int fd = kernel.userfaultfd(O_CLOEXEC | O_NONBLOCK | (user_only ? kUserModeOnly : 0));
  if (fd < 0) return -1;
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kFeatureMove;
  if (kernel.ioctl(fd, UFFDIO_API, &api) == 0) return fd;
  ::close(fd);
  errno = ENOSYS;
  return -1;
}

void close_faults(int fd) { ::close(fd); }

bool watch_range(int fd, char* lo, std::size_t bytes) { return register_holes(fd, lo, bytes); }
bool unwatch_range(int fd, char* lo, std::size_t bytes) { return unregister_holes(fd, lo, bytes); }

bool move_page(int fd, char* to, char* from) {
  Move m{number(to), number(from), kPageBytes, 0, 0};
  return try_ioctl(fd, kMove, &m);
}

bool put_page(int fd, char* to, const char* bytes) {
  uffdio_copy c{};
  c.dst = number(to);
  c.src = number(bytes);
  c.len = kPageBytes;
  return try_ioctl(fd, UFFDIO_COPY, &c) || errno == EEXIST;
}

bool clear_page(int fd, char* to) {
  uffdio_zeropage z{};
  z.range = {number(to), kPageBytes};
  return try_ioctl(fd, UFFDIO_ZEROPAGE, &z) || errno == EEXIST;
}

void wake_faults(int fd, char* at) {
  uffdio_range r{number(at), kPageBytes};
  try_ioctl(fd, UFFDIO_WAKE, &r);
}

bool next_fault(int fd, int stop_fd, std::uintptr_t* at) {
  *at = 0;
  pollfd p[2] = {{fd, POLLIN, 0}, {stop_fd, POLLIN, 0}};
  if (::poll(p, 2, -1) < 0) return true;
  if (p[1].revents) return false;
  uffd_msg msg;
  if (::read(fd, &msg, sizeof msg) == sizeof msg && msg.event == UFFD_EVENT_PAGEFAULT) *at = msg.arg.pagefault.address;
  return true;
}

}  // namespace weft::arch
