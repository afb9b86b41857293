// Hibernation of stacks: what the rest of the machine says to it. (hibernator.cpp; the mechanism: core/hibernate.hpp)
#pragma once

#include <weft/runtime.hpp>

#include <cstdint>
#include <string>

namespace weft::rt {

/// Decides whether there will be any. Starts nothing.
void hibernator_boot(const Config& config, bool in_run);
/// Called by sysmon while goroutines run: starts it when it is time, wakes it when there may be work.
void hibernator_look(std::int64_t now);
/// A goroutine has Spawn{.hibernate = On or Auto}.
void hibernator_asked();
/// Threads that it has.
int hibernator_threads();
/// The thread that takes stacks out; those that are out stay so until faults_stop().
void hibernator_stop();
/// Before a fork: the child finds nothing where a page is missing.
void bring_all_back();
/// For Capabilities.
std::string hibernation_text();

}  // namespace weft::rt
