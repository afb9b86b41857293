// A progress line on the terminal for whatever takes over a second.
//
// It is drawn by a goroutine of its own, so the program that is shown only counts. Nothing is
// started and nothing drawn where stderr is no terminal.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <weft/chan.hpp>

namespace tools {

/// Is stderr a terminal that understands a carriage return?
bool stderr_is_terminal();

/// Replaces the line the cursor is on; an empty text clears it. Call it only on a terminal.
void draw_line(const std::string& text);

/// "[#####.....] 52 %  520,000 of 1,000,000"; without a total just the count.
std::string progress_text(std::uint64_t done, std::uint64_t total);

/// Shows a line from its first second on until it is destroyed. Made and destroyed by a goroutine.
class Progress {
 public:
  /// Shows how much of `total` has been counted by add().
  Progress(std::string what, std::uint64_t total);

  /// Shows what `text` returns; it runs on another goroutine.
  explicit Progress(std::function<std::string()> text);

  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void add(std::uint64_t n = 1) { done_.fetch_add(n, std::memory_order_relaxed); }

 private:
  void start();

  std::atomic<std::uint64_t> done_{0};
  std::function<std::string()> text_;
  weft::Chan<void> stop_;     // closed by the destructor
  weft::Chan<void> stopped_;  // closed when the line is gone
};

}  // namespace tools
