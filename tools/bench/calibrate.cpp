// What this machine takes for the parts of an operation: a context switch, a locked instruction, a
// sleeping thread and a page. Virtual machines drift by a factor of two within minutes; these rows
// show when.
//
// Orders: [turn] release in give(), acquire in take(): what one thread did is visible to the next.
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/context/detail/fcontext.hpp>
#include <climits>
#include <cstddef>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tools/bench/bench.hpp"

namespace bench {

namespace {

namespace ctx = boost::context::detail;

void echo(ctx::transfer_t t) {
  for (auto n = reinterpret_cast<std::uintptr_t>(t.data);;
       n = reinterpret_cast<std::uintptr_t>(t.data)) {
    t = ctx::jump_fcontext(t.fctx, reinterpret_cast<void*>(n + 1));
  }
}

// Op: a jump to a context and back.
void calib_switch(Bench& b) {
  constexpr std::size_t kStackBytes = 64 << 10;
  auto stack = std::make_unique<std::byte[]>(kStackBytes);
  ctx::transfer_t t{ctx::make_fcontext(stack.get() + kStackBytes, kStackBytes, echo), nullptr};
  std::uintptr_t n = 0;
  b.start();
  for (Int i = 0; i < b.n; i++) {
    t = ctx::jump_fcontext(t.fctx, reinterpret_cast<void*>(n));
    n = reinterpret_cast<std::uintptr_t>(t.data);
  }
  b.stop();
  b.check(n == static_cast<std::uintptr_t>(b.n), "%zu jumps, want %lld",
          static_cast<std::size_t>(n), as_ll(b.n));
}

// Op: a locked exchange in the own cache.
void calib_xchg(Bench& b) {
  std::atomic<Int> word{-1};
  Int wrong = 0;
  b.start();
  for (Int i = 0; i < b.n; i++) wrong += word.exchange(i) != i - 1;
  b.stop();
  b.check(wrong == 0, "%lld exchanges returned another value", as_ll(wrong));
}

struct Turn {
  std::atomic<std::uint32_t> word{0};

  void give(std::uint32_t to) {
    word.store(to, std::memory_order_release);  // [turn]
    ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
  }
  void take(std::uint32_t who) {
    for (;;) {
      std::uint32_t now = word.load(std::memory_order_acquire);  // [turn]
      if (now == who) return;
      ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, now, nullptr, nullptr, 0);
    }
  }
};

// Op: two threads wake each other, there and back.
void calib_futex(Bench& b) {
  Turn turn;
  Int answers = 0;
  std::thread other([&] {
    for (Int i = 0; i < b.n; i++) {
      turn.take(1);
      answers++;
      turn.give(0);
    }
  });
  b.start();
  for (Int i = 0; i < b.n; i++) {
    turn.give(1);
    turn.take(0);
  }
  b.stop();
  other.join();
  b.check(answers == b.n, "%lld answers, want %lld", as_ll(answers), as_ll(b.n));
}

// Op: the first touch of an anonymous page.
void calib_fault(Bench& b) {
  constexpr Int kPagesAtOnce = 16384;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::chrono::nanoseconds touching{0};
  Int wrong = 0;
  for (Int done = 0; done < b.n;) {
    Int pages = std::min(b.n - done, kPagesAtOnce);
    std::size_t bytes = static_cast<std::size_t>(pages) * page;
    void* map = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
      b.check(false, "mmap of %zu bytes refused", bytes);
      return;
    }
    ::madvise(map, bytes, MADV_NOHUGEPAGE);  // refused where the kernel has no huge pages: as good
    auto began = std::chrono::steady_clock::now();
    auto* at = static_cast<volatile char*>(map);
    for (Int i = 0; i < pages; i++) at[static_cast<std::size_t>(i) * page] = 1;
    touching += std::chrono::steady_clock::now() - began;
    wrong += at[bytes - page] != 1;
    ::munmap(map, bytes);
    done += pages;
  }
  b.set_elapsed(touching);
  b.check(wrong == 0, "pages lost what was written");
}

// Op: a read from the top of one of 100,000 stacks' worth of address space, in random order, each found by the one before: what a machine
// takes to come to anything that nobody has looked at for long.
void calib_cold_read(Bench& b) {
  constexpr std::size_t kStacks = 100'000, kStackBytes = 256 << 10;
  std::vector<std::size_t> order(kStacks);
  for (std::size_t i = 0; i < kStacks; i++) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(b.seed));
  void* map = ::mmap(nullptr, kStacks * kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) {
    b.check(false, "mmap of %zu bytes refused", kStacks * kStackBytes);
    return;
  }
  ::madvise(map, kStacks * kStackBytes, MADV_NOHUGEPAGE);  // refused where the kernel has no huge pages: as good
  auto top = [&](std::size_t k) {
    const std::size_t i = order[k % kStacks];
    return reinterpret_cast<void**>(static_cast<std::byte*>(map) + i * kStackBytes + i % 16 * 64);  // not all in the same sets of the cache
  };
  for (std::size_t k = 0; k < kStacks; k++) *top(k) = top(k + 1);
  void* at = top(0);
  b.start();
  for (Int i = 0; i < b.n; i++) at = *static_cast<void* volatile*>(at);
  b.stop();
  b.check(at == top(static_cast<std::size_t>(b.n) % kStacks), "the way was lost");
  ::munmap(map, kStacks * kStackBytes);
}

}  // namespace

const std::vector<Workload> kCalibrations = {
    {"CalibSwitch", 0, calib_switch},
    {"CalibXchg", 0, calib_xchg},
    {"CalibFutex", 0, calib_futex},
    {"CalibFault", 0, calib_fault},
    {"CalibColdRead", 1'000'000, calib_cold_read},
};

}  // namespace bench
