// The guard ladder: what keeps a stack from growing into its neighbour.
//
// Install    MADV_GUARD_INSTALL on the lowest pages of the class. No VMA, no memory.
// Hole       The reservation is registered with userfaultfd and all but the lowest pages is filled with the zero page.
// Mprotect   Costs two VMAs per stack, so only while fewer than kMprotectMax stacks have it: vm.max_map_count is 65,530.
// Canary     The page below the lowest usable byte must still read as zeroes when the stack comes back. It is never
//            written, so it takes no memory; a call chain that went over it left return addresses.
// Falling    Each stack tries the rung of its reservation first and goes down from there when the kernel refuses. The
//            first fall of a runtime that nobody asked for is logged.
// Locks      None; callers may hold the pool's.
#pragma once

#include <cstddef>

#include "runtime/core/stack.hpp"

namespace weft::rt {

inline constexpr std::size_t kMprotectMax = 25'000;

/// Chooses the rung. False: `forced` is not to be had here.
bool guards_start(GuardKind forced);
/// Closes what guards_start opened unless a range still needs it.
void guards_stop();

/// The rung in force.
GuardKind guards_rung();

/// A fresh reservation, nothing in it touched. Returns the rung that its stacks start from.
GuardKind guard_reservation(char* lo, std::size_t bytes);
/// Such a reservation is to be unmapped.
void guard_reservation_gone(GuardKind rung);

/// Guards the stack [bottom, hi) whose lowest usable byte is `lo`. False: it cannot be used.
bool guard_stack(GuardKind from, char* bottom, char* lo, char* hi, GuardKind* got);
/// A stack that had `got` is unmapped.
void guard_gone(GuardKind got);
/// After the pages of a stack were given back. False: it cannot be used any more.
bool guard_refill(const StackSlot* s);

/// False: something was written below `s->lo`.
bool canary_intact(const StackSlot* s);

/// Logs the first fall, if there was one.
void guards_warn();

}  // namespace weft::rt
