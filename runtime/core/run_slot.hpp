// Copyable stacks: many goroutines on one stack, whose bytes are copied out while others run there.
//
// Slot       A full-size stack and who lies on it. A goroutine gets a slot when it first runs and keeps it for life, so the
//            addresses in its frames never change: pointers into the own stack, exceptions and unwinding need nothing.
// Copying    Lazy: a goroutine that parks stays where it is (`resident`). Whoever runs on the slot next copies the resident's live
//            bytes, from its saved stack pointer to the top, to a block (blocks.hpp) and its own back.
// Who        `busy` is a lock that a goroutine's M holds from the moment that it brings the goroutine in until the goroutine's context
//            is saved again and its commit has run. Only the holder touches the stack, `resident` and `spare`. Who finds
//            it busy waits in `waiting` (runnable, in no queue) and is queued again when it is let go.
//
//              M1: lets go                        M2: wants it for B
//              context of A saved, commit runs    (the commit may have made A runnable: B may be A)
//              lock: busy = false,                lock: busy? -> B into `waiting`
//                pop a waiter                       else busy = true
//              queue the waiter                   copies, runs B
//
// Looks      Who looks on while everybody stands still, at whatever instruction, finds each parked goroutine's bytes:
//
//              M2, has claimed the slot for B     where they are
//              copies A's bytes to a block        A: resident, in place      B: in its block
//              nobody is resident                 A: no block, in place
//              A has the block                    A: in the block
//              copies B's bytes in
//              B has no block                                                B: in place
//              B is the resident
//
//            G::block is G::m as well: whoever lets go clears it for the resident, and no resident ever has a block.
//            (tests/model/copyable_test.cpp)
// Own        Where stacks are not copied (CopyMode) a copyable goroutine has a slot for itself. With traps its stack is without access
//            while it is parked: whoever touches it, in place of the stranger that would lie there, is reported with both names
//            (obs/overflow.cpp).
// Price      A goroutine that computes for long holds up those that share its slot.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/lock.hpp"
#include "runtime/core/g.hpp"
#include "runtime/core/poller.hpp"
#include "runtime/core/stack.hpp"

namespace weft::rt {

inline constexpr std::uint32_t kRunSlotsPerP = 64;
inline constexpr std::uint8_t kCopyableClass = 240;  // G::stack_cls of a copyable goroutine: this plus its stack's class

/// How copyable goroutines are kept apart, from start to stop of a runtime.
enum class CopyMode : std::uint8_t {
  Copied,   // they share slots
  Trapped,  // each has its own, without access while it is parked: WEFT_DEBUG=copytraps, and builds with checks
  Own,      // each has its own: the sanitizers keep a shadow of each stack
};
CopyMode copy_mode();
/// `traps`: asked for.
void run_slots_start(bool traps);

struct RunSlot {
  StackSlot* stack = nullptr;
  SpinLock lock;
  bool busy = false;           // under lock
  bool own = false;            // of one goroutine
  bool trapped = false;        // without access now
  GList waiting;               // under lock
  G* resident = nullptr;       // the holder's
  void* spare = nullptr;       // ditto: a block to copy out to
  std::size_t spare_bytes = 0;
};

inline bool is_copyable(const G* gp) { return gp->stack_cls >= kCopyableClass && gp->stack_cls < kCopyableClass + kStackClasses; }

RunSlot* run_slot_of(const StackSlot* s);

/// A free slot for a goroutine that has never run, claimed. `hint` chooses among the slots of `p_id`. Null: no memory for a stack.
RunSlot* claim_fresh_slot(std::uint32_t p_id, std::uint32_t hint, std::uint8_t cls);
/// False: it is busy; gp waits for it.
bool claim_slot(RunSlot* s, G* gp);
/// Makes gp, whose context is saved or fresh, the resident. The slot is claimed.
void bring_in(RunSlot* s, G* gp);
/// Lets it go; who waited for it is returned, to be queued.
G* release_slot(RunSlot* s);
/// The resident has ended. The slot is claimed.
void forget_resident(RunSlot* s);

/// Where the live bytes [gp->ctx, top) of a copyable goroutine are now: add this to an address of its stack. May be stale unless the
/// world is stopped or frozen.
std::ptrdiff_t copied_by(const G* gp);
/// Its M, if it runs or is about to, for who looks on from a frozen world: of a parked copyable one G::m is something else.
M* runs_on(const G* gp);
/// Traps off (and on again), so that its stack can be walked. World stopped.
void open_for_reading(const G* gp, bool open);

/// All slots that no abandoned goroutine runs on, and all blocks, are gone: their stacks count as not bound.
void run_slots_stop();

struct RunSlotStats {
  std::size_t slots = 0;
  std::size_t copied_out = 0;   // blocks in use
  std::size_t block_bytes = 0;  // what they take
};
RunSlotStats run_slot_stats();

}  // namespace weft::rt
