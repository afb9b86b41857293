// Runs a piece of a test in a process of its own and hands back how that process ended.
//
// Protocol   child(body) starts this binary again with a filter for the running test and
// TEST_CHILD=<n>, n being how
//            many times the test called child() before. There the test runs up to its n-th call,
//            which runs the body and leaves with its result; the calls before it return an empty
//            Child. So a body is an ordinary lambda of the test, and what a test does before its
//            child() calls must bear being done twice.
// Rejected   fork() without exec: the sanitizers' and the runtime's threads do not survive it.
//            A registry of named functions: the name would stand in two places.
//            gtest's death tests: they give no exit status and stderr together, and no time limit.
// Env        Variables that begin with WEFT_, GTEST_ or TEST_ are not inherited; `env` adds to what
// is left.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace weft::test {

struct ChildOptions {
  std::vector<std::string> env{};  // "NAME=value"
  std::chrono::seconds limit{60};  // then SIGQUIT for its dump, then SIGKILL
  bool close_stderr = false;       // start it without descriptor 2
  bool ends_early = false;         // it is to end before it comes to its body
};

struct Child {
  bool ran = false;  // false: this process is a child on its way to a later call
  int status = -1;   // exit status, -1 if a signal ended it
  int signal = 0;    // the signal that ended it, or 0
  bool timed_out = false;
  std::string out;  // stdout since the body began
  std::string err;
  std::chrono::milliseconds took{0};

  bool says(std::string_view text) const { return err.find(text) != std::string::npos; }
  /// How often `text` stands in stderr.
  int count(std::string_view text) const;
  /// The first line of stderr that begins with `prefix`, without its newline; empty if there is
  /// none.
  std::string line(std::string_view prefix) const;
  /// The block of stderr from the goroutine header that holds `text` to the next empty line.
  std::string goroutine(std::string_view text) const;
  /// For `EXPECT_...(...) << c.report()`.
  std::string report() const;
};

/// Runs `body` in a child process; its result is the exit status. Call it from a test's own body,
/// outside a runtime.
Child child(const std::function<int()>& body, const ChildOptions& options = {});

/// The same for a body without a result: exit status 0 when it returns.
template <class F>
requires std::is_void_v<std::invoke_result_t<F&>> Child child(F body,
                                                              const ChildOptions& options = {}) {
  return child(std::function<int()>([&body] {
                 body();
                 return 0;
               }),
               options);
}

/// Whether this process is such a child: no watchdog thread may be started in one, since a thread
/// that the runtime does not know holds its deadlock report back.
bool in_child();

}  // namespace weft::test
