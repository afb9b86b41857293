// The progress line: a goroutine with a ticker.
#include "tools/common/progress.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <weft/go.hpp>
#include <weft/select.hpp>
#include <weft/time.hpp>

namespace tools {

namespace {

constexpr auto kQuietFor = std::chrono::seconds(1);
constexpr auto kRedrawEvery = std::chrono::milliseconds(100);
constexpr int kBarWidth = 30;

}  // namespace

bool stderr_is_terminal() {
  const char* term = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && (term == nullptr || std::strcmp(term, "dumb") != 0);
}

void draw_line(const std::string& text) {
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
  std::fflush(stderr);
}

std::string progress_text(std::uint64_t done, std::uint64_t total) {
  if (total == 0) return std::to_string(done);
  if (done > total) done = total;
  double share = static_cast<double>(done) / static_cast<double>(total);
  int filled = static_cast<int>(share * kBarWidth);
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.append(static_cast<std::size_t>(kBarWidth - filled), '.');
  char text[128];
  std::snprintf(text, sizeof text, "[%s] %3.0f %%", bar.c_str(), share * 100);
  return text;
}

Progress::Progress(std::string what, std::uint64_t total)
    : text_([this, what = std::move(what), total] {
        return what + " " + progress_text(done_.load(std::memory_order_relaxed), total);
      }) {
  start();
}

Progress::Progress(std::function<std::string()> text) : text_(std::move(text)) { start(); }

void Progress::start() {
  if (!stderr_is_terminal()) return;
  stop_ = weft::make_chan<void>();
  stopped_ = weft::make_chan<void>();
  weft::go({.name = "progress"}, [this, stopped = stopped_] {
    bool drawn = false;
    std::chrono::nanoseconds pause = kQuietFor;
    while (weft::select(weft::recv(stop_), weft::timeout(pause)) == 1) {
      draw_line(text_());
      drawn = true;
      pause = kRedrawEvery;
    }
    if (drawn) draw_line("");
    stopped.close();  // the object may be gone
  });
}

Progress::~Progress() {
  if (!stop_) return;
  stop_.close();
  stopped_.recv();
}

}  // namespace tools
