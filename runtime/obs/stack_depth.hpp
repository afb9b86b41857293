// WEFT_DEBUG=stacks: how deep goroutines come, by where they were started.
#pragma once

namespace weft::rt {

/// False: /proc/self/pagemap cannot be read.
bool stack_depth_start();
void stack_depth_stop();
/// What has been found, to stderr.
void report_stack_depths();

}  // namespace weft::rt
