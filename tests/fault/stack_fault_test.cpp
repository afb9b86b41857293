// The kernel refuses the n-th call while stacks are made: null or a lower rung, one warning, nothing lost, and a working pool
// as soon as it stops refusing.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/internals.hpp"

namespace weft::rt {
namespace {

// TSan's fibers come with mappings of their own, which it keeps.
std::size_t count_mappings() {
  if (WEFT_TSAN) return 0;
  std::FILE* f = std::fopen("/proc/self/maps", "r");
  std::size_t n = 0;
  for (int c; (c = std::fgetc(f)) != EOF;) n += c == '\n';
  std::fclose(f);
  return n;
}

struct Outcome {
  std::size_t got = 0;
  std::size_t null = 0;
  std::size_t warnings = 0;
  std::vector<GuardKind> guards;
  bool started = true;
  std::string warning;
};

// Makes stacks of several classes and uses all of each, while a rule is in force.
Outcome scenario(const FaultRule& rule, GuardKind forced = GuardKind::Auto) {
  Outcome o;
  log_flush();
  set_log_sink([&](LogLevel, std::string_view text) {
    o.warnings++;
    o.warning = text;
  });
  fault_install({rule});
  o.started = stacks_start(forced);
  std::vector<StackSlot*> all;
  StackCache cache;
  if (o.started) {
    for (int i = 0; i < 40; i++) {
      const std::uint8_t cls = i % 10 == 9 ? kOwnMapping : i % 3 == 0 ? 1 : 2;
      StackSlot* s = stack_acquire(&cache, cls, 2 << 20);
      if (!s) {
        o.null++;
        continue;
      }
      o.got++;
      o.guards.push_back(s->guard);
      for (char* p = s->lo; p < s->hi; p += 4096) *p = 1;
      if (find_stack(s->lo) != s) o.null += 1000;
      all.push_back(s);
    }
    EXPECT_EQ(stack_stats().refused, o.null);
  }
  fault_restore();
  log_flush();
  set_log_sink({});
  if (o.started) {
    // What was refused is to be had now.
    for (const std::uint8_t cls : {std::uint8_t{0}, std::uint8_t{1}, std::uint8_t{2}, std::uint8_t{3}, kOwnMapping}) {
      StackSlot* s = stack_acquire(nullptr, cls, 2 << 20);
      EXPECT_NE(s, nullptr);
      if (s) all.push_back(s);
    }
    for (StackSlot* s : all) {
      s->owner.store(nullptr, std::memory_order_relaxed);
      stack_release(&cache, s);
    }
  }
  stacks_stop();
  EXPECT_EQ(stack_stats().carved, 0u);
  return o;
}

// Fails the n-th call of a kind, n = 1, 2, ... until the plan no longer hits.
template <class Check>
void each_call(Call call, int error, GuardKind forced, Check check, std::uint64_t in_a_row = 1) {
  const std::size_t mappings = count_mappings();
  std::uint64_t n = 1;
  for (; n < 1000; n++) {
    SCOPED_TRACE(std::string(call_name(call)) + " " + std::to_string(n));
    const Outcome o = scenario({call, n, n + in_a_row - 1, error}, forced);
    if (fault_hits(call) == 0) break;
    check(o, n);
  }
  EXPECT_GT(n, 1u) << call_name(call) << " was never called";
  EXPECT_LT(n, 1000u);
  EXPECT_LE(count_mappings(), mappings + 2);
}

TEST(StackFaults, TheNthMmapRefusedGivesNullOrASmallerReservation) {
  each_call(Call::Mmap, ENOMEM, GuardKind::Auto, [](const Outcome& o, std::uint64_t) {
    EXPECT_TRUE(o.started);
    EXPECT_GE(o.got, 38u);
    EXPECT_LE(o.warnings, 1u);
  });
}

TEST(StackFaults, MmapsRefusedInARowGiveNullOrASmallerReservation) {
  for (const std::uint64_t in_a_row : {2, 3, 5, 9})
    each_call(
        Call::Mmap, ENOMEM, GuardKind::Auto,
        [&](const Outcome& o, std::uint64_t) {
          EXPECT_TRUE(o.started);
          EXPECT_GE(o.got + in_a_row, 40u);
          EXPECT_LE(o.warnings, 1u);
        },
        in_a_row);
}

TEST(StackFaults, TheNthMadviseRefusedLowersOneStackByARungAndWarnsOnce) {
  bool warned = false;
  each_call(Call::Madvise, ENOMEM, GuardKind::Auto, [&](const Outcome& o, std::uint64_t) {
    EXPECT_TRUE(o.started);
    EXPECT_EQ(o.null, 0u);
    EXPECT_LE(o.warnings, 1u);
    warned |= o.warnings == 1;
  });
  EXPECT_TRUE(warned || guards_rung() != GuardKind::Install);
}

TEST(StackFaults, TheNthMprotectRefusedLeavesACanary) {
  each_call(Call::Mprotect, ENOMEM, GuardKind::Mprotect, [](const Outcome& o, std::uint64_t) {
    EXPECT_EQ(o.null, 0u);
    EXPECT_LE(o.warnings, 1u);
  });
}

TEST(StackFaults, TheNthIoctlRefusedOnTheHoleRungLeavesNoHalfFilledStack) {
  if (!stacks_start(GuardKind::Hole)) return;  // not in this kernel
  stacks_stop();
  each_call(Call::Ioctl, ENOMEM, GuardKind::Hole, [](const Outcome& o, std::uint64_t n) {
    EXPECT_EQ(o.started, n > 1);  // the first is the handshake: forced, so an error
    EXPECT_EQ(o.null, 0u);
    EXPECT_LE(o.warnings, 1u);
  });
}

TEST(StackFaults, EveryMmapRefusedGivesNullEachTime) {
  const Outcome o = scenario({Call::Mmap, 1, FaultRule::kForEver, ENOMEM});
  EXPECT_TRUE(o.started);
  EXPECT_EQ(o.got, 0u);
  EXPECT_EQ(o.null, 40u);
}

TEST(StackFaults, WithoutGuardInstallTheNextRungIsTaken) {
  const Outcome o = scenario({Call::Madvise, 1, FaultRule::kForEver, EINVAL});
  EXPECT_EQ(o.null, 0u);
  for (const GuardKind k : o.guards) EXPECT_TRUE(k == GuardKind::Hole || k == GuardKind::Mprotect) << guard_name(k);
}

TEST(StackFaults, WithoutUserfaultfdTheHoleIsNotToBeHad) {
  EXPECT_FALSE(scenario({Call::Userfaultfd, 1, FaultRule::kForEver, EPERM}, GuardKind::Hole).started);
}

TEST(StackFaults, WithoutMprotectCanariesStandInWithOneWarning) {
  const Outcome o = scenario({Call::Mprotect, 1, FaultRule::kForEver, ENOMEM}, GuardKind::Mprotect);
  EXPECT_EQ(o.null, 0u);
  for (const GuardKind k : o.guards) EXPECT_EQ(k, GuardKind::Canary);
  EXPECT_EQ(o.warnings, 1u);
  EXPECT_NE(o.warning.find("canary"), std::string::npos) << o.warning;
}

}  // namespace
}  // namespace weft::rt
