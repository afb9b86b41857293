// See log.hpp.
#include "runtime/base/log.hpp"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <utility>

#include "runtime/base/emit.hpp"
#include "runtime/base/immortal.hpp"
#include "runtime/base/lock.hpp"

namespace weft::rt {

std::atomic<unsigned> log_queued{0};

namespace {

constexpr unsigned kMessages = 64;
constexpr std::size_t kBytesMax = 400;

struct Message {
  LogLevel level;
  unsigned size;
  char text[kBytesMax];
};

// All of it under `mu`.
struct Ring {
  Mutex mu{Rank::Log};
  Message messages[kMessages];
  unsigned first = 0;
  unsigned count = 0;
  unsigned lost = 0;
  bool flushing = false;
  std::shared_ptr<const LogSink> sink;
};
Immortal<Ring> ring;

void queue(LogLevel level, const char* format, va_list args) {
  char text[kBytesMax];
  const int n = std::vsnprintf(text, sizeof text, format, args);
  if (n < 0) return;
  const std::size_t size = static_cast<std::size_t>(n) < sizeof text ? static_cast<std::size_t>(n) : sizeof text - 1;
  ring->mu.lock();
  if (ring->count == kMessages) {
    ring->lost++;
  } else {
    Message& m = ring->messages[(ring->first + ring->count) % kMessages];
    ring->count++;
    m.level = level;
    m.size = static_cast<unsigned>(size);
    std::memcpy(m.text, text, size);
    log_queued.store(ring->count, memory_order_release);  // [log]
  }
  ring->mu.unlock();
}

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::Debug: return spdlog::level::debug;
    case LogLevel::Info: return spdlog::level::info;
    case LogLevel::Warn: return spdlog::level::warn;
    case LogLevel::Error: return spdlog::level::err;
  }
  return spdlog::level::warn;
}

// Never destroyed: an M may log while static destructors run.
spdlog::logger& default_logger() {
  static spdlog::logger* logger = [] {
    auto* l = new spdlog::logger("weft", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    l->set_pattern("weft: %v");
    l->set_level(spdlog::level::info);
    l->flush_on(spdlog::level::trace);
    return l;
  }();
  return *logger;
}

void hand_over(const std::shared_ptr<const LogSink>& sink, LogLevel level, std::string_view text) {
  // A sink that throws must not take a thread of the runtime down.
  try {
    if (sink)
      (*sink)(level, text);
    else
      default_logger().log(spdlog_level(level), spdlog::string_view_t(text.data(), text.size()));
  } catch (const std::exception& e) {
    emit("weft: the log sink failed: ");
    emit(e.what());
    emit("\n");
  }
}

}  // namespace

void log_warn(const char* format, ...) {
  va_list args;
  va_start(args, format);
  queue(LogLevel::Warn, format, args);
  va_end(args);
}

void log_at(LogLevel level, const char* format, ...) {
  va_list args;
  va_start(args, format);
  queue(level, format, args);
  va_end(args);
}

// One flusher at a time, so that lines keep their order; what comes meanwhile is the running flusher's too.
void log_flush_slow() {
  Message m;
  ring->mu.lock();
  if (ring->flushing) {
    ring->mu.unlock();
    return;
  }
  ring->flushing = true;
  while (ring->count > 0 || ring->lost > 0) {
    const std::shared_ptr<const LogSink> sink = ring->sink;
    if (ring->count > 0) {
      m = ring->messages[ring->first];
      ring->first = (ring->first + 1) % kMessages;
      ring->count--;
    } else {
      m.level = LogLevel::Warn;
      m.size = static_cast<unsigned>(std::snprintf(m.text, sizeof m.text, "%u log messages lost", std::exchange(ring->lost, 0u)));
    }
    log_queued.store(ring->count, memory_order_relaxed);
    ring->mu.unlock();
    hand_over(sink, m.level, std::string_view(m.text, m.size));
    ring->mu.lock();
  }
  ring->flushing = false;
  ring->mu.unlock();
}

void log_text(LogLevel level, std::string_view text) {
  log_flush();
  ring->mu.lock();
  const std::shared_ptr<const LogSink> sink = ring->sink;
  ring->mu.unlock();
  hand_over(sink, level, text);
}

void set_log_sink(LogSink sink) {
  auto next = sink ? std::make_shared<const LogSink>(std::move(sink)) : nullptr;
  ring->mu.lock();
  std::swap(ring->sink, next);
  ring->mu.unlock();
}

}  // namespace weft::rt
