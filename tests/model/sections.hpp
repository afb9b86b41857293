// Sections (weft/detail/section_cpu.hpp) and the barrier that undoes them (arch/section.hpp): a look, and a store that is not
// made if the barrier has come in between.
#pragma once

#include "tests/model/atomic.hpp"

namespace weft::model {

class Sections {
 public:
  /// `interrupted`: they may end without anybody's barrier.
  explicit Sections(bool interrupted) : interrupted_(interrupted) {}

  bool replace(int self, Atomic<std::uint32_t>& word, std::uint32_t from, std::uint32_t to) {
    cpu_[self] = -1 - self;
    begin(self);
    return end(self, peek(word) == from && goes_on() &&
                         word.commit([=](std::uint32_t) { return to; }, undone_[self], std::memory_order_release));
  }

  /// counts: one of 32 bits per CPU.
  bool count(int self, Atomic<int>& there, Atomic<std::uint64_t>& counts, int cpu, bool in) {
    if (!peek(there)) return false;
    cpu_[self] = cpu;
    begin(self);
    if (!there.load(std::memory_order_acquire) || !goes_on()) return end(self, false);
    // What another thread has stored on this CPU is there for this one.
    const std::uint64_t now = counts.look_and([] {}, std::memory_order_relaxed);
    if (!in && ((now >> cpu * 32) & 0xffffffff) == 0) return end(self, false);
    const std::uint64_t one = std::uint64_t{1} << cpu * 32;
    return end(self, counts.commit(
                         [=, this](std::uint64_t n) {
                           // Who was in a section on this CPU has been switched out.
                           for (int i = 0; i < kThreadsMax; i++) undone_[i] = undone_[i] || (i != self && in_[i] && cpu_[i] == cpu);
                           return in ? n + one : n - one;
                         },
                         undone_[self], std::memory_order_release));
  }

  /// After what sections look at has been changed. `stored`: what they store to.
  template <class T>
  void barrier(Atomic<T>& stored) {
    publish_fence();
    stored.look_and(
        [&] {
          for (int i = 0; i < kThreadsMax; i++) undone_[i] = undone_[i] || in_[i];
        },
        std::memory_order_acquire);
  }

 private:
  void begin(int self) {
    undone_[self] = false;
    in_[self] = true;
    publish_fence();  // whoever begins after a barrier sees what was before it
  }
  bool goes_on() const { return !(interrupted_ && choose(2)); }
  bool end(int self, bool done) {
    in_[self] = false;
    return done;
  }

  const bool interrupted_;
  bool in_[kThreadsMax] = {};
  bool undone_[kThreadsMax] = {};
  int cpu_[kThreadsMax] = {};
};

}  // namespace weft::model
