// fork: the child has one thread and a copy of a runtime whose other threads are gone.
//
// posix_spawn, and fork followed by exec or _exit, always work: between the two there is no call of the runtime. Any other call
// ends the child with one line, before it touches a lock that a thread of the parent may have held. The parent is not touched.
// Hibernated stacks are brought back first: a page that is missing in the child would read as zeroes.
// The child gets the signal mask of the thread that started the runtime back, not an M's, so that what it executes can be
// interrupted. (posix_spawn hands the caller's mask on: POSIX_SPAWN_SETSIGMASK.)
//
// How a goroutine's thread finds out: it is told to come to a safepoint and to stay there (M::abandoned), which every call of
// the runtime looks at already. A plain thread's calls look at Sched::forked where they would block or start somebody.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "runtime/base/emit.hpp"
#include "runtime/sched/hibernator.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/sched.hpp"
#include "runtime/sched/turns.hpp"

namespace weft::rt {
namespace {

sigset_t mask_at_start;

void in_child() {
  if (sched.state.load(memory_order_acquire) == RunState::Off) return;  // [run-state] see lifecycle.cpp
  sched.forked = true;
  M* mp = current_m();
  if (!mp) return;
  mp->abandoned.store(true, memory_order_relaxed);
  mp->curg->preempt.store(1, memory_order_relaxed);
  take_usual_turns(mp);
  pthread_sigmask(SIG_SETMASK, &mask_at_start, nullptr);
}

}  // namespace

void fork_prepare() {
  pthread_sigmask(SIG_BLOCK, nullptr, &mask_at_start);
  static const int once = pthread_atfork(bring_all_back, nullptr, in_child);
  (void)once;
}

void fatal_in_forked_child() {
  emit("fatal error: weft: the runtime was called in a forked child: only exec or _exit may follow fork (or use posix_spawn)\n");
  ::_exit(2);
}

}  // namespace weft::rt
