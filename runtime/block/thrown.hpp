// What a goroutine is panicking with, and what that has replaced: Go's list of panics.
//
// Only frames (weft::func) make entries, and only when they run deferred calls for a panic or goexit: an exception that meets no
// frame has none. The newest is GExtra::thrown; it is what a deferred call runs for (`handling`), or in flight.
#pragma once

#include <weft/panic.hpp>

#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

namespace weft::rt {

struct Thrown : std::enable_shared_from_this<Thrown> {
  std::exception_ptr exception;  // null: not one of C++
  std::shared_ptr<Thrown> link;  // what it was raised in a deferred call of
  std::vector<std::uintptr_t> trace;  // return addresses from the throw on; empty: the stack still stands
  std::shared_ptr<const detail::PanicState> state;  // of a Panic, or the one that recover() has made of it
  bool goexit = false;
  bool passes = false;  // nobody recovers it: a cancelled wait's
  bool because_of_stop = false;
  bool recovered = false;
  bool handling = false;
};

/// The caller's goroutine's; null: none.
Thrown* newest_thrown();

/// For a report on an exception: the list that ends with it, oldest first. The last one's `exception` is `e`.
struct ThrownEntry {
  const Thrown* thrown = nullptr;  // null: the exception that is reported, without an entry of its own
  bool repanicked = false;         // the next one is the same value
};
std::vector<ThrownEntry> thrown_list(const std::exception_ptr& e);

}  // namespace weft::rt
