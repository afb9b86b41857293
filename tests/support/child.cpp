// The two ends of a child process: starting and watching it, and being it.
#include "tests/support/child.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern char** environ;

namespace weft::test {
namespace {

using Clock = std::chrono::steady_clock;

// What the child prints before its body: everything up to it on stdout is gtest's.
constexpr std::string_view kMark =
    "\x01"
    "body\n";

// How many calls the running test has made; another test, or the same one repeated, starts at 0.
struct Counted {
  std::string test;
  testing::TimeInMillis started = 0;
  int calls = 0;
};

int child_index() {
  const char* s = std::getenv("TEST_CHILD");
  return s ? std::atoi(s) : -1;
}

Counted& counted_for_this_test() {
  static Counted c;
  const testing::TestInfo* info = testing::UnitTest::GetInstance()->current_test_info();
  std::string test;
  if (info) test = std::string(info->test_suite_name()) + "." + info->name();
  const testing::TimeInMillis started = info ? info->result()->start_timestamp() : 0;
  if (c.test != test || c.started != started) c = {test, started, 0};
  return c;
}

bool begins(std::string_view s, std::string_view prefix) {
  return s.substr(0, prefix.size()) == prefix;
}

std::vector<std::string> child_env(const ChildOptions& options, int index) {
  std::vector<std::string> env;
  for (char** e = environ; *e; e++) {
    const std::string_view s = *e;
    if (!begins(s, "WEFT_") && !begins(s, "GTEST_") && !begins(s, "TEST_") &&
        !begins(s, "TESTBRIDGE_"))
      env.emplace_back(s);
  }
  env.push_back("TEST_CHILD=" + std::to_string(index));
  // Of two equal names the first counts. A child that calls exit() leaves the test around it
  // unfinished.
  const char* asan = std::getenv("ASAN_OPTIONS");
  env.insert(env.begin(), "ASAN_OPTIONS=" + std::string(asan ? asan : "") + ":detect_leaks=0");
  for (const std::string& s : options.env) env.push_back(s);
  return env;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

// Appends what is there to read; false at the end of the stream.
bool drain(int fd, std::string& to) {
  char buf[16384];
  const ssize_t n = ::read(fd, buf, sizeof buf);
  if (n > 0) to.append(buf, static_cast<size_t>(n));
  return n > 0 || (n < 0 && errno == EINTR);
}

[[noreturn]] void be_child(const std::function<int()>& body) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a line counts as said, however the process ends
  std::fwrite(kMark.data(), 1, kMark.size(), stdout);
  std::fflush(stdout);
  const int status = body();
  std::fflush(stdout);
  std::fflush(stderr);
  // Not exit(): goroutines that a body leaves parked are its subject, not a leak.
  ::_exit(status);
}

}  // namespace

bool in_child() { return child_index() >= 0; }

int Child::count(std::string_view text) const {
  int n = 0;
  for (size_t at = err.find(text); at != std::string::npos; at = err.find(text, at + text.size()))
    n++;
  return n;
}

std::string Child::line(std::string_view prefix) const {
  for (size_t at = 0; at < err.size();) {
    const size_t end = std::min(err.find('\n', at), err.size());
    const std::string_view l = std::string_view(err).substr(at, end - at);
    if (begins(l, prefix)) return std::string(l);
    at = end + 1;
  }
  return {};
}

std::string Child::goroutine(std::string_view text) const {
  for (size_t at = err.find("goroutine "); at != std::string::npos;
       at = err.find("\ngoroutine ", at + 1)) {
    const size_t start = err[at] == '\n' ? at + 1 : at;
    const size_t eol = std::min(err.find('\n', start), err.size());
    if (std::string_view(err).substr(start, eol - start).find(text) == std::string_view::npos)
      continue;
    return err.substr(start, std::min(err.find("\n\n", start), err.size()) - start);
  }
  return {};
}

std::string Child::report() const {
  std::string s = "\nchild: ";
  if (timed_out) s += "timed out, ";
  s += signal ? "signal " + std::to_string(signal) : "exit status " + std::to_string(status);
  s += " after " + std::to_string(took.count()) + " ms\n--- stdout\n" + out + "\n--- stderr\n";
  constexpr size_t kMost = 12000;
  s += err.size() <= kMost
           ? err
           : err.substr(0, kMost / 2) + "\n[...]\n" + err.substr(err.size() - kMost / 2);
  return s + "\n---\n";
}

Child child(const std::function<int()>& body, const ChildOptions& options) {
  Counted& c = counted_for_this_test();
  const int index = c.calls++;
  if (in_child()) {
    if (index == child_index()) be_child(body);
    return {};
  }

  Child result;
  result.ran = true;
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) {
    ADD_FAILURE() << "pipe2: " << std::strerror(errno);
    return result;
  }
  std::vector<std::string> args{"/proc/self/exe", "--gtest_filter=" + c.test, "--gtest_color=no",
                                "--gtest_brief=1", "--gtest_also_run_disabled_tests"};
  std::vector<std::string> env = child_env(options, index);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  if (options.close_stderr)
    posix_spawn_file_actions_addclose(&actions, 2);
  else
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);

  const Clock::time_point began = Clock::now();
  pid_t pid = 0;
  // A shell that runs the tests in the background has them ignore these.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGINT);
  sigaddset(&defaults, SIGQUIT);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  const int rc = ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, pointers(args).data(),
                               pointers(env).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  ::close(out[1]);
  ::close(err[1]);
  if (rc != 0) {
    ADD_FAILURE() << "posix_spawn: " << std::strerror(rc);
    ::close(out[0]);
    ::close(err[0]);
    return result;
  }

  pollfd fds[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  std::string* const texts[2] = {&result.out, &result.err};
  Clock::time_point deadline = began + options.limit;
  for (int open = 2; open > 0;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) {
      ::kill(pid, result.timed_out ? SIGKILL : SIGQUIT);
      result.timed_out = true;
      deadline = Clock::now() + std::chrono::seconds(3);
      continue;
    }
    if (::poll(fds, 2, static_cast<int>(left.count()) + 1) <= 0) continue;
    for (int i = 0; i < 2; i++) {
      if (fds[i].fd < 0 || fds[i].revents == 0) continue;
      if (!drain(fds[i].fd, *texts[i])) {
        fds[i].fd = -1;
        open--;
      }
    }
  }
  ::close(out[0]);
  ::close(err[0]);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  result.took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began);
  if (WIFEXITED(status)) result.status = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  if (const size_t at = result.out.find(kMark); at != std::string::npos)
    result.out.erase(0, at + kMark.size());
  else if (!options.ends_early)
    ADD_FAILURE() << "the child never came to its body" << result.report();
  EXPECT_FALSE(result.timed_out) << result.report();
  for (const char* finding :
       {"ThreadSanitizer: data race", "AddressSanitizer: heap-", "AddressSanitizer: stack-use-"})
    EXPECT_FALSE(result.says(finding)) << result.report();
  return result;
}

}  // namespace weft::test
