// See check.hpp.
#include "runtime/base/check.hpp"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "runtime/base/emit.hpp"

namespace weft::rt {

void (*fatal_reporter)() = nullptr;

void fatalf(const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  emit("fatal error: ");
  emit(text);
  emit("\n");
  if (fatal_reporter) fatal_reporter();
  ::_exit(2);
}

void check_failed(const char* what, const char* file, int line) {
  fatalf("weft: %s does not hold at %s:%d", what, file, line);
}

}  // namespace weft::rt
