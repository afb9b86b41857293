// See sink.hpp.
#include "runtime/obs/sink.hpp"

namespace weft::rt {

void Sink::dec(std::uint64_t v) {
  char buf[20];
  char* p = buf + sizeof buf;
  do *--p = static_cast<char>('0' + v % 10);
  while (v /= 10);
  write(p, static_cast<std::size_t>(buf + sizeof buf - p));
}

void Sink::hex(std::uint64_t v) {
  char buf[18];
  char* p = buf + sizeof buf;
  do *--p = "0123456789abcdef"[v & 15];
  while (v >>= 4);
  *--p = 'x';
  *--p = '0';
  write(p, static_cast<std::size_t>(buf + sizeof buf - p));
}

void Sink::quoted(std::string_view text) {
  *this << "\"";
  for (char c : text) {
    const auto b = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      const char escaped[] = {'\\', c};
      write(escaped, 2);
    } else if (c == '\n') {
      *this << "\\n";
    } else if (c == '\t') {
      *this << "\\t";
    } else if (c == '\r') {
      *this << "\\r";
    } else if (b < 0x20 || b == 0x7f) {
      const char escaped[] = {'\\', 'x', "0123456789abcdef"[b >> 4], "0123456789abcdef"[b & 15]};
      write(escaped, 4);
    } else {
      write(&c, 1);
    }
  }
  *this << "\"";
}

void Sink::indented(std::string_view text) {
  for (;;) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) break;
    *this << text.substr(0, end + 1) << "\t";
    text.remove_prefix(end + 1);
  }
  *this << text;
}

}  // namespace weft::rt
