// WEFT_DEBUG=leaks: who was still parked when the program ended.
#pragma once

namespace weft::rt {

/// Prints to stderr the goroutines that have not ended, grouped by where they were created and where they wait; nothing if
/// there are none. No goroutine may run any more. Stack: a plain thread.
void report_leaks();

}  // namespace weft::rt
