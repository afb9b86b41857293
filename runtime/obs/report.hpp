// The reports of a process that is about to end: uncaught panics and fatal errors. And that of a silence (stuck.cpp).
#pragma once

#include <weft/runtime.hpp>

#include <string>

namespace weft::rt {

/// From start to end of a runtime: the terminate handler, and the reporters of fatal errors and of a deadlock. Whoever was
/// the terminate handler before is called for what is not a goroutine's, and last under Runtime.
void reports_install();
void reports_remove();

/// How much the run under way shows.
Traceback traceback_level();

/// All goroutines but the caller's own, each after an empty line, to stderr and to `copy` (may be null). For reports that end
/// the process: the world stays stopped.
void print_all_others(std::string* copy);

/// Exit status 2, or SIGABRT at level crash.
[[noreturn]] void leave_with_2();

void report_stuck(bool fatal_in_run, const char* headline);  // stuck.cpp

}  // namespace weft::rt
