// Where a report goes: straight to stderr, into a string, or both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/emit.hpp"

namespace weft::rt {

class Sink {
 public:
  virtual void write(const char* text, std::size_t n) = 0;
  /// Nothing more is wanted.
  virtual bool full() const { return false; }

  Sink& operator<<(std::string_view text) {
    write(text.data(), text.size());
    return *this;
  }
  void dec(std::uint64_t v);
  void hex(std::uint64_t v);  // with 0x
  /// In double quotes, with what is not printable as escapes: Go's %q.
  void quoted(std::string_view text);
  /// Each newline is followed by a tab, as Go prints values of several lines.
  void indented(std::string_view text);

 protected:
  ~Sink() = default;
};

/// To stderr, a few kilobytes at a time. No allocation.
class EmitSink final : public Sink {
 public:
  EmitSink() = default;
  EmitSink(const EmitSink&) = delete;
  EmitSink& operator=(const EmitSink&) = delete;
  ~EmitSink() { flush(); }

  void write(const char* text, std::size_t n) override {
    if (copy_) copy_->append(text, n);
    if (n > sizeof buffer_ - used_) flush();
    if (n > sizeof buffer_) {
      emit(text, n);
      return;
    }
    for (std::size_t i = 0; i < n; i++) buffer_[used_ + i] = text[i];
    used_ += n;
  }
  void flush() {
    if (used_) emit(buffer_, used_);
    used_ = 0;
  }
  /// Also into `copy` from now on.
  void tee(std::string* copy) { copy_ = copy; }

 private:
  char buffer_[2048];
  std::size_t used_ = 0;
  std::string* copy_ = nullptr;
};

class StringSink final : public Sink {
 public:
  explicit StringSink(std::string* out, std::size_t most = std::size_t{64} << 20) : out_(out), most_(most) {}
  void write(const char* text, std::size_t n) override {
    if (!full()) out_->append(text, n);
  }
  bool full() const override { return out_->size() >= most_; }

 private:
  std::string* out_;
  std::size_t most_;
};

}  // namespace weft::rt
