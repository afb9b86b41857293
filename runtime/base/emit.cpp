// See emit.hpp.
#include "runtime/base/emit.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "runtime/base/atomic.hpp"

namespace weft::rt {
namespace {

std::atomic<int> crash_fd{-1};
std::atomic<bool> crashing{false};

void write_all(int fd, const char* text, std::size_t n) {
  int patience = 20;
  while (n > 0) {
    const ssize_t k = ::write(fd, text, n);
    if (k > 0) {
      text += k;
      n -= static_cast<std::size_t>(k);
    } else if (k < 0 && errno == EAGAIN && patience-- > 0) {
      pollfd p{fd, POLLOUT, 0};
      ::poll(&p, 1, 100);
    } else if (!(k < 0 && errno == EINTR)) {
      break;
    }
  }
}

}  // namespace

void emit(const char* text, std::size_t n) {
  const int saved = errno;
  write_all(STDERR_FILENO, text, n);
  const int copy = crash_fd.load(memory_order_relaxed);
  if (copy >= 0 && crashing.load(memory_order_relaxed)) write_all(copy, text, n);
  errno = saved;
}

void emit_as_crash() { crashing.store(true, memory_order_relaxed); }

bool set_crash_fd(int fd) {
  const int copy = fd < 0 ? -1 : ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (fd >= 0 && copy < 0) return false;
  const int before = crash_fd.exchange(copy, memory_order_relaxed);
  if (before >= 0) ::close(before);
  return true;
}

bool set_crash_file(const char* path) {
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return false;
  const bool set = set_crash_fd(fd);
  const int saved = errno;
  ::close(fd);
  errno = saved;
  return set;
}

void emit(const char* text) { emit(text, std::strlen(text)); }

void emit_dec(std::uint64_t v) {
  char buf[20];
  char* p = buf + sizeof buf;
  do *--p = static_cast<char>('0' + v % 10);
  while (v /= 10);
  emit(p, static_cast<std::size_t>(buf + sizeof buf - p));
}

void emit_hex(std::uint64_t v) {
  char buf[18];
  char* p = buf + sizeof buf;
  do *--p = "0123456789abcdef"[v & 15];
  while (v >>= 4);
  *--p = 'x';
  *--p = '0';
  emit(p, static_cast<std::size_t>(buf + sizeof buf - p));
}

}  // namespace weft::rt
