// The tests of scopes, those of their guarantees G1-G10 among them (scope_test.cpp, scope_wait_test.cpp), each over many
// schedules: in a process of its own, whose goroutines give way at random where they enter the runtime and whose threads are
// held up at its schedule points.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/child.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

std::vector<std::string> tests_of_scopes() {
  std::vector<std::string> all;
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  for (int i = 0; i < tests.total_test_suite_count(); i++) {
    const testing::TestSuite& suite = *tests.GetTestSuite(i);
    const std::string name = suite.name();
    if (name != "Scope" && name != "ScopeWait") continue;
    for (int k = 0; k < suite.total_test_count(); k++) all.push_back(name + "." + suite.GetTestInfo(k)->name());
  }
  return all;
}

TEST(Schedules, EachGuaranteeHoldsUnderPerturbedOnes) {
#ifdef NDEBUG
  GTEST_SKIP() << "schedule points are in builds with checks only";
#endif
  if (schedules().first) GTEST_SKIP() << "this is such a process";
  const std::vector<std::string> names = tests_of_scopes();
  for (const char* guarantee : {"G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10"}) {
    bool there = false;
    for (const std::string& name : names) {
      const std::string own = name.substr(name.find('.') + 1);
      there |= own.rfind(guarantee, 0) == 0 && !std::isdigit(static_cast<unsigned char>(own[std::strlen(guarantee)]));
    }
    EXPECT_TRUE(there) << guarantee << " has no test";
  }
  char self[4096] = "";
  ASSERT_GT(::readlink("/proc/self/exe", self, sizeof self - 1), 0);
  for (const std::string& name : names) {
    ::alarm(300);  // the watchdog's, of main.cpp
    // A stop that leaves somebody behind waits for a second before it gives up.
    const bool slow = name.find(".G10") != std::string::npos;
    const std::string range = "1-" + std::to_string(slow ? scaled(5, 2) : scaled(300, 10));
    const std::string command = "WEFT_TEST_TIMEOUT=200 WEFT_TEST_SCHEDULES=" + range + " '" + self + "' --gtest_filter=" + name + " 2>&1";
    std::FILE* out = ::popen(command.c_str(), "r");
    ASSERT_NE(out, nullptr);
    std::string text;
    char part[4096];
    for (size_t n; (n = std::fread(part, 1, sizeof part, out)) > 0;) text.append(part, n);
    EXPECT_EQ(::pclose(out), 0) << command << "\n" << text;
    EXPECT_NE(text.find("[  PASSED  ] 1 test."), std::string::npos) << command << "\n" << text;
  }
}

// What the test above rests on: with one P and without a wait nobody gives way but by such a choice; and a seed decides which.
TEST(Schedules, AreDifferentFromSeedToSeedAndTheSameForOne) {
#ifdef NDEBUG
  GTEST_SKIP() << "schedule points are in builds with checks only";
#else
  auto order = [](uint64_t seed, bool perturbed = true) {
    std::string turns;
    in_run({1, seed}, [&] {
      rt::perturb(perturbed ? seed : 0);
      WaitGroup wg;
      for (char name : {'a', 'b', 'c'})
        wg.go([&turns, name] {
          for (int i = 0; i < 20; i++) {
            turns += name;
            make_chan<int>(1).try_send(1);
          }
        });
      wg.wait();
      rt::perturb(0);
    });
    return turns;
  };
  const std::string calm = order(1, false);
  EXPECT_EQ(std::count(calm.begin(), calm.end(), 'a'), 20);
  int different = 0, same = 0;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    const std::string once = order(seed);
    different += once != calm;
    same += once == order(seed);
  }
  EXPECT_GE(different, 15);
  EXPECT_GE(same, 15) << "an overrun or a thread that came first may change one";
#endif
}

}  // namespace
}  // namespace weft::test
