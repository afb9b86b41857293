// See procs.hpp. The rules are those of Go 1.25:
//
//   CPUs      of the affinity mask
//   quota     of the control groups, rounded up, but not below 2: with a single P one long slice would hold everybody up, and the
//             quota is an average
//   changes   are looked for by sysmon while something runs, and carried out by a goroutine: stopping the world may take a while
//   fixed     by Config::procs, WEFT_PROCS or set_procs(), until set_default_procs()
//
// Race       set_procs() against the goroutine that follows the default. Whichever changes last must leave what set_procs() said:
//
//              set_procs(n)                    follower
//              fixed = n                       m = fixed ? fixed : default
//              change_procs(n)                 change_procs(m)
//                                              again, if fixed now says something else
//
//            Changes exclude each other under Sched::world. If the follower's is the later one it sees `fixed` in its second look.
// Orders     `fixed` is relaxed: Sched::world orders it.
#include "runtime/sched/procs.hpp"

#include <weft/go.hpp>

#include <mutex>
#include <utility>

#include "arch/cgroup.hpp"
#include "arch/thread.hpp"
#include "runtime/base/immortal.hpp"
#include "runtime/base/knobs.hpp"
#include "runtime/sched/lifecycle.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {

std::int64_t procs_period_ns = 1'000'000'000;

namespace {

constexpr int kQuotaLeast = 2;

struct Default {
  std::mutex mu;          // never held across a switch
  arch::CpuQuota quota;   // under mu
  bool found = false;     // under mu
  std::atomic<int> fixed{0};           // 0: it is not
  std::atomic<bool> following{false};  // the goroutine is on its way
  std::int64_t looked_at = 0;          // sysmon's
  bool use_quota = true;               // since boot
  bool follow = true;
};
Immortal<Default> how_many;

int least_of(int cpus, int quota) {
  if (quota > 0 && quota < kQuotaLeast) quota = kQuotaLeast;
  const int n = quota > 0 && quota < cpus ? quota : cpus;
  return n < static_cast<int>(kProcsMax) ? n : static_cast<int>(kProcsMax);
}

void forget_groups() {
  std::lock_guard l(how_many->mu);
  how_many->found = false;
}

int wanted() {
  const int n = peek(how_many->fixed);
  return n ? n : default_procs();
}

void follow() {
  {
    Inside inside;
    for (int n = wanted();; n = peek(how_many->fixed)) {
      change_procs(n);
      const int now = peek(how_many->fixed);
      if (now == 0 || now == n) break;
    }
  }
  how_many->following.store(false, memory_order_relaxed);
}

}  // namespace

int default_procs() {
  std::lock_guard l(how_many->mu);
  if (!std::exchange(how_many->found, true)) how_many->quota.find();
  return least_of(arch::allowed_cpus(), how_many->use_quota ? how_many->quota.cpus() : 0);
}

int procs_at_boot(const Config& config) {
  how_many->use_quota = !debug_has(config, "nocgroup");
  how_many->follow = !debug_has(config, "fixedprocs");
  how_many->following.store(false, memory_order_relaxed);
  how_many->looked_at = arch::clock_now();
  how_many->fixed.store(config.procs, memory_order_relaxed);
  forget_groups();
  return wanted();
}

void procs_fix(int n) { how_many->fixed.store(n, memory_order_relaxed); }

void procs_look(std::int64_t now) {
  if (now - how_many->looked_at < procs_period_ns) return;
  how_many->looked_at = now;
  if (peek(how_many->fixed) != 0 || !how_many->follow || peek(how_many->following)) return;
  if (default_procs() == static_cast<int>(ps_in_use())) return;
  how_many->following.store(true, memory_order_relaxed);
  // Refused a stack: next time.
  if (!weft::try_go({.name = "weft: procs"}, follow)) how_many->following.store(false, memory_order_relaxed);
}

}  // namespace weft::rt

namespace weft {

int set_default_procs() {
  const rt::RunState s = rt::sched.state.load(std::memory_order_acquire);  // [run-state]
  if (s == rt::RunState::Off || s == rt::RunState::Ending) rt::fatalf("weft: set_default_procs called while no runtime runs");
  rt::Inside inside;
  rt::procs_fix(0);
  rt::forget_groups();
  return rt::change_procs(rt::default_procs());
}

}  // namespace weft
