// See emit.hpp.
#include "runtime/base/emit.hpp"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace weft::rt {

void emit(const char* text, std::size_t n) {
  const int saved = errno;
  int patience = 20;
  while (n > 0) {
    const ssize_t k = ::write(STDERR_FILENO, text, n);
    if (k > 0) {
      text += k;
      n -= static_cast<std::size_t>(k);
    } else if (k < 0 && errno == EAGAIN && patience-- > 0) {
      pollfd p{STDERR_FILENO, POLLOUT, 0};
      ::poll(&p, 1, 100);
    } else if (!(k < 0 && errno == EINTR)) {
      break;
    }
  }
  errno = saved;
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
