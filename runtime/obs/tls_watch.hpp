// WEFT_DEBUG=tls: who keeps the address of a thread-local variable, or of errno, across a migration.
#pragma once

namespace weft::rt {

/// Looks at every goroutine that goes on on another thread, from now on. Builds with checks only; others say so in the log.
void tls_watch_start();
void tls_watch_stop();

}  // namespace weft::rt
