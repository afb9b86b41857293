// Goroutines on copyable stacks: where the scheduler brings them in and lets them go. The slots: core/run_slot.hpp.
//
// Protocol   Such a G is special (GStart): only g0 starts it, and it leaves to g0 only. So its M takes the slot before the switch to it
//            (enter_run_slot) and lets it go after the switch back (leave_run_slot), with its context saved and its commit run.
// Waiting    For a slot: runnable, in the slot's own queue; the M that lets go queues it again.
#include <utility>

#include "runtime/core/blocks.hpp"
#include "runtime/core/run_slot.hpp"
#include "runtime/sched/switch.hpp"

namespace weft::rt {

bool enter_run_slot(M* mp, G* gp) {
  P* pp = mp->p;
  RunSlot* s;
  if (!gp->ctx) {
    s = claim_fresh_slot(pp->id, pp->run_slot_turn++, static_cast<std::uint8_t>(gp->stack_cls - kCopyableClass));
    if (!s) {
      wait_for_stack(gp);
      return false;
    }
    gp->stack = s->stack;
    set_block(gp->block, nullptr);
    bring_in(s, gp);
    begin_on_stack(gp);
  } else {
    s = run_slot_of(gp->stack);
    if (!claim_slot(s, gp)) return false;
    bring_in(s, gp);
  }
  mp->run_slot = s;
  return true;
}

void leave_run_slot(M* mp) {
  RunSlot* s = std::exchange(mp->run_slot, nullptr);
  if (s->resident) set_block(s->resident->block, nullptr);
  if (G* next = release_slot(s)) {
    put_global(next, true);
    wake_one();
  }
}

void end_in_run_slot(M* mp, G* gp) {
  forget_resident(mp->run_slot);
  gp->stack = nullptr;
  set_block(gp->block, nullptr);
}

}  // namespace weft::rt
