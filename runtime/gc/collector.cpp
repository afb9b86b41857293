// A companion collector's functions: gc::attach().
#include <weft/gc_hook.hpp>
#include <weft/panic.hpp>

#include "runtime/base/collector.hpp"
#include "runtime/base/probe.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::gc {

using namespace rt;

void attach(const Collector& c) {
  if (sched.state.load(memory_order_acquire) != RunState::Off)  // [run-state] see sched/lifecycle.cpp
    panic("weft: gc::attach called while a runtime runs");
  if (collector_attached) panic("weft: gc::attach called twice");
  if (values_made && c.allocate) panic("weft: gc::attach called after a channel, a goroutine or a context was made");
  if (!c.allocate != !c.release) panic("weft: gc::attach needs allocate and release together");
  collector = c;
  collector_attached = true;
  probe::tell_collector();
}

}  // namespace weft::gc
