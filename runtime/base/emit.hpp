// Writing to stderr without locks, allocation or stdio: for fatal paths and signal handlers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::rt {

/// Writes all of it with write(2) to stderr; gives up after two seconds on a full pipe. Keeps errno.
void emit(const char* text);
void emit(const char* text, std::size_t n);
/// What is emitted from here on is the process's last report: it also goes to set_crash_output()'s file.
void emit_as_crash();
/// A copy of `fd` is kept; -1: none any more. False: it cannot be duplicated (errno).
bool set_crash_fd(int fd);
/// The same for a file that is appended to.
bool set_crash_file(const char* path);
void emit_dec(std::uint64_t v);
void emit_hex(std::uint64_t v);  // with 0x

}  // namespace weft::rt
