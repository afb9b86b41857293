// Writing to stderr without locks, allocation or stdio: for fatal paths and signal handlers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::rt {

/// Writes all of it with write(2) to stderr; gives up after two seconds on a full pipe. Keeps errno.
void emit(const char* text);
void emit(const char* text, std::size_t n);
void emit_dec(std::uint64_t v);
void emit_hex(std::uint64_t v);  // with 0x

}  // namespace weft::rt
