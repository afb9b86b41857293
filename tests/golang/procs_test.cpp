// How many Ps there are by default: CPUs, control groups, and who has the last word. The machine's CPU count and files are faked
// through the kernel-call table.
#include <stdlib.h>

#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

// What the kernel says while one lives.
class FakeMachine {
 public:
  explicit FakeMachine(int cpus) {
    cpus_ = cpus;
    files_.clear();
    arch::kernel.sched_getaffinity = [](cpu_set_t* set) {
      CPU_ZERO(set);
      for (int i = 0; i < cpus_; i++) CPU_SET(2 * i + 1, set);
      return 0;
    };
    on_read_ = nullptr;
    arch::kernel.read_file = [](const char* path, void* buffer, size_t size) -> ssize_t {
      if (auto f = on_read_.load()) f();
      std::lock_guard l(mu_);
      reads_[path]++;
      const auto found = files_.find(path);
      if (found == files_.end()) {
        errno = ENOENT;
        return -1;
      }
      const size_t n = std::min(size, found->second.size());
      std::memcpy(buffer, found->second.data(), n);
      return static_cast<ssize_t>(n);
    };
    old_period_ = rt::procs_period_ns;
    rt::procs_period_ns = 20'000'000;
  }
  ~FakeMachine() {
    arch::kernel = arch::kRealKernel;
    rt::procs_period_ns = old_period_;
  }
  FakeMachine(const FakeMachine&) = delete;
  FakeMachine& operator=(const FakeMachine&) = delete;

  void file(const std::string& path, const std::string& text) {
    std::lock_guard l(mu_);
    files_[path] = text;
  }
  void cpus(int n) { cpus_ = n; }
  /// Called at the beginning of each read.
  void on_read(void (*f)()) { on_read_ = f; }
  int reads(const std::string& path) {
    std::lock_guard l(mu_);
    return reads_[path];
  }
  /// Version 2, as in a container that sees its own group as the root.
  void container(const std::string& cpu_max) {
    file("/proc/self/cgroup", "0::/\n");
    file("/proc/self/mountinfo",
         "22 1 0:21 / /proc rw shared:5 - proc proc rw\n"
         "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:3 - cgroup2 cgroup rw,nsdelegate\n");
    file("/sys/fs/cgroup/cpu.max", cpu_max);
  }

 private:
  static std::mutex mu_;
  static std::map<std::string, std::string> files_;
  static std::map<std::string, int> reads_;
  static std::atomic<int> cpus_;
  static std::atomic<void (*)()> on_read_;
  int64_t old_period_;
};
std::mutex FakeMachine::mu_;
std::map<std::string, std::string> FakeMachine::files_;
std::map<std::string, int> FakeMachine::reads_;
std::atomic<int> FakeMachine::cpus_{0};
std::atomic<void (*)()> FakeMachine::on_read_{nullptr};

Config defaults(const std::string& debug = {}) {
  Config c;
  c.procs = 0;
  c.debug = debug;
  return c;
}

int procs_by_default(const Config& config = defaults()) {
  int n = 0;
  EXPECT_EQ(run([&] { n = procs(); }, config), 0);
  return n;
}

bool procs_become(int n) {
  return eventually([n] { return procs() == n; });
}

TEST(Procs, AreTheQuotaRoundedUpButTwoAtLeast) {  // 76
  FakeMachine machine(8);
  for (const auto& [cpu_max, want] : std::map<std::string, int>{{"300000 100000\n", 3},
                                                                {"100000 100000\n", 2},
                                                                {"250000 100000\n", 3},
                                                                {"1000 100000\n", 2},
                                                                {"75000 25000\n", 3},
                                                                {"9900000 100000\n", 8},
                                                                {"max 100000\n", 8},
                                                                {"", 8},
                                                                {"nonsense\n", 8},
                                                                {"300000\n", 8},
                                                                {"300000 0\n", 8},
                                                                {"-1 100000\n", 8}}) {
    machine.container(cpu_max);
    EXPECT_EQ(procs_by_default(), want) << cpu_max;
  }
}

TEST(Procs, AreTheCpusOfTheAffinityMaskWithoutAQuota) {  // 76
  FakeMachine machine(5);
  EXPECT_EQ(procs(), 5) << "also before anything runs";
  EXPECT_EQ(procs_by_default(), 5);
  machine.container("300000 100000\n");
  machine.cpus(2);
  EXPECT_EQ(procs_by_default(), 2);
  machine.cpus(1);
  machine.container("100000 100000\n");
  EXPECT_EQ(procs_by_default(), 1) << "the two are for quotas";
}

TEST(Procs, FollowTheQuotaOfVersion1) {  // 76
  FakeMachine machine(8);
  machine.file("/proc/self/cgroup", "9:name=systemd:/s\n4:cpuacct:/x\n3:cpu,cpuset:/docker/abc\n0::/v2\n");
  machine.file("/proc/self/mountinfo",
               "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
               "38 31 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
               "33 31 0:30 / /sys/fs/cgroup/acct rw - cgroup cgroup rw,cpuacct\n"
               "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,x rw,relatime shared:1 - cgroup cgroup rw,cpuset,cpu\n");
  machine.file("/sys/fs/cgroup/unified/cpu.max", "700000 100000\n");
  machine.file("/sys/fs/cgroup/cpu,x/cpu.cfs_period_us", "50000\n");
  for (const auto& [quota, want] : std::map<std::string, int>{{"150000\n", 3}, {"125000\n", 3}, {"50000\n", 2}, {"-1\n", 8}}) {
    machine.file("/sys/fs/cgroup/cpu,x/cpu.cfs_quota_us", quota);
    EXPECT_EQ(procs_by_default(), want) << quota;
  }
}

TEST(Procs, FollowTheSmallestQuotaOfTheHierarchy) {
  FakeMachine machine(16);
  machine.file("/proc/self/cgroup", "0::/user slice/session\n");
  machine.file("/proc/self/mountinfo", "30 1 0:26 / /sys/fs/c\\040g rw shared:9 - cgroup2 cgroup rw\n");
  machine.file("/sys/fs/c g/user slice/cpu.max", "400000 100000\n");
  machine.file("/sys/fs/c g/user slice/session/cpu.max", "max 100000\n");
  EXPECT_EQ(procs_by_default(), 4);
  machine.file("/sys/fs/c g/user slice/session/cpu.max", "600000 100000\n");
  EXPECT_EQ(procs_by_default(), 4);
  machine.file("/sys/fs/c g/user slice/session/cpu.max", "300000 100000\n");
  EXPECT_EQ(procs_by_default(), 3);
  machine.file("/proc/self/cgroup", "0::/../elsewhere\n");  // outside of the namespace
  machine.file("/sys/fs/c g/cpu.max", "500000 100000\n");
  EXPECT_EQ(procs_by_default(), 5);
}

TEST(Procs, AreReadFromLongFilesToo) {
  FakeMachine machine(8);
  machine.container("300000 100000\n");
  std::string mounts;
  for (int i = 0; i < 3000; i++) mounts += std::to_string(100 + i) + " 1 0:50 / /mnt/" + std::to_string(i) + " rw - ext4 /dev/x rw\n";
  machine.file("/proc/self/mountinfo", mounts + "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
  EXPECT_EQ(procs_by_default(), 3);
}

TEST(Procs, FollowAChangeOfTheQuotaAndOfTheMask) {  // 76
  FakeMachine machine(8);
  machine.container("300000 100000\n");
  run(
      [&] {
        EXPECT_EQ(procs(), 3);
        machine.container("500000 100000\n");
        procs_become(5);
        machine.cpus(4);
        procs_become(4);
        machine.container("max 100000\n");
        machine.cpus(6);
        procs_become(6);
        EXPECT_TRUE(settle(1, kPatience));
      },
      defaults());
}

TEST(Procs, AreLookedAtOnceInAPeriodAndNotWhileNothingRuns) {
  FakeMachine machine(4);
  machine.container("300000 100000\n");
  rt::procs_period_ns = 200'000'000;
  run(
      [&] {
        auto looks = [&] { return machine.reads("/sys/fs/cgroup/cpu.max"); };
        const Time before = now();
        const int first = looks();
        eventually([&] { return looks() >= first + 3; });
        EXPECT_GE(now() - before, 350ms) << "three looks are two periods apart";
        // All asleep: sysmon is too, after a look or two. Three periods pass without one.
        Chan<void> over = make_chan<void>();
        std::thread outside([&] {
          int before = -1;
          EXPECT_TRUE(eventually([&] {
            std::this_thread::sleep_for(600ms);
            const int was = std::exchange(before, looks());
            return was == before;
          }));
          over.send();
        });
        over.recv();
        outside.join();
      },
      defaults());
}

TEST(Procs, AnExplicitSetFreezes) {  // 76
  FakeMachine machine(8);
  machine.container("300000 100000\n");
  run(
      [&] {
        EXPECT_EQ(set_procs(0), 3);
        machine.container("400000 100000\n");
        procs_become(4);  // n < 1 only reads
        EXPECT_EQ(set_procs(4), 4);
        machine.container("600000 100000\n");
        const Time until = now() + 10 * std::chrono::nanoseconds(rt::procs_period_ns);
        while (now() < until) {
          yield();
          ASSERT_EQ(procs(), 4);
        }
      },
      defaults());
  Config fixed = defaults();
  fixed.procs = 5;
  run(
      [&] {
        const Time until = now() + 10 * std::chrono::nanoseconds(rt::procs_period_ns);
        while (now() < until) {
          yield();
          ASSERT_EQ(procs(), 5);
        }
      },
      fixed);
}

TEST(Procs, SetDefaultProcsFollowsAgain) {  // 77
  FakeMachine machine(8);
  machine.container("300000 100000\n");
  ::setenv("WEFT_PROCS", "7", 1);
  run(
      [&] {
        EXPECT_EQ(procs(), 7);
        EXPECT_EQ(set_default_procs(), 7);
        EXPECT_EQ(procs(), 3) << "at once, and WEFT_PROCS no longer counts";
        machine.container("500000 100000\n");
        procs_become(5);
        EXPECT_TRUE(settle(1, kPatience)) << "the one that follows the machine is through";
        EXPECT_EQ(set_procs(2), 5);
        EXPECT_EQ(set_default_procs(), 2);
        EXPECT_EQ(procs(), 5);
        EXPECT_TRUE(settle(1, kPatience));
      },
      defaults());
  ::unsetenv("WEFT_PROCS");
}

TEST(Procs, AFlagTurnsEachOff) {  // 76
  FakeMachine machine(8);
  machine.container("300000 100000\n");
  EXPECT_EQ(procs_by_default(defaults("nocgroup")), 8);
  run(
      [&] {
        EXPECT_EQ(procs(), 3);
        machine.container("500000 100000\n");
        const Time until = now() + 10 * std::chrono::nanoseconds(rt::procs_period_ns);
        while (now() < until) {
          yield();
          ASSERT_EQ(procs(), 3);
        }
        EXPECT_EQ(set_default_procs(), 3);
        EXPECT_EQ(procs(), 5);
      },
      defaults("fixedprocs"));
}

std::thread set_meanwhile;
std::atomic<bool> has_set{false};

// The follower has decided that nobody said anything and asks the kernel; now somebody does say something.
void set_procs_meanwhile() {
  if (goid() == 0 || has_set) return;
  set_meanwhile = std::thread([] { set_procs(4); });
  for (bool waits = false; !waits;) {  // for this goroutine to come to a safepoint, which it does when it wants its own change
    rt::sched.mu.lock();
    waits = rt::sched.stopping;
    rt::sched.mu.unlock();
  }
  has_set = true;
}

TEST(Procs, WhatSetProcsSaysOutlivesAFollowerThatIsUnderWay) {
  FakeMachine machine(8);
  machine.container("300000 100000\n");
  run(
      [&] {
        machine.on_read(set_procs_meanwhile);
        machine.container("600000 100000\n");
        eventually([&] { return has_set && procs() != 3; });
        EXPECT_TRUE(settle(1, kPatience)) << "the follower has not ended";
        blocking([] { set_meanwhile.join(); });
        EXPECT_EQ(procs(), 4);
      },
      defaults());
}

TEST(Procs, AreTheCpusWhenNoFileCanBeRead) {
  for (uint64_t n = 1; n <= 4; n++) {
    rt::fault_install({{rt::Call::ReadFile, n, rt::FaultRule::kForEver, EACCES}});
    const int got = procs_by_default();
    const bool asked = rt::fault_calls(rt::Call::ReadFile) >= n;
    rt::fault_restore();
    EXPECT_GE(got, 1);
    EXPECT_LE(got, arch::allowed_cpus());
    if (n == 1) {
      EXPECT_TRUE(asked);
      EXPECT_EQ(got, arch::allowed_cpus());
    }
  }
}

TEST(Procs, TheKernelsOwnFilesAreRead) {
  // Whatever this machine says: no more than its CPUs, and the same twice.
  const int n = procs_by_default();
  EXPECT_GE(n, 1);
  EXPECT_LE(n, arch::allowed_cpus());
  arch::CpuQuota quota;
  quota.find();
  char text[64];
  EXPECT_GT(arch::kernel.read_file("/proc/self/cgroup", text, sizeof text), 0);
  EXPECT_EQ(arch::kernel.read_file("/proc/self/no such file", text, sizeof text), -1);
  EXPECT_EQ(errno, ENOENT);
}

}  // namespace
}  // namespace weft::test
