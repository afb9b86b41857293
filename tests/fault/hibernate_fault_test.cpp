// The kernel refuses what hibernation asks for: goroutines do not notice.
#include <string>
#include <vector>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

/// Goroutines that keep something on their stacks while they are parked for long, three times. 0: all found it again.
int parks_and_looks() {
  int bad = 0;
  run(
      [&] {
        constexpr int kMany = 40;
        auto gate = make_chan<void>();
        auto ok = make_chan<bool>();
        std::printf("%s\n", capabilities().hibernate.c_str());
        for (int i = 0; i < kMany; i++)
          go([=] {
            volatile int mark[20];
            for (int& m : const_cast<int(&)[20]>(mark)) m = i;
            bool same = true;
            for (int round = 0; round < 3; round++) {
              (void)gate.recv();
              for (const volatile int& m : mark) same = same && m == i;
            }
            ok.send(same);
          });
        for (int round = 0; round < 3; round++) {
          sleep_for(40ms);
          for (int i = 0; i < kMany; i++) gate.send();
        }
        for (int i = 0; i < kMany; i++) bad += *ok.recv() ? 0 : 1;
      },
      {.procs = 2, .hibernate = Hibernate::On, .hibernate_after = 5ms});
  return bad;
}

TEST(HibernateFault, WithoutUserfaultfdEverythingElseWorks) {
  const Child c = child(parks_and_looks, {.env = {"WEFT_FAULT=userfaultfd:1-:EPERM"}});
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_EQ(c.out, kAsan || kTsan ? "off: a sanitizer watches the stacks\n" : "off: userfaultfd is refused\n") << c.report();
  EXPECT_EQ(c.count("stacks are not hibernated"), 1) << c.report();
}

TEST(HibernateFault, OnAKernelThatCannotMovePages) {
  const Child c = child(parks_and_looks, {.env = {"WEFT_FAULT=ioctl:1-:EINVAL"}});
  EXPECT_EQ(c.status, 0) << c.report();
  EXPECT_EQ(c.out.rfind("off: ", 0), 0u) << c.report();
}

TEST(HibernateFault, AnyOneCallMayFail) {
  for (int n = 1; n <= 60; n += 1 + n / 12) {
    for (const char* call : {"ioctl:", "userfaultfd:", "pthread_create:", "membarrier:"}) {
      if (n > 6 && call[0] != 'i') continue;  // of these there are few
      const Child c = child(parks_and_looks, {.env = {"WEFT_FAULT=" + std::string(call) + std::to_string(n) + ":ENOMEM"}});
      EXPECT_EQ(c.status, 0) << call << n << c.report();
    }
  }
}

}  // namespace
}  // namespace weft::test
