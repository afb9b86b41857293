// The token that takes a goroutine's frames down: thrown by goexit and by the runtime's stop, caught by the entry only.
//
// A `catch (...)` that does not rethrow destroys the token before it got there: its destructor sees that and is fatal. One that
// keeps it in a std::exception_ptr is found out when the goroutine ends; if it rethrows, it may keep it for as long as it likes.
// The stop's own token may be swallowed: that goroutine is abandoned.
#pragma once

#include <cstdint>

namespace weft::rt {

struct UnwindToken {
  std::uint64_t goid = 0;
  bool because_of_stop = false;
  bool arrived = false;  // set by the entry

  UnwindToken(std::uint64_t id, bool stop) : goid(id), because_of_stop(stop) {}
  UnwindToken(const UnwindToken& o) = delete;
  ~UnwindToken();
};

}  // namespace weft::rt
