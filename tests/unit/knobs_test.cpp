// Knobs: what WEFT_* variables and Config accept, and how they say no.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/internals.hpp"

namespace weft::rt {
namespace {

/// Sets a variable for the length of a test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Variable() { ::unsetenv(name_); }

 private:
  const char* name_;
};

std::string complaint(const char* name, const char* value) {
  Variable v(name, value);
  Config c;
  std::string why;
  const std::error_code e = apply_env(c, &why);
  EXPECT_EQ(e, e ? make_error_code(Errc::bad_config) : std::error_code());
  return e ? why : "";
}

template <class T>
T applied(const char* name, const char* value, T Config::* member) {
  Variable v(name, value);
  Config c;
  std::string why;
  EXPECT_FALSE(apply_env(c, &why)) << why;
  return c.*member;
}

TEST(Knobs, EachVariableOverridesItsMember) {
  EXPECT_EQ(applied("WEFT_PROCS", "3", &Config::procs), 3);
  EXPECT_EQ(applied("WEFT_SEED", "18446744073709551615", &Config::seed), ~std::uint64_t{0});
  EXPECT_EQ(applied("WEFT_SEED", "0x10", &Config::seed), 16u);
  EXPECT_EQ(applied("WEFT_STACK_BYTES", "64K", &Config::stack_bytes), std::size_t{64} << 10);
  EXPECT_EQ(applied("WEFT_STACK_BYTES", "2MiB", &Config::stack_bytes), std::size_t{2} << 20);
  EXPECT_EQ(applied("WEFT_STACK_BYTES", "1g", &Config::stack_bytes), std::size_t{1} << 30);
  EXPECT_EQ(applied("WEFT_STACK_BYTES", "65536", &Config::stack_bytes), 65536u);
  EXPECT_EQ(applied("WEFT_GUARD", "canary", &Config::guard), Guard::Canary);
  EXPECT_EQ(applied("WEFT_HIBERNATE", "off", &Config::hibernate), Hibernate::Off);
  EXPECT_EQ(applied("WEFT_THREADS_MAX", "10", &Config::threads_max), 10);
  EXPECT_EQ(applied("WEFT_DETACHED_MAX", "0", &Config::detached_max), 0);
  EXPECT_EQ(applied("WEFT_BLOCKING_MAX", "1", &Config::blocking_max), 1);
  EXPECT_EQ(applied("WEFT_DEBUG", "leaks", &Config::debug), "leaks");
  EXPECT_EQ(applied("WEFT_TRACEBACK", "all", &Config::traceback), Traceback::All);
  EXPECT_EQ(applied("WEFT_TRACEBACK", "2", &Config::traceback), Traceback::System);
}

TEST(Knobs, RefusalsAreOneLineThatNamesTheVariableAndWhatItWants) {
  EXPECT_EQ(complaint("WEFT_PROCS", "abc"), "weft: WEFT_PROCS=abc: want a number from 1 to 1024");
  EXPECT_EQ(complaint("WEFT_PROCS", "0"), "weft: WEFT_PROCS=0: want a number from 1 to 1024");
  EXPECT_EQ(complaint("WEFT_GUARD", "perhaps"), "weft: WEFT_GUARD=perhaps: want one of auto, install, hole, mprotect, canary");
  EXPECT_EQ(complaint("WEFT_TRACEBACK", "loud"), "weft: WEFT_TRACEBACK=loud: want one of none, single, all, system, crash");
  EXPECT_EQ(complaint("WEFT_DEBUG", "leaks,nonsense"), "weft: WEFT_DEBUG=leaks,nonsense: want a comma-separated list of leaks hogs preemptoff preemptsignal tls nocgroup fixedprocs copytraps stacks sameturns");
  EXPECT_EQ(complaint("WEFT_STACK_BYTES", "a\nb").find('\n'), std::string::npos);
}

TEST(Knobs, OutOfRangeAndMalformedValuesAreRefused) {
  for (const char* v : {"-1", "1025", "2x", " ", "1 ", "99999999999999999999", "+1", "0x", "1.5"})
    EXPECT_NE(complaint("WEFT_PROCS", v), "") << v;
  for (const char* v : {"lots", "-5", "0", "2G", "64Q", "64KB2", "K", "18446744073709551615G"})
    EXPECT_NE(complaint("WEFT_STACK_BYTES", v), "") << v;
  for (const char* v : {"abc", "-1", "18446744073709551616"}) EXPECT_NE(complaint("WEFT_SEED", v), "") << v;
  for (const char* name : {"WEFT_HIBERNATE", "WEFT_THREADS_MAX", "WEFT_DETACHED_MAX", "WEFT_BLOCKING_MAX"})
    EXPECT_NE(complaint(name, "nonsense"), "") << name;
}

TEST(Knobs, EmptyAndUnknownVariablesAreIgnored) {
  EXPECT_EQ(complaint("WEFT_PROCS", ""), "");
  EXPECT_EQ(complaint("WEFT_SOMETHING_ELSE", "x"), "");
}

TEST(Knobs, UseEnvFalseIgnoresTheEnvironment) {
  Variable v("WEFT_PROCS", "nonsense");
  Config c;
  c.use_env = false;
  c.procs = 5;
  std::string why;
  EXPECT_FALSE(apply_env(c, &why)) << why;
  EXPECT_EQ(c.procs, 5);
}

TEST(Knobs, AConfigOutOfRangeIsRefusedWithItsMember) {
  auto refused = [](auto change) {
    Config c;
    change(c);
    std::string why;
    EXPECT_EQ(check_config(c, &why), make_error_code(Errc::bad_config));
    return why;
  };
  EXPECT_EQ(refused([](Config& c) { c.procs = -1; }), "weft: Config::procs=-1: want a number from 0 to 1024");
  EXPECT_EQ(refused([](Config& c) { c.stack_bytes = 0; }), "weft: Config::stack_bytes=0: want a size from 1 to 1G");
  EXPECT_NE(refused([](Config& c) { c.threads_max = 0; }), "");
  EXPECT_NE(refused([](Config& c) { c.guard = static_cast<Guard>(99); }), "");
  EXPECT_NE(refused([](Config& c) { c.hibernate = static_cast<Hibernate>(99); }), "");
  EXPECT_NE(refused([](Config& c) { c.traceback = static_cast<Traceback>(99); }), "");
  EXPECT_NE(refused([](Config& c) { c.debug = "leek"; }), "");
  EXPECT_FALSE(check_config(Config{}, nullptr));
}

TEST(Knobs, DebugIsAListOfWords) {
  Config c;
  EXPECT_FALSE(debug_has(c, "leaks"));
  c.debug = " leaks ,";
  EXPECT_TRUE(debug_has(c, "leaks"));
  EXPECT_FALSE(debug_has(c, "leak"));
}

// ---- the plan of failing kernel calls ------------------------------------------------------------------------------

TEST(Fault, APlanIsReadFromItsText) {
  std::vector<FaultRule> rules;
  std::string why;
  ASSERT_TRUE(fault_parse("mmap:3:ENOMEM,pthread_create:1-:EAGAIN,epoll_ctl:2-4:28", &rules, &why)) << why;
  ASSERT_EQ(rules.size(), 3u);
  EXPECT_EQ(rules[0].call, Call::Mmap);
  EXPECT_EQ(rules[0].first, 3u);
  EXPECT_EQ(rules[0].last, 3u);
  EXPECT_EQ(rules[0].error, ENOMEM);
  EXPECT_EQ(rules[1].last, FaultRule::kForEver);
  EXPECT_EQ(rules[2].last, 4u);
  EXPECT_EQ(rules[2].error, 28);
  for (const char* bad : {"mmap", "mmap:1", "nmap:1:ENOMEM", "mmap:0:ENOMEM", "mmap:4-3:ENOMEM", "mmap:1:EWHAT", "mmap:x:1"}) {
    EXPECT_FALSE(fault_parse(bad, &rules, &why)) << bad;
    EXPECT_NE(why.find(bad), std::string::npos) << why;
  }
  EXPECT_TRUE(fault_parse("", &rules, &why));
  EXPECT_TRUE(rules.empty());
}

TEST(Fault, ExactlyTheCallsOfThePlanFailAndTheRestAreReal) {
  fault_install({{.call = Call::Eventfd, .first = 2, .last = 3, .error = EMFILE},
                 {.call = Call::Mmap, .first = 1, .last = 1, .error = ENOMEM},
                 {.call = Call::PthreadCreate, .first = 1, .last = FaultRule::kForEver, .error = EAGAIN}});
  for (int n = 1; n <= 4; n++) {
    errno = 0;
    const int fd = arch::kernel.eventfd(0, 0);
    if (n == 2 || n == 3) {
      EXPECT_EQ(fd, -1);
      EXPECT_EQ(errno, EMFILE);
    } else {
      EXPECT_GE(fd, 0);
      ::close(fd);
    }
  }
  EXPECT_EQ(arch::kernel.mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), MAP_FAILED);
  void* p = arch::kernel.mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(p, MAP_FAILED);
  EXPECT_EQ(arch::kernel.munmap(p, 4096), 0);
  pthread_t t;
  EXPECT_EQ(arch::kernel.pthread_create(&t, nullptr, nullptr, nullptr), EAGAIN);
  EXPECT_EQ(fault_calls(Call::Eventfd), 4u);
  EXPECT_EQ(fault_hits(Call::Eventfd), 2u);
  EXPECT_EQ(fault_calls(Call::Munmap), 1u);
  EXPECT_EQ(fault_hits(Call::Munmap), 0u);
  fault_restore();
  EXPECT_EQ(arch::kernel.mmap, arch::kRealKernel.mmap);
}

TEST(Fault, EveryCallHasAWrapperAndAName) {
  fault_install({});
  const auto* wrapped = reinterpret_cast<void* const*>(&arch::kernel);
  const auto* real = reinterpret_cast<void* const*>(&arch::kRealKernel);
  ASSERT_EQ(sizeof arch::kernel / sizeof(void*), kCalls) << "a call was added to arch::Kernel";
  for (std::size_t i = 0; i < kCalls; i++) {
    EXPECT_NE(wrapped[i], real[i]) << call_name(static_cast<Call>(i));
    for (std::size_t j = 0; j < i; j++)
      EXPECT_STRNE(call_name(static_cast<Call>(i)), call_name(static_cast<Call>(j)));
  }
  fault_restore();
}

// ---- the log -------------------------------------------------------------------------------------------------------

class Log : public testing::Test {
 protected:
  void SetUp() override {
    log_flush();
    set_log_sink([this](LogLevel level, std::string_view text) {
      levels.push_back(level);
      lines.emplace_back(text);
    });
  }
  void TearDown() override { set_log_sink({}); }
  std::vector<LogLevel> levels;
  std::vector<std::string> lines;
};

TEST_F(Log, WaitsForAFlushAndKeepsItsOrder) {
  log_warn("one %d", 1);
  log_at(LogLevel::Info, "two");
  EXPECT_TRUE(lines.empty());
  log_flush();
  EXPECT_EQ(lines, (std::vector<std::string>{"one 1", "two"}));
  EXPECT_EQ(levels[1], LogLevel::Info);
  log_flush();
  EXPECT_EQ(lines.size(), 2u);
}

TEST_F(Log, CountsWhatAFullRingLost) {
  for (int i = 0; i < 100; i++) log_warn("%d", i);
  log_flush();
  ASSERT_EQ(lines.size(), 65u);
  EXPECT_EQ(lines[0], "0");
  EXPECT_EQ(lines[63], "63");
  EXPECT_EQ(lines[64], "36 log messages lost");
}

TEST_F(Log, ASinkMayLogAndMayThrow) {
  int calls = 0;
  set_log_sink([&](LogLevel, std::string_view) {
    if (++calls == 1) {
      log_warn("from the sink");
      log_flush();
      throw std::runtime_error("no");
    }
  });
  testing::internal::CaptureStderr();
  log_warn("first");
  log_flush();
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "weft: the log sink failed: no\n");
}

TEST_F(Log, GoesToStderrByDefault) {
  set_log_sink({});
  testing::internal::CaptureStderr();
  log_warn("a warning");
  log_flush();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "weft: a warning\n");
}

}  // namespace
}  // namespace weft::rt
