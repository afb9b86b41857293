// Tracebacks: what is kept of a deep stack, how it is printed, and that a parked context's frames are found in code with and
// without frame pointers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/internals.hpp"

namespace weft::rt {

// ---- a stack of known functions, parked at its innermost one -------------------------------------------------------

namespace walk_test {

arch::Context back = nullptr;
int depth_wanted = 0;

__attribute__((noinline)) void innermost() {
  arch::Transfer t = arch::switch_context(back, nullptr);
  back = t.from;
  asm volatile("");
}

__attribute__((noinline)) int descend(int n) {
  volatile char frame[64];
  frame[n % 64] = static_cast<char>(n);
  if (n == 0)
    innermost();
  else
    (void)descend(n - 1);
  return frame[n % 64];
}

// As most programs' libraries are built.
#if defined(__clang__)
__attribute__((noinline)) int
#else
__attribute__((noinline, optimize("omit-frame-pointer"))) int
#endif
without_frame_pointer(int n) {
  volatile long a = n, b = n + 1, c = n + 2;
  (void)descend(n);
  return static_cast<int>(a + b + c);
}

int compare(const void* a, const void*) {
  static bool parked = false;
  if (!std::exchange(parked, true)) (void)without_frame_pointer(depth_wanted);
  return *static_cast<const int*>(a);
}

// Through libc, which has no frame pointers.
__attribute__((noinline)) void through_qsort() {
  int v[3] = {3, 2, 1};
  std::qsort(v, 3, sizeof v[0], compare);
  asm volatile("");
}

void entry(arch::Transfer t) {
  WEFT_MARK_ENTRY;
  back = t.from;
  through_qsort();
  arch::switch_context(back, nullptr);
  __builtin_unreachable();
}

}  // namespace walk_test

namespace {

#if WEFT_ASAN || WEFT_TSAN
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

bool take(std::uintptr_t pc, bool exact, void* arg) {
  static_cast<Frames*>(arg)->add(pc, exact);
  return true;
}

std::vector<std::string> functions_of(const FrameList& list) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < list.kept; i++)
    for (const SourceFrame& f : symbolize(list.pcs[i]).frames) names.push_back(f.function);
  return names;
}

std::size_t count(const std::vector<std::string>& names, const char* part) {
  return static_cast<std::size_t>(
      std::count_if(names.begin(), names.end(), [&](const std::string& n) { return n.find(part) != std::string::npos; }));
}

TEST(Walk, FindsTheFramesOfAParkedContextAlsoThroughCodeWithoutFramePointers) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers must be told of each switch";
  ASSERT_TRUE(arch::probe_context_layout());
  std::vector<char> memory(256 << 10);
  char* top = memory.data() + memory.size();
  top -= reinterpret_cast<std::uintptr_t>(top) % 64;
  walk_test::depth_wanted = 5;
  arch::Context ctx = arch::make_context(top, 250 << 10, walk_test::entry);
  ctx = arch::switch_context(ctx, nullptr).from;

  arch::FrameRules* rules = arch::new_frame_rules();
  for (const bool checked : {false, true}) {
    for (int round = 0; round < 2; round++) {  // the second finds the rules learnt
      Frames frames;
      arch::walk_from(arch::saved_regs(ctx), false,
                      {reinterpret_cast<std::uintptr_t>(memory.data()), reinterpret_cast<std::uintptr_t>(top), checked}, rules, take,
                      &frames);
      const std::vector<std::string> names = functions_of(frames.list());
      EXPECT_GE(count(names, "innermost"), 1u);
      EXPECT_EQ(count(names, "descend"), 6u);
      EXPECT_EQ(count(names, "without_frame_pointer"), 1u);
      EXPECT_EQ(count(names, "compare"), 1u);
      EXPECT_EQ(count(names, "through_qsort"), 1u);
      EXPECT_EQ(names.back().find("walk_test::entry") != std::string::npos, true) << names.back();
    }
  }
  arch::delete_frame_rules(rules);
  arch::switch_context(ctx, nullptr);
}

TEST(Walk, StaysWithinTheBoundsItIsGiven) {
  std::uintptr_t junk[64];
  for (std::size_t i = 0; i < 64; i++) junk[i] = reinterpret_cast<std::uintptr_t>(&junk[(i * 7) % 64]);
  const auto lo = reinterpret_cast<std::uintptr_t>(junk);
  const auto code = reinterpret_cast<std::uintptr_t>(&walk_test::through_qsort) + 4;
  for (std::size_t i = 0; i < 64; i++) {
    Frames frames;
    arch::walk_from({code, lo + 8 * i, lo + 8 * ((i * 5) % 64)}, false, {lo, lo + sizeof junk, false}, nullptr, take, &frames);
    EXPECT_LE(frames.count, 64u);
  }
  Frames none;
  arch::walk_from({0, lo, lo}, false, {lo, lo + sizeof junk, false}, nullptr, take, &none);
  EXPECT_EQ(none.count, 0u);
}

TEST(Walk, CheckedReadsOfUnmappedMemoryFailAndDoNotFault) {
  char c = 0;
  EXPECT_FALSE(arch::read_checked(reinterpret_cast<const void*>(16), &c, 1));
  const char x = 'x';
  EXPECT_TRUE(arch::read_checked(&x, &c, 1));
  EXPECT_EQ(c, 'x');
}

TEST(Walk, OwnStackBeginsWithTheCaller) {
  Frames frames;
  collect_own_frames(&frames);
  const std::vector<std::string> names = functions_of(frames.list());
  EXPECT_EQ(count(names, "Walk_OwnStackBeginsWithTheCaller_Test::TestBody"), 1u);
  EXPECT_EQ(std::count(names.begin(), names.end(), "main(...)"), 1);
}

TEST(Frames, KeepTheInnermostAndTheOutermost) {
  for (const std::size_t n : {1u, 100u, 143u, 144u, 145u, 216u, 217u, 1000u}) {
    Frames frames;
    for (std::size_t i = 1; i <= n; i++) frames.add(i * 16, true);
    const FrameList list = frames.list();
    EXPECT_EQ(list.count, n);
    EXPECT_EQ(list.kept, std::min<std::size_t>(n, 2 * kFramesKept));
    EXPECT_EQ(list.kept + list.elided(), n);
    for (std::size_t i = 0; i < list.kept; i++) {
      const std::size_t at = i < kFramesKept ? i + 1 : n - list.kept + i + 1;
      EXPECT_EQ(list.pcs[i], at * 16) << n << " frames, number " << i;
    }
  }
}

TEST(Frames, AReturnAddressIsShownAsTheCallBeforeIt) {
  Frames frames;
  frames.add(100, false);
  frames.add(200, true);
  EXPECT_EQ(frames.list().pcs[0], 99u);
  EXPECT_EQ(frames.list().pcs[1], 200u);
}

std::string printed(std::size_t n) {
  Frames frames;
  const auto here = reinterpret_cast<std::uintptr_t>(&walk_test::through_qsort) + 1;
  for (std::size_t i = 0; i < n; i++) frames.add(here, true);
  std::string text;
  StringSink out(&text);
  print_frames(out, frames.list(), {.system = true});
  return text;
}

TEST(Traceback, PrintsAtMostAHundredFramesAndSaysHowManyAreMissing) {
  auto lines = [](const std::string& s) { return std::count(s.begin(), s.end(), '\n'); };
  EXPECT_EQ(lines(printed(100)), 200);
  EXPECT_EQ(printed(100).find("elided"), std::string::npos);
  EXPECT_EQ(lines(printed(101)), 201);
  EXPECT_NE(printed(101).find("\n...1 frames elided...\n"), std::string::npos);
  EXPECT_NE(printed(5000).find("\n...4900 frames elided...\n"), std::string::npos);
  EXPECT_EQ(lines(printed(5000)), 201);
}

TEST(Traceback, AFrameIsAFunctionLineAndAnIndentedPlace) {
  const std::string text = printed(1);
  const std::size_t end = text.find('\n');
  EXPECT_EQ(text.substr(0, end), "weft::rt::walk_test::through_qsort(...)");
  EXPECT_EQ(text[end + 1], '\t');
  if (symbols_available()) {
    EXPECT_NE(text.find("traceback_test.cpp:"), std::string::npos) << text;
  }
}

TEST(Traceback, HeadersAreGosWithNameAndLabels) {
  auto header = [](G& g, const char* state) {
    std::string text;
    StringSink out(&text);
    print_header(out, &g, state, {});
    return text;
  };
  G g;
  g.id = 17;
  g.status.store(GStatus::Waiting, memory_order_relaxed);
  g.reason = WaitReason::ChanReceive;
  EXPECT_EQ(header(g, "running"), "goroutine 17 [running]:\n");
  GExtra extra;
  extra.spawn.name = "the \"reader\"\n";
  extra.spawn.labels = {{"conn", "7"}, {"peer", "a b"}};
  g.extra = &extra;
  EXPECT_EQ(header(g, "running"),
            "goroutine 17 \"the \\\"reader\\\"\\n\" [running labels:{\"conn\": \"7\", \"peer\": \"a b\"}]:\n");
  extra.spawn.labels.clear();
  extra.spawn.name.clear();
  g.since = 0;
  sched.started_at = arch::clock_now() - std::int64_t{12} * 60'000'000'000 - 1'000'000'000;
  EXPECT_EQ(header(g, nullptr), "goroutine 17 [chan receive, 12 minutes]:\n");
  sched.started_at = arch::clock_now() - 59'000'000'000;
  EXPECT_EQ(header(g, nullptr), "goroutine 17 [chan receive]:\n");
  alignas(M) char thread[sizeof(M)];
  extra.locked_m = reinterpret_cast<M*>(thread);
  EXPECT_EQ(header(g, nullptr), "goroutine 17 [chan receive, locked to thread]:\n");
  EXPECT_EQ(header(g, "running"), "goroutine 17 [running, locked to thread]:\n");
  g.extra = nullptr;
}

TEST(Sink, NumbersQuotesAndIndentation) {
  std::string text;
  StringSink out(&text);
  out.dec(0);
  out << " ";
  out.dec(~std::uint64_t{0});
  out << " ";
  out.hex(0xbeef);
  out << " ";
  out.quoted("a\t\"\\\x01");
  out << " ";
  out.indented("one\ntwo\n");
  EXPECT_EQ(text, "0 18446744073709551615 0xbeef \"a\\t\\\"\\\\\\x01\" one\n\ttwo\n\t");
}

TEST(Sink, AStringIsCutAtItsLimit) {
  std::string text;
  StringSink out(&text, 10);
  for (int i = 0; i < 100; i++) out << "12345";
  EXPECT_TRUE(out.full());
  EXPECT_EQ(text.size(), 10u);
}

}  // namespace
}  // namespace weft::rt
