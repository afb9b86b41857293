// Runs the tests of a suite. One that does not end in WEFT_TEST_TIMEOUT seconds (120) is named and ended: SIGQUIT has the
// runtime dump its goroutines, then abort. By alarm, not by a thread: a thread that the runtime does not know would hold
// its deadlock report back.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

char running[256];
volatile sig_atomic_t overdue = 0;

void on_alarm(int) {
  if (overdue) abort();
  overdue = 1;
  static const char text[] = "\nno progress, the test hangs: ";
  [[maybe_unused]] ssize_t n = write(2, text, sizeof text - 1);
  n = write(2, running, strlen(running));
  n = write(2, "\n", 1);
  alarm(5);
  kill(getpid(), SIGQUIT);
}

class Watchdog : public testing::EmptyTestEventListener {
 public:
  explicit Watchdog(unsigned seconds) : seconds_(seconds) {}

  void OnTestStart(const testing::TestInfo& test) override {
    std::snprintf(running, sizeof running, "%s.%s", test.test_suite_name(), test.name());
    alarm(seconds_);
  }
  void OnTestEnd(const testing::TestInfo&) override { alarm(0); }

 private:
  unsigned seconds_;
};

}  // namespace

// A run whose caller's own thread is stuck in the kernel or in user code ends by _exit(), by design without joining the threads that
// have ended: TSan calls that a leak. That a Runtime leaves no thread behind is tested by counting them (golang/restart_test.cpp).
// libstdc++ counts the references to an exception in code that TSan does not see: whoever drops the last one
// seems to race with those who have read the exception and dropped theirs.
extern "C" const char* __tsan_default_suppressions() {
  return "thread:weft::arch::start_thread\nrace:std::__exception_ptr::exception_ptr::_M_release\nrace:std::logic_error::~logic_error\n";
}

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  struct sigaction action = {};
  action.sa_handler = on_alarm;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  const char* seconds = std::getenv("WEFT_TEST_TIMEOUT");
  testing::UnitTest::GetInstance()->listeners().Append(
      new Watchdog(seconds ? static_cast<unsigned>(std::atoi(seconds)) : 120));
  return RUN_ALL_TESTS();
}
