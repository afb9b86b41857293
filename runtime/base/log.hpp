// What the runtime has to say besides reports: warnings about refused resources, notes about odd programs.
//
// Protocol   Anybody may log, also a goroutine with a small stack and a caller that holds locks: the message is formatted
//            into a fixed ring. log_flush(), called by g0 loops, sysmon and plain threads, hands it to the sink; so the sink
//            (the host's function, or spdlog to stderr) never runs on a goroutine's stack or under a lock of ours.
// Overflow   A full ring drops the message and counts it; the count is logged when there is room again.
// Orders     [log] release when the ring gets a message, acquire in log_flush(): a flusher that sees the count sees the
//            message. The rest is under the ring's lock.
#pragma once

#include <weft/runtime.hpp>

#include <functional>
#include <string_view>

#include "runtime/base/atomic.hpp"

namespace weft::rt {

using LogSink = std::function<void(LogLevel, std::string_view)>;

/// Queues one line, at most 400 bytes of it. Any stack, any lock but Rank::Log. Not in signal handlers.
void log_warn(const char* format, ...) __attribute__((format(printf, 1, 2)));
void log_at(LogLevel level, const char* format, ...) __attribute__((format(printf, 2, 3)));

/// Hands a text of any length to the sink now, after what is queued. Stack: g0 or a plain thread. Locks: none.
void log_text(LogLevel level, std::string_view text);

extern std::atomic<unsigned> log_queued;
void log_flush_slow();
/// Stack: g0 or a plain thread. Locks: none. Cost when nothing is queued: one load.
inline void log_flush() {
  if (WEFT_UNLIKELY(log_queued.load(memory_order_acquire) != 0)) log_flush_slow();  // [log]
}

/// Replaces the default sink; an empty one restores it.
void set_log_sink(LogSink sink);

}  // namespace weft::rt
