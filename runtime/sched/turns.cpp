// See turns.hpp.
#include "runtime/sched/turns.hpp"

#include "arch/thread.hpp"
#include "runtime/base/atomic.hpp"

namespace weft::rt {

std::atomic<bool> turns_matter{false};

namespace {

constexpr std::int64_t kShort = 100'000;  // the least that the kernel takes
constexpr std::int64_t kLong = 20'000'000;

std::atomic<bool> allowed{false};
bool sysmon_short = false;  // sysmon's own

void ask(int tid, std::int64_t ns) {
  if (arch::set_thread_turns(tid, ns)) return;
  allowed.store(false, memory_order_relaxed);
  turns_matter.store(false, memory_order_relaxed);
}

}  // namespace

void turns_start(bool enabled) {
  allowed.store(enabled, memory_order_relaxed);
  turns_matter.store(false, memory_order_relaxed);
  sysmon_short = false;
}

void take_long_turns(M* mp) {
  if (!peek(allowed)) return;
  if (!peek(turns_matter)) turns_matter.store(true, memory_order_relaxed);
  mp->turns = Turns::Long;
  ask(mp->tid, kLong);
}

void take_short_turns(M* mp) {
  mp->turns = Turns::Short;
  ask(0, kShort);
}

void take_usual_turns(M* mp) {
  if (mp->turns == Turns::Usual) return;
  mp->turns = Turns::Usual;
  arch::set_thread_turns(0, 0);
}

void sysmon_turns() {
  if (!peek(turns_matter) || sysmon_short) return;
  sysmon_short = true;
  ask(0, kShort);
}

}  // namespace weft::rt
