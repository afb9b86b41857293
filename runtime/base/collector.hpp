// The companion collector, as the layers below runtime/gc see it: where to ask for blocks, whom to tell of threads.
//
// Orders     none: written once, before there is a thread of the runtime or a block (gc::attach checks that).
#pragma once

#include <weft/gc_hook.hpp>

#include "runtime/base/atomic.hpp"

namespace weft::rt {

/// What gc::attach() was given; its members are null without a collector.
extern gc::Collector collector;
/// There is one.
extern Relaxed<bool> collector_attached;
/// A block for values was made by operator new: too late for a collector.
extern Relaxed<bool> values_made;

#ifndef NDEBUG
/// Builds with checks: called before each block for values.
extern std::atomic<void (*)()> value_check;
#endif

/// value_new() that answers null instead of throwing.
void* value_try_new(std::size_t bytes, std::size_t align) noexcept;

}  // namespace weft::rt
