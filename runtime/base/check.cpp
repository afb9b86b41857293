// See check.hpp.
//
// One report   The first thread that fails says why and ends the process; others that fail meanwhile wait for that end. Its own
//              report may fail as well: that is said, and nothing more is tried.
#include "runtime/base/check.hpp"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "arch/thread.hpp"
#include "runtime/base/atomic.hpp"
#include "runtime/base/emit.hpp"

namespace weft::rt {

void (*fatal_reporter)() = nullptr;

void fatalf(const char* format, ...) {
  static std::atomic<int> dying{0};  // the first one's thread
  const int me = arch::thread_id();
  int first = 0;
  const bool is_first = dying.compare_exchange_strong(first, me, memory_order_relaxed);
  if (!is_first && first != me)
    for (;;) ::pause();
  char text[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  emit_as_crash();
  emit("fatal error: ");
  emit(text);
  emit("\n");
  if (is_first && fatal_reporter) fatal_reporter();
  ::_exit(2);
}

void check_failed(const char* what, const char* file, int line) {
  fatalf("weft: %s does not hold at %s:%d", what, file, line);
}

}  // namespace weft::rt
