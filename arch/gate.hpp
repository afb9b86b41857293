// A call that is asked, before anything unwinds, whether an exception that left it stops there.
//
// Why        C++ looks for a handler first and unwinds then (Itanium ABI, two phases). The search asks each frame's personality
//            routine, on top of the thrower's whole stack. gate_call() is a frame with a personality of our own, so code of ours
//            runs at that moment: with every frame still there, after all handlers further in have declined, and for any
//            exception, whoever threw it. C++ itself has no such filter.
// Protocol   asked() is called once for each exception that gets there. True: the frames above are unwound (destructors run), and
//            gate_call() returns the exception, which the caller has to land(). False: the search goes on outwards; if it finds a
//            handler, the frame goes without another word; if not, std::terminate runs on top of everything.
//            asked() may run user code, park and change threads. No exception may leave it.
// Rejected   A catch clause with a type_info of our own: its __do_catch() is called in both phases and cannot tell them apart.
#pragma once

#include <unwind.h>

#include <cstddef>
#include <cstdint>
#include <exception>

namespace weft::arch {

struct Gate {
  bool (*asked)(Gate* gate, _Unwind_Exception* thrown) = nullptr;
};

/// The frame itself (gate_x86_64.cpp).
_Unwind_Exception* gate_frame(void (*f)(void*), void* arg, Gate* gate);

/// Calls f(arg). Null: it returned.
inline _Unwind_Exception* gate_call(void (*f)(void*), void* arg, Gate* gate) {
  auto frame = &gate_frame;
  asm("" : "+r"(frame));  // a compiler that sees the assembly concludes that nothing is thrown through it
  return frame(f, arg, gate);
}

/// The gate of the innermost gate_call() on the caller's stack; null: there is none. Walks the stack: microseconds.
const Gate* innermost_gate();

/// The caller's frames down to the one that stands in `gate`, innermost first; all, if it is null. Return addresses.
/// Returns how many there are; at most `max` are stored.
std::size_t frames_above(const Gate* gate, std::uintptr_t* pcs, std::size_t max);

/// What is being thrown, to keep; null if it is not an exception of C++.
std::exception_ptr in_flight(const _Unwind_Exception* thrown);

/// The object inside; null: none. T as it was thrown.
const void* object_in(const std::exception_ptr& e);

/// Ends the flight of what gate_call() returned.
void land(_Unwind_Exception* thrown);

}  // namespace weft::arch
