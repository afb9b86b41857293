// Stack overflow on a bare stack, without a scheduler: what is reported, and what is left to others.
#include <alloca.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/child.hpp"
#include "tests/support/internals.hpp"

// What overflows; not in weft::rt, whose frames reports leave out.
namespace user {

volatile int deep_enough = 1 << 30;

WEFT_NOINLINE int recurse(int n) {
  volatile char frame[200];
  frame[0] = static_cast<char>(n);
  if (n >= deep_enough) return 0;
  return recurse(n + 1) + frame[0];
}
void by_recursion() { recurse(0); }

WEFT_NOINLINE int wide(int n) {
  volatile char frame[1 << 20];
  for (std::size_t i = 0; i < sizeof frame; i += 4096) frame[i] = static_cast<char>(n);
  if (n >= deep_enough) return 0;
  return wide(n + 1) + frame[0];
}
void by_a_wide_frame() { wide(0); }

WEFT_NOINLINE int print(int n) {
  char text[64];
  std::snprintf(text, sizeof text, "%f", n * 1.5);
  return n >= deep_enough ? 0 : print(n + 1) + text[0];
}
void by_printf() { print(0); }

int compare(const void* a, const void* b) {
  recurse(0);
  return *static_cast<const int*>(a) - *static_cast<const int*>(b);
}
void by_qsort() {
  int v[3] = {3, 1, 2};
  std::qsort(v, 3, sizeof v[0], compare);
}

struct Deep {
  ~Deep() { recurse(0); }
};
void by_unwinding() {
  try {
    Deep d;
    throw std::runtime_error("x");
  } catch (const std::exception&) {
  }
}

// Overflows inside malloc, with its lock held if the room is right.
inline std::size_t room_left = 0;
WEFT_NOINLINE void allocate(char* volatile* out) {
  for (std::size_t n = 100'000; n < 120'000; n += 16) *out = static_cast<char*>(std::malloc(n));
}
WEFT_NOINLINE void by_malloc() {
  char* volatile p = static_cast<char*>(std::malloc(1));  // binds the symbol, which takes kilobytes
  std::free(p);
  const char* lo = weft::rt::find_stack(__builtin_frame_address(0))->lo;
  char* here = static_cast<char*>(alloca(16));
  volatile char* used = static_cast<volatile char*>(alloca(static_cast<std::size_t>(here - lo) - room_left));
  used[0] = 1;
  allocate(&p);
}

}  // namespace user

namespace weft::rt {
namespace {

using test::Child;
using test::child;

// What the runtime would be: a thread that is an M, and a goroutine on a stack.
struct Machine {
  M m;
  G g;
  void* signal_stack = nullptr;
  void (*body)() = nullptr;
  std::atomic<int> handed_over{0};  // a switch alone orders nothing for TSan

  explicit Machine(std::uint64_t id = 7, const char* name = nullptr) {
    arch::set_current_m(&m);
    signal_stack = arch::install_signal_stack();
    m.curg = &m.g0;
    g.id = id;
    g.parent = 1;
    if (name) {
      g.extra = new GExtra;
      g.extra->spawn.name = name;
    }
    g.site = reinterpret_cast<const char*>(&user::recurse) + 1;
    arch::san_adopt_thread(m.g0.san);
  }
  ~Machine() {
    arch::remove_signal_stack(signal_stack);
    arch::set_current_m(nullptr);
    delete g.extra;
  }

  static void entry(arch::Transfer t) {
    WEFT_MARK_ENTRY;
    enter(t);
  }
  static void enter(arch::Transfer t) {
    auto* self = static_cast<Machine*>(t.data);
    self->handed_over.load(std::memory_order_acquire);
    arch::san_finish_switch(self->g.stack->san);
    self->m.g0.ctx = t.from;
    self->m.curg = &self->g;
    self->body();
    self->m.curg = &self->m.g0;
    self->handed_over.store(2, std::memory_order_release);
    const arch::Context to = self->m.g0.ctx;
    arch::san_start_switch(self->g.stack->san, self->m.g0.san, true);
    arch::switch_context(to, nullptr);
  }

  /// Runs f on the goroutine's stack.
  void run(StackSlot* s, void (*f)()) {
    body = f;
    g.stack = s;
    s->owner.store(&g, std::memory_order_relaxed);
    arch::san_fresh_stack(s->san, s->lo, s->bytes());
    arch::Context c = arch::make_context(s->hi, s->bytes(), entry);
    handed_over.store(1, std::memory_order_release);
    arch::san_start_switch(m.g0.san, s->san, false);
    arch::switch_context(c, this);
    arch::san_finish_switch(m.g0.san);
    handed_over.load(std::memory_order_acquire);
  }
};

// Runs f to its overflow, on a stack of the class with neighbours below.
int overflow_in(void (*f)(), std::size_t bytes, GuardKind guard = GuardKind::Auto, const char* name = nullptr) {
  if (!stacks_start(guard)) return 77;
  if (!overflow_install()) return 78;
  Machine machine(7, name);
  StackSlot* s = nullptr;
  for (int i = 0; i < 6; i++) s = stack_acquire(nullptr, stack_class(bytes), bytes);
  machine.run(s, f);
  return 0;
}

using namespace user;

void expect_report(const Child& c, const std::string& limit) {
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.count("runtime: goroutine stack exceeds " + limit + "-byte limit\nfatal error: stack overflow\n\n"), 1)
      << c.report();
  EXPECT_EQ(c.count("goroutine 7 "), 1) << c.report();
  EXPECT_EQ(c.count("of " + limit + " bytes, sp=0x"), 1) << c.report();
  EXPECT_EQ(c.count("created by "), 1) << c.report();
}

TEST(Overflow, OfEachClassIsReportedWithTheGoroutine) {
  for (const std::size_t bytes : {16u << 10, 64u << 10, 256u << 10, 1u << 20, 8u << 20})
    expect_report(child([&] { return overflow_in(by_recursion, bytes); }), std::to_string(bytes));
}

TEST(Overflow, OnEachRungIsReportedWithItsName) {
  for (const GuardKind guard : {GuardKind::Install, GuardKind::Hole, GuardKind::Mprotect}) {
    const Child c = child([&] { return overflow_in(by_recursion, 64 << 10, guard); });
    if (c.status == 77) continue;  // not in this kernel
    expect_report(c, "65536");
    EXPECT_TRUE(!c.ran || c.says(std::string("guard ") + guard_name(guard))) << c.report();
  }
}

TEST(Overflow, ByAFrameOfAMebibyteIsCaughtWithStackClashProtection) {
  expect_report(child([] { return overflow_in(by_a_wide_frame, 256 << 10); }), "262144");
  expect_report(child([] { return overflow_in(by_a_wide_frame, 8 << 20); }), "8388608");
}

TEST(Overflow, InsidePrintfIsReported) {
  expect_report(child([] { return overflow_in(by_printf, 64 << 10); }), "65536");
}

TEST(Overflow, InACallbackOfQsortIsReported) {
  expect_report(child([] { return overflow_in(by_qsort, 64 << 10); }), "65536");
}

TEST(Overflow, WhileUnwindingIsReported) {
  expect_report(child([] { return overflow_in(by_unwinding, 64 << 10); }), "65536");
}

TEST(Overflow, InsideMallocIsReportedThoughItsLockIsHeld) {
  for (const std::size_t room : {48, 144, 192, 240, 288, 336})
    expect_report(child([&] {
                    room_left = room;
                    std::thread([] { pause(); }).detach();  // else malloc takes no lock
                    return overflow_in(by_malloc, 64 << 10);
                  }),
                  "65536");
}

TEST(Overflow, ShowsTheInnermostAndOutermostFramesAndHowManyBetween) {
  const Child c = child([] { return overflow_in(by_recursion, 256 << 10, GuardKind::Auto, "deep"); });
  if (!c.ran) return;
  EXPECT_TRUE(c.says("goroutine 7 \"deep\" [running]: growable stack [0x")) << c.report();
  EXPECT_TRUE(c.says("to give it more: weft::go({.stack_bytes = 524288}, ...)")) << c.report();
  EXPECT_EQ(c.count(" frames elided...\n"), 1) << c.report();
}

TEST(Overflow, ThatJumpsIntoAStrangersGuardNamesWhoJumped) {
  const Child c = child([] {
    return overflow_in(
        [] {
          G* stranger = reinterpret_cast<G*>(0x10);  // never looked into
          StackSlot* mine = find_stack(__builtin_frame_address(0));
          StackSlot* theirs = find_stack(mine->lo - 600'000);
          theirs->owner.store(stranger, std::memory_order_relaxed);
          *const_cast<volatile char*>(theirs->lo - 1) = 1;
        },
        256 << 10);
  });
  expect_report(c, "262144");
}

TEST(Overflow, OfAnMsOwnStackIsReportedOnce) {
  const Child c = child([] {
    if (!stacks_start(GuardKind::Auto) || !overflow_install()) return 78;
    std::thread([] {
      Machine machine;
      recurse(0);
    }).join();
    return 0;
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.count("fatal error: stack overflow"), 1) << c.report();
  EXPECT_TRUE(c.says("runtime: the stack of thread ")) << c.report();
}

TEST(Overflow, OfTwoAtOnceIsReportedOnce) {
  const Child c = child([] {
    if (!stacks_start(GuardKind::Auto) || !overflow_install()) return 78;
    std::atomic<int> there{0};
    const auto go = [&](std::uint64_t id) {
      Machine machine(id);
      there++;
      while (there < 4) {
      }
      machine.run(stack_acquire(nullptr, 2, 0), by_recursion);
    };
    std::vector<std::thread> threads;
    for (std::uint64_t id = 1; id <= 4; id++) threads.emplace_back(go, id);
    for (std::thread& t : threads) t.join();
    return 0;
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.count("fatal error: stack overflow"), 1) << c.report();
}

TEST(Overflow, UnderACanaryIsFoundWhenTheGoroutineEnds) {
  const Child c = child([] {
    if (!stacks_start(GuardKind::Canary) || !overflow_install()) return 78;
    Machine machine(7, "late");
    StackCache cache;
    StackSlot* s = nullptr;
    for (int i = 0; i < 3; i++) s = stack_acquire(&cache, 2, 0);
    // Over the canary and, no further than the guard would reach, back.
    machine.run(s, [] {
      StackSlot* mine = find_stack(__builtin_frame_address(0));
      *const_cast<volatile char*>(mine->lo - 100) = 1;
    });
    stack_release(&cache, s);
    return 0;
  });
  if (!c.ran) return;
  EXPECT_EQ(c.status, 2) << c.report();
  EXPECT_EQ(c.count("fatal error: stack overflow"), 1) << c.report();
  EXPECT_TRUE(c.says("goroutine 7 \"late\" [running]: growable stack")) << c.report();
  EXPECT_TRUE(c.says("guard canary")) << c.report();
}

// --- what is not an overflow ---

volatile char* volatile wild = reinterpret_cast<volatile char*>(0x40);

TEST(Faults, OfAGoroutineThatAreNoOverflowEndTheProcessAsIfWeWereNotThere) {
  if (WEFT_ASAN || WEFT_TSAN) return;  // their handlers make it an exit status
  const Child c = child([] { return overflow_in([] { *wild = 1; }, 256 << 10); });
  if (!c.ran) return;
  EXPECT_EQ(c.signal, SIGSEGV) << c.report();
  EXPECT_FALSE(c.says("overflow")) << c.report();
}

TEST(Faults, SentByKillKeepTheirDefaultAction) {
  if (WEFT_ASAN || WEFT_TSAN) return;
  for (const int signo : {SIGSEGV, SIGBUS}) {
    const Child c = child([&] {
      overflow_install();
      std::raise(signo);
      return 0;
    });
    if (c.ran) {
      EXPECT_EQ(c.signal, signo) << c.report();
    }
  }
}

TEST(Faults, GoToTheHandlerThatWasThereBefore) {
  const Child c = child([] {
    struct sigaction a = {};
    a.sa_flags = SA_SIGINFO;
    a.sa_sigaction = [](int signo, siginfo_t* info, void*) { _exit(signo == SIGSEGV && info->si_addr == wild ? 33 : 34); };
    sigaction(SIGSEGV, &a, nullptr);
    return overflow_in([] { *wild = 1; }, 256 << 10);
  });
  if (c.ran) {
    EXPECT_EQ(c.status, 33) << c.report();
  }
}

TEST(Faults, FindTheFormerHandlersAfterRemoval) {
  struct sigaction before = {}, after = {};
  sigaction(SIGSEGV, nullptr, &before);
  for (int i = 0; i < 3; i++) {
    ASSERT_TRUE(overflow_install());
    overflow_remove();
  }
  sigaction(SIGSEGV, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

TEST(Faults, PassThroughWhenAnotherHandlerCameOnTop) {
  const Child c = child([] {
    static struct sigaction ours;
    overflow_install();
    struct sigaction a = {};
    a.sa_flags = SA_SIGINFO | SA_NODEFER;
    a.sa_sigaction = [](int signo, siginfo_t* info, void* uc) {
      static int times = 0;
      if (++times > 1) _exit(35);
      ours.sa_sigaction(signo, info, uc);
    };
    sigaction(SIGSEGV, &a, &ours);
    overflow_remove();
    overflow_install();
    *wild = 1;
    return 0;
  });
  if (!c.ran || WEFT_ASAN || WEFT_TSAN) return;
  EXPECT_EQ(c.signal, SIGSEGV) << c.report();
}

TEST(SignalStack, RestoresWhatWasThere) {
  stack_t before{}, during{}, after{};
  sigaltstack(nullptr, &before);
  void* p = arch::install_signal_stack();
  ASSERT_NE(p, nullptr);
  sigaltstack(nullptr, &during);
  EXPECT_GE(during.ss_size, arch::kSignalStackBytes - 4096);
  EXPECT_NE(during.ss_sp, before.ss_sp);
  arch::remove_signal_stack(p);
  sigaltstack(nullptr, &after);
  EXPECT_EQ(before.ss_sp, after.ss_sp);
  EXPECT_EQ(before.ss_flags, after.ss_flags);
}

}  // namespace
}  // namespace weft::rt
