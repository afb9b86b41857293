// Being told when goroutines come to a safepoint: gc::at_next_safepoint().
//
// With the world stopped every G is at one, or runs without a P. The latter are flagged; each finds `preempt` and the count at
// its next runtime call, or the count when it comes back from a call of the kernel, and says so on its own thread.
// Orders     [safepoint] see sched/sched.hpp. [status] see core/g.hpp. [to-come] release by who has said so, acquire by who asks
//            how many are missing: it sees what the callbacks did.
#include <weft/gc_hook.hpp>
#include <weft/panic.hpp>

#include "runtime/base/check.hpp"
#include "runtime/sched/freeze.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

struct Request {
  void (*f)(std::uint64_t goid, void* arg) = nullptr;
  void* arg = nullptr;
};
Request request;

bool runs_on(const G* gp, const G* self) {
  const GStatus s = gp->status.load(memory_order_acquire);  // [status]
  return (s == GStatus::Running || s == GStatus::Syscall) && gp != self && gp->id != 0;
}

void come(G* gp) {
  if (!gp->extra || !gp->extra->to_come.exchange(false, memory_order_relaxed)) return;
  request.f(gp->id, request.arg);
  sched.to_come.fetch_sub(1, memory_order_release);  // [to-come]
}

struct Asked {
  const G* self;
  std::uint32_t running = 0;
};

}  // namespace
}  // namespace weft::rt

namespace weft::gc {

using namespace rt;

std::size_t at_next_safepoint(void (*f)(std::uint64_t goid, void* arg), void* arg) {
  if (sched.state.load(memory_order_acquire) == RunState::Off)  // [run-state] see sched/lifecycle.cpp
    fatalf("weft: gc::at_next_safepoint called while no runtime runs");
  Inside inside;
  if (stopped_here()) panic("weft: gc::at_next_safepoint while the caller has stopped the world");
  rt::stop_world();
  if (peek(sched.to_come) != 0) {
    rt::start_world();
    panic("weft: gc::at_next_safepoint while goroutines are still to come to the safepoint of the time before");
  }
  request = {f, arg};
  safepoint_reporter = come;
  Asked asked{current_g()};
  g_table_each(
      [](G* gp, void* arg) {
        auto* a = static_cast<Asked*>(arg);
        if (gp->status.load(memory_order_acquire) == GStatus::Dead || gp->id == 0) return;  // [status]
        if (!runs_on(gp, a->self)) {
          request.f(gp->id, request.arg);
          return;
        }
        if (!gp->extra) gp->extra = new GExtra{};
        gp->extra->to_come.store(true, memory_order_relaxed);
        a->running++;
      },
      &asked);
  sched.to_come.store(asked.running, memory_order_seq_cst);  // [safepoint]
  if (asked.running != 0)
    g_table_each(
        [](G* gp, void*) {
          if (gp->status.load(memory_order_acquire) != GStatus::Dead && gp->extra && peek(gp->extra->to_come))  // [status]
            gp->preempt.store(1, memory_order_seq_cst);  // [safepoint]
        },
        nullptr);
  rt::start_world();
  return asked.running;
}

std::size_t safepoints_to_come() { return sched.to_come.load(memory_order_acquire); }  // [to-come]

}  // namespace weft::gc
