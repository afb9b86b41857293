// Growable stacks: classes, caches, guards on each rung, who lies where, and that a stop leaves nothing behind.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/internals.hpp"

namespace weft::rt {
namespace {

constexpr bool kSanitized = WEFT_TSAN || WEFT_ASAN;

G* some_owner(std::size_t i = 0) { return reinterpret_cast<G*>(0x1000 + i * 64); }

// TSan's fibers come with mappings of their own, which it keeps.
std::size_t count_mappings() {
  if (WEFT_TSAN) return 0;
  std::FILE* f = std::fopen("/proc/self/maps", "r");
  std::size_t n = 0;
  for (int c; (c = std::fgetc(f)) != EOF;) n += c == '\n';
  std::fclose(f);
  return n;
}

// Bytes of /proc/self/status, a line like "VmRSS:   123 kB".
std::size_t status_bytes(const char* field) {
  std::FILE* f = std::fopen("/proc/self/status", "r");
  char line[256];
  std::size_t kib = 0;
  while (std::fgets(line, sizeof line, f))
    if (std::strncmp(line, field, std::strlen(field)) == 0) kib = std::strtoull(line + std::strlen(field) + 1, nullptr, 10);
  std::fclose(f);
  return kib << 10;
}

std::size_t count_fds() {
  std::size_t n = 0;
  for (int fd = 0; fd < 256; fd++) n += ::fcntl(fd, F_GETFD) >= 0;
  return n;
}

// Whether a write to `p` faults. The handler stays for the test only.
sigjmp_buf fault_jump;
volatile sig_atomic_t fault_signal;
void on_fault(int signo) {
  fault_signal = signo;
  siglongjmp(fault_jump, 1);
}
WEFT_NO_SANITIZE int write_faults(char* p) {
  struct sigaction a = {}, old[2];
  a.sa_handler = on_fault;
  sigaction(SIGSEGV, &a, &old[0]);
  sigaction(SIGBUS, &a, &old[1]);
  fault_signal = 0;
  if (sigsetjmp(fault_jump, 1) == 0) *const_cast<volatile char*>(p) = 1;
  sigaction(SIGSEGV, &old[0], nullptr);
  sigaction(SIGBUS, &old[1], nullptr);
  return fault_signal;
}

class Stacks : public testing::TestWithParam<GuardKind> {
 protected:
  void SetUp() override {
    if (!stacks_start(GetParam())) {
      had_it_ = false;
      // Only these two depend on the kernel.
      ASSERT_TRUE(GetParam() == GuardKind::Install || GetParam() == GuardKind::Hole);
    }
  }
  void TearDown() override { stacks_stop(); }
  bool had_it_ = true;
};

#define NEEDS_RUNG() \
  if (!had_it_) return

TEST_P(Stacks, AreWritableFromTopToLowestByteAndGuardedBelow) {
  NEEDS_RUNG();
  for (unsigned c = 0; c < kStackClasses; c++) {
    const auto cls = static_cast<std::uint8_t>(c);
    StackSlot* s = stack_acquire(nullptr, cls, 0);
    ASSERT_NE(s, nullptr);
    EXPECT_EQ(s->guard, GetParam());
    EXPECT_EQ(s->bytes(), kStackClassBytes[c] - kStackGuardBytes[c]);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(s->hi) % 4096, 0u);
    std::memset(s->lo, 0x5a, s->bytes());
    if (GetParam() == GuardKind::Canary) {
      EXPECT_TRUE(canary_intact(s));
    } else {
      EXPECT_NE(write_faults(s->lo - 1), 0);
      EXPECT_NE(write_faults(s->bottom()), 0);
      EXPECT_EQ(write_faults(s->lo), 0);
    }
    stack_release(nullptr, s);
  }
}

TEST_P(Stacks, AboveTheLargestClassAreMappingsOfTheirOwn) {
  NEEDS_RUNG();
  const std::size_t before = count_mappings();
  StackSlot* s = stack_acquire(nullptr, stack_class((8 << 20) - 100), (8 << 20) - 100);
  ASSERT_NE(s, nullptr);
  EXPECT_EQ(s->cls, kOwnMapping);
  EXPECT_EQ(s->bytes(), 8u << 20);
  s->lo[0] = s->hi[-1] = 1;
  if (GetParam() != GuardKind::Canary) {
    EXPECT_NE(write_faults(s->lo - 1), 0);
    EXPECT_NE(write_faults(s->bottom()), 0);
  }
  EXPECT_EQ(find_stack(s->lo - 1), s);
  EXPECT_EQ(find_stack(s->bottom()), s);
  EXPECT_EQ(find_stack(s->bottom() - 1), nullptr);
  EXPECT_EQ(find_stack(s->hi), nullptr);
  const char* lo = s->lo;
  stack_release(nullptr, s);
  EXPECT_EQ(find_stack(lo), nullptr);
  stacks_stop();
  EXPECT_LE(count_mappings(), before);
}

TEST_P(Stacks, AreFoundByAnyAddressInThemOrTheirGuard) {
  NEEDS_RUNG();
  std::vector<StackSlot*> all;
  for (int i = 0; i < 200; i++) all.push_back(stack_acquire(nullptr, static_cast<std::uint8_t>(i % kStackClasses), 0));
  for (StackSlot* s : all) {
    ASSERT_NE(s, nullptr);
    for (char* p : {s->bottom(), s->lo - 1, s->lo, s->lo + 1000, s->hi - 1}) {
      EXPECT_EQ(find_stack(p), s);
      EXPECT_EQ(in_guard(s, p), p < s->lo);
      EXPECT_TRUE(in_stack_memory(p));
    }
    EXPECT_NE(find_stack(s->hi), s);
    EXPECT_FALSE(in_guard(s, s->hi));
  }
  int local = 0;
  EXPECT_EQ(find_stack(&local), nullptr);
  EXPECT_FALSE(in_stack_memory(&local));
  EXPECT_EQ(find_stack(nullptr), nullptr);
  for (StackSlot* s : all) stack_release(nullptr, s);
}

TEST_P(Stacks, OfAStoppedPoolLeaveNothingBehindInAThousandRestarts) {
  NEEDS_RUNG();
  const int rounds = kSanitized || GetParam() == GuardKind::Hole ? 100 : 1000;
  std::size_t mappings = 0, bytes = 0, fds = 0;
  for (int i = 0; i < rounds; i++) {
    ASSERT_TRUE(stacks_start(GetParam()));
    StackCache cache;
    StackSlot* held[8];
    for (int k = 0; k < 8; k++) {
      held[k] = k == 7 ? stack_acquire(&cache, kOwnMapping, 8 << 20) : stack_acquire(&cache, k & 1 ? 2 : 1, 0);
      held[k]->owner.store(some_owner(), std::memory_order_relaxed);
      held[k]->hi[-1] = 1;
    }
    for (StackSlot* s : held) stack_release(&cache, s);
    stacks_stop();
    if (i == 10) {
      mappings = count_mappings();
      bytes = status_bytes("VmRSS:") + status_bytes("VmPTE:");
      fds = count_fds();
    }
  }
  EXPECT_LE(count_mappings(), mappings);
  EXPECT_LE(status_bytes("VmRSS:") + status_bytes("VmPTE:"), bytes + (kSanitized ? 8 << 20 : 512 << 10));
  EXPECT_LE(count_fds(), fds);
}

TEST_P(Stacks, StillBoundAtTheStopKeepTheirBytesAndTheOthersAreUsedAgain) {
  NEEDS_RUNG();
  StackSlot* kept = stack_acquire(nullptr, 2, 0);
  StackSlot* own = stack_acquire(nullptr, kOwnMapping, 4 << 20);
  StackSlot* other = stack_acquire(nullptr, 2, 0);
  ASSERT_TRUE(kept && own && other);
  kept->owner.store(some_owner(1), std::memory_order_relaxed);
  own->owner.store(some_owner(2), std::memory_order_relaxed);
  kept->hi[-1] = own->hi[-1] = other->hi[-1] = 77;
  char* const other_top = other->hi;
  stack_release(nullptr, other);
  std::size_t mappings = 0;
  for (int i = 0; i < 50; i++) {
    stacks_stop();
    if (i == 1) mappings = count_mappings();
    EXPECT_EQ(kept->hi[-1], 77);
    EXPECT_EQ(own->hi[-1], 77);
    EXPECT_EQ(find_stack(kept->lo), kept);
    EXPECT_EQ(find_stack(own->lo), own);
    ASSERT_TRUE(stacks_start(GetParam()));
    std::set<StackSlot*> seen;
    bool again = false;
    for (int k = 0; k < 31; k++) {
      StackSlot* s = stack_acquire(nullptr, 2, 0);
      ASSERT_NE(s, nullptr);
      EXPECT_NE(s, kept);
      EXPECT_TRUE(seen.insert(s).second);
      if (s->hi == other_top) {
        again = true;
        EXPECT_EQ(s->hi[-1], 0);  // its pages were given back
        s->hi[-1] = 77;
      }
    }
    EXPECT_TRUE(again);
    if (GetParam() != GuardKind::Canary) {
      EXPECT_NE(write_faults(kept->lo - 1), 0);
    }
    EXPECT_EQ(stack_stats().carved, 33u);
    for (StackSlot* s : seen) stack_release(nullptr, s);
  }
  EXPECT_LE(count_mappings(), mappings + 2);
  stack_release(nullptr, kept);
  stack_release(nullptr, own);
  stacks_stop();
  EXPECT_EQ(stack_stats().carved, 0u);
}

INSTANTIATE_TEST_SUITE_P(Rung, Stacks,
                         testing::Values(GuardKind::Install, GuardKind::Hole, GuardKind::Mprotect, GuardKind::Canary),
                         [](const auto& info) { return std::string(guard_name(info.param)); });

TEST(StackPool, GivesTheClassThatHoldsTheBytes) {
  EXPECT_EQ(stack_class(0), 0);
  EXPECT_EQ(stack_class(16 << 10), 0);
  EXPECT_EQ(stack_class((16 << 10) + 1), 1);
  EXPECT_EQ(stack_class(64 << 10), 1);
  EXPECT_EQ(stack_class(256 << 10), 2);
  EXPECT_EQ(stack_class((256 << 10) + 1), 3);
  EXPECT_EQ(stack_class(1 << 20), 3);
  EXPECT_EQ(stack_class((1 << 20) + 1), kOwnMapping);
}

TEST(StackPool, ACacheHandsOutItsHottestFirst) {
  ASSERT_TRUE(stacks_start(GuardKind::Auto));
  StackCache cache;
  StackSlot* a = stack_acquire(&cache, 2, 0);
  StackSlot* b = stack_acquire(&cache, 2, 0);
  EXPECT_NE(a, b);
  stack_release(&cache, b);
  stack_release(&cache, a);
  EXPECT_EQ(stack_acquire(&cache, 2, 0), a);
  EXPECT_EQ(stack_acquire(&cache, 2, 0), b);
  stack_release(&cache, a);
  stack_release(&cache, b);
  stacks_stop();
}

TEST(StackPool, ReleaseClearsTheOwner) {
  ASSERT_TRUE(stacks_start(GuardKind::Auto));
  StackCache cache;
  StackSlot* s = stack_acquire(&cache, 2, 0);
  s->owner.store(some_owner(), std::memory_order_relaxed);
  EXPECT_EQ(stack_stats().bound, 1u);
  stack_release(&cache, s);
  EXPECT_EQ(s->owner.load(std::memory_order_relaxed), nullptr);
  EXPECT_EQ(stack_stats().bound, 0u);
  stacks_stop();
}

TEST(StackPool, AFullCacheGivesItsColdHalfToTheOthers) {
  ASSERT_TRUE(stacks_start(GuardKind::Auto));
  StackCache mine, theirs;
  std::vector<StackSlot*> all;
  for (unsigned i = 0; i < StackCache::kCapacity + 1; i++) all.push_back(stack_acquire(nullptr, 2, 0));
  const std::size_t carved = stack_stats().carved;
  for (StackSlot* s : all) stack_release(&mine, s);
  EXPECT_EQ(mine.count, StackCache::kCapacity / 2 + 1);
  // The coldest were released first; they come from the central list without a new one being carved.
  StackSlot* got = stack_acquire(&theirs, 2, 0);
  EXPECT_NE(std::find(all.begin(), all.begin() + StackCache::kCapacity / 2, got), all.begin() + StackCache::kCapacity / 2);
  EXPECT_EQ(theirs.count, StackCache::kCapacity / 2 - 1);
  EXPECT_EQ(stack_stats().carved, carved);
  EXPECT_EQ(stack_acquire(&mine, 2, 0), all.back());
  stack_flush(&mine, 2);
  EXPECT_EQ(mine.count, 0u);
  stacks_stop();
}

TEST(StackPool, ThreadsShareItWithoutEverSharingAStack) {
  ASSERT_TRUE(stacks_start(GuardKind::Auto));
  constexpr int kThreads = 4;
  const int rounds = kSanitized ? 300 : 5000;
  std::atomic<int> shared{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++)
    threads.emplace_back([&, t] {
      StackCache cache;
      std::vector<StackSlot*> held;
      unsigned x = static_cast<unsigned>(t) * 2654435761u + 1;
      for (int i = 0; i < rounds; i++) {
        x = x * 1664525u + 1013904223u;
        if (held.size() < 150 && (x >> 16) % 5 < 3) {
          const std::uint8_t cls = (x >> 24) % 8 == 0 ? 1 : 2;
          StackSlot* s = (x >> 20) % 64 == 0 ? stack_acquire(nullptr, kOwnMapping, 2 << 20) : stack_acquire(&cache, cls, 0);
          if (s->owner.exchange(some_owner(static_cast<std::size_t>(t)), std::memory_order_relaxed)) shared++;
          if (find_stack(s->hi - 8) != s) shared++;
          held.push_back(s);
        } else if (!held.empty()) {
          StackSlot* s = held[x % held.size()];
          std::swap(held[x % held.size()], held.back());
          held.pop_back();
          stack_release(&cache, s);
        }
      }
      for (StackSlot* s : held) stack_release(&cache, s);
      stack_flush(&cache, 2);
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(shared, 0);
  EXPECT_EQ(stack_stats().bound, 0u);
  stacks_stop();
  EXPECT_EQ(stack_stats().carved, 0u);
}

// Bytes and mappings of many stacks that each ran a little, as parked goroutines do.
void many_guarded_stacks(GuardKind rung, std::size_t n) {
  if (!stacks_start(rung)) return;
  const std::size_t mappings = count_mappings();
  const std::size_t bytes = status_bytes("VmRSS:") + status_bytes("VmPTE:");
  StackCache cache;
  std::vector<StackSlot*> all(n);
  for (StackSlot*& s : all) {
    s = stack_acquire(&cache, 2, 0);
    ASSERT_NE(s, nullptr);
    ASSERT_EQ(s->guard, rung);
    std::memset(s->hi - 600, 1, 600);
  }
  const std::size_t each = (status_bytes("VmRSS:") + status_bytes("VmPTE:") - bytes) / n;
  std::printf("%zu stacks, %s: %zu bytes each\n", n, guard_name(rung), each);
  if (!kSanitized) {
    EXPECT_LE(count_mappings(), mappings + 16);
    // A page, 64 page-table entries, the slot, the pointer here.
    EXPECT_LE(each, 4096u + 512 + sizeof(StackSlot) + 8 + 64);
  }
  EXPECT_NE(write_faults(all[n / 2]->lo - 1), 0);
  EXPECT_NE(write_faults(all[n - 1]->bottom()), 0);
  for (StackSlot* s : all) stack_release(&cache, s);
  stacks_stop();
}

TEST(StackPool, ManyGuardedStacksNeedNoMappingsByInstall) { many_guarded_stacks(GuardKind::Install, kSanitized ? 1000 : 100'000); }
TEST(StackPool, ManyGuardedStacksNeedNoMappingsByHole) { many_guarded_stacks(GuardKind::Hole, kSanitized ? 500 : 20'000); }

// Run by `tools/test.sh --long`.
TEST(StackPool, DISABLED_AMillionGuardedStacksByInstall) { many_guarded_stacks(GuardKind::Install, 1'000'000); }
TEST(StackPool, DISABLED_AMillionGuardedStacksByHole) { many_guarded_stacks(GuardKind::Hole, 1'000'000); }

TEST(StackPool, MprotectGivesWayToCanariesBeforeMappingsRunOut) {
  if (kSanitized) return;  // 25,100 fibers
  ASSERT_TRUE(stacks_start(GuardKind::Mprotect));
  std::vector<StackSlot*> all(kMprotectMax + 100);
  std::size_t canaries = 0;
  testing::internal::CaptureStderr();
  for (StackSlot*& s : all) {
    s = stack_acquire(nullptr, 0, 0);
    ASSERT_NE(s, nullptr);
    canaries += s->guard == GuardKind::Canary;
  }
  testing::internal::GetCapturedStderr();
  EXPECT_GE(canaries, 100u);
  EXPECT_LE(canaries, 164u);
  for (StackSlot* s : all) stack_release(nullptr, s);
  stacks_stop();
}

}  // namespace
}  // namespace weft::rt
