// Goroutines that run on a thread of the host's, in its event loop: Spawn::main_thread.
//
// The host's thread is an M (Sched::host_m) only inside run_main_pending(). Outside, whoever finds such a G in a queue puts it
// on Sched::host_pending and makes main_loop_fd() readable; the host's loop then calls run_main_pending(), which runs each until it
// parks, gives way or ends. They are special (GStart), so that nobody else starts them.
// A P         is taken from the idle ones; if there is none the G goes back to the global queue, and the next M that finds it hands
//             its own P over (start_special), as to a thread that is locked to its goroutine. It may be another of the host's
//             that is found first: then that one runs, and the first comes by the list.
// Locks       Sched::mu guards host_pending, host_waits and host_fd.
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "arch/kernel.hpp"
#include "arch/thread.hpp"
#include "runtime/base/check.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

void ring_the_bell(int fd) {
  const std::uint64_t one = 1;
  if (fd >= 0 && ::write(fd, &one, sizeof one) < 0) return;  // it rings already
}

void silence_the_bell(int fd) {
  std::uint64_t n;
  if (fd >= 0 && ::read(fd, &n, sizeof n) < 0) return;  // it did not ring
}

/// Runs `gp` on the host's thread until it leaves. False: the run ends.
bool run_here(M* mp, G* gp) {
  if (!acquire_idle_p(mp)) {
    mp->note.clear();
    sched.mu.lock();
    sched.host_waits = true;
    sched.mu.unlock();
    put_global(gp, true);
    wake_one();
    {
      Asleep asleep(mp);
      mp->note.sleep();
    }
    sched.mu.lock();
    sched.host_waits = false;
    P* pp = std::exchange(mp->next_p, nullptr);
    gp = std::exchange(sched.host_next, nullptr);  // perhaps another one: the first that was found
    sched.mu.unlock();
    if (!pp) return false;
    bind_p(mp, pp);
  }
  execute(mp, gp);
  if (mp->p) handoff_p(unbind_p(mp));
  return true;
}

}  // namespace

bool host_loop_start() {
  sched.host_m = new_host_m();
  return sched.host_m != nullptr;
}

void host_loop_stop() {
  if (sched.host_fd >= 0) ::close(std::exchange(sched.host_fd, -1));
  sched.host_pending = {};
  sched.host_m = nullptr;
}

int host_loop_fd() {
  sched.mu.lock();
  if (sched.host_fd < 0) sched.host_fd = arch::kernel.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int fd = sched.host_fd;
  const bool rings = sched.host_pending.first != nullptr;
  sched.mu.unlock();
  if (rings) ring_the_bell(fd);
  return fd;
}

void give_to_host(M* mp, G* gp) {
  sched.mu.lock();
  if (sched.host_waits) {
    sched.host_waits = false;
    sched.host_m->next_p = unbind_p(mp);
    sched.host_next = gp;
    sched.mu.unlock();
    sched.host_m->note.wake();
    return;
  }
  sched.host_pending.push(gp);
  const int fd = sched.host_fd;
  sched.mu.unlock();
  ring_the_bell(fd);
}

int host_loop_run() {
  if (current_m()) fatalf("weft: run_main_pending called inside a goroutine");
  M* mp = sched.host_m;
  silence_the_bell(sched.host_fd);  // only this thread makes it
  sched.mu.lock();
  GList todo = std::exchange(sched.host_pending, GList{});
  sched.mu.unlock();
  if (!todo.first) return 0;
  if (mp->tid != 0 && mp->tid != arch::thread_id()) fatalf("weft: run_main_pending called on another thread than before");
  enter_host_m(mp);
  int n = 0;
  while (G* gp = todo.pop()) {
    if (!run_here(mp, gp)) break;
    n++;
  }
  leave_host_m(mp);
  return n;
}

}  // namespace weft::rt
