// The slow half of the polls that the compiler inserts (arch/poll.cpp): somebody wants this goroutine to give way.
//
// Refused    A poll stands anywhere in the code of who asked for it, so unlike a runtime call it may come where the G cannot leave;
//            the wish stays, and a later poll or runtime call answers it:
//              g0              (it has no stack slot) a hook or a timer's function that was built with polls
//              depth > 0       inside the runtime, which may run a user's code or a template's copy that the linker took from a
//                              flagged file; or where the goroutine does not want it
//              region          inside blocking() or a SyscallRegion: it has no P, and gets one at the region's end
//              foreign stack   a signal handler on the alternate stack, a user's own coroutine
// errno      A statement of the user's may stand between a call and its errno, and so a poll: it is kept, also on another thread.
// Throws     No: compilers take the callback for one that does not.
#include <weft/go.hpp>

#include "arch/tls.hpp"
#include "runtime/core/segments.hpp"
#include "runtime/sched/sched.hpp"

extern "C" WEFT_NO_COVERAGE WEFT_COLD void weft_poll_slow() noexcept {
  using namespace weft::rt;
  M* mp = current_m();
  G* gp = mp->curg;
  if (peek(gp->depth) != 0 || mp->call_depth != 0) return;
  if (!on_stack_of(gp, __builtin_frame_address(0))) return;
  const int saved = *weft_errno();
  weft::detail::safepoint_slow();
  *weft_errno() = saved;
}
