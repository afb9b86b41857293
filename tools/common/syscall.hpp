// System calls in a goroutine: how to ask for errno.
//
// errno belongs to the thread, and a goroutine that parks may come back on another one. The
// compiler does not know: it may compute errno's address once for a whole function, before and
// after the parking. So whoever asks for errno stays out of line, in a function that does not park.
#pragma once

#include <cerrno>

namespace tools {

/// What `call` returns, or -errno, as the kernel has it.
template <class Call>
[[gnu::noinline]] long result_or_errno(Call call) {
  long result = call();
  return result < 0 ? -errno : result;
}

}  // namespace tools
