// fork, exec and posix_spawn from goroutines and beside them.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "tests/support/support.hpp"

extern char** environ;

namespace weft::test {
namespace {

using namespace std::chrono_literals;

struct Ended {
  int status = -1;   // exit status; negative: by a signal
  std::string text;  // what it wrote to stderr
};

/// Forks; the child's stderr is a pipe; it ends with 99 if `child` returns.
Ended forked(const std::function<void()>& child) {
  int fds[2];
  if (::pipe(fds) != 0) return {};
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(fds[1], 2);
    child();
    ::_exit(99);
  }
  ::close(fds[1]);
  Ended e;
  blocking([&] {
    char b[4096];
    for (ssize_t n; (n = ::read(fds[0], b, sizeof b)) > 0;) e.text.append(b, static_cast<size_t>(n));
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0) {
    }
    e.status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  });
  ::close(fds[0]);
  return e;
}

/// Others at work meanwhile, so that the fork happens at every moment of theirs.
struct Busy {
  Busy() {
    for (int i = 0; i < 4; i++)
      wg.go([this] {
        Chan<int> c = make_chan<int>(1);
        while (!stop) {
          c.send(1);
          (void)c.recv();
          yield();
          n++;
        }
      });
    for (int i = 0; i < 100; i++)
      wg.go([this] { (void)never.recv(); });
  }
  ~Busy() {
    const int before = n;
    EXPECT_TRUE(eventually([&] { return n > before; })) << "the parent has come to a halt";
    stop = true;
    never.close();
    wg.wait();
  }
  std::atomic<bool> stop{false};
  std::atomic<int> n{0};
  Chan<int> never = make_chan<int>();
  WaitGroup wg;
};

TEST(Fork, ThenExecWorks) {
  each_run([] {
    Busy busy;
    for (int i = 0; i < scaled(20, 5); i++) {
      const Ended e = forked([] {
        ::execl("/bin/sh", "sh", "-c", "exit 7", nullptr);
        ::_exit(1);
      });
      EXPECT_EQ(e.status, 7) << e.text;
    }
  });
}

TEST(Fork, PosixSpawnWorksFromManyGoroutinesAtOnce) {
  each_run([] {
    Busy busy;
    WaitGroup wg;
    for (int g = 0; g < 4; g++)
      wg.go([] {
        for (int i = 0; i < scaled(25, 5); i++) {
          pid_t pid = 0;
          const char* argv[] = {"sh", "-c", "exit 5", nullptr};
          ASSERT_EQ(::posix_spawn(&pid, "/bin/sh", nullptr, nullptr, const_cast<char**>(argv), environ), 0);
          int status = 0;
          blocking([&] {
            while (::waitpid(pid, &status, 0) < 0) {
            }
          });
          EXPECT_EQ(WEXITSTATUS(status), 5);
        }
      });
    wg.wait();
  });
}

TEST(Fork, AChildThatCallsTheRuntimeGetsOneLine) {
  each_run([] {
    Busy busy;
    Chan<int> c = make_chan<int>();
    static Mutex mu;  // held: an uncontended lock never enters the runtime
    mu.lock();
    const std::pair<const char*, std::function<void()>> calls[] = {
        {"yield", [] { yield(); }},
        {"go", [] { go([] {}); }},
        {"sleep", [] { sleep_for(1ms); }},
        {"recv", [=] { (void)c.recv(); }},
        {"lock", [] { mu.lock(); }},
        {"safepoint", [] { safepoint(); }},
        {"goexit", [] { goexit(); }},
        {"end of blocking()", [] { blocking([] {}); }},
        {"run", [] { run([] {}); }},
    };
    for (const auto& [what, call] : calls) {
      const Ended e = forked(call);
      EXPECT_EQ(e.status, 2) << what;
      EXPECT_EQ(e.text,
                "fatal error: weft: the runtime was called in a forked child: only exec or _exit may follow fork "
                "(or use posix_spawn)\n")
          << what;
    }
    mu.unlock();
  });
}

TEST(Fork, OutOfBlockingTheChildMayExecAndItsReturnIsTheOneLine) {
  each_run([] {
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const pid_t parent = ::getpid();
    blocking([&] {
      const pid_t pid = ::fork();
      if (pid == 0) {
        ::dup2(fds[1], 2);
        return;  // to the region's end, in the child
      }
      int status = 0;
      while (::waitpid(pid, &status, 0) < 0) {
      }
      EXPECT_EQ(WEXITSTATUS(status), 2);
    });
    if (::getpid() != parent) ::_exit(98);
    char b[200];
    EXPECT_GT(::read(fds[0], b, sizeof b), 50);
    ::close(fds[0]);
    ::close(fds[1]);
  });
}

TEST(Fork, FromAPlainThreadBesideARuntime) {
  Runtime rt{Config{.procs = 2, .use_env = false}};
  ASSERT_FALSE(rt.start());
  std::atomic<bool> stop{false};
  for (int i = 0; i < 4; i++)
    rt.go([&] {
      while (!stop) yield();
    });
  Chan<int> c = make_chan<int>();
  for (int i = 0; i < scaled(20, 5); i++) {
    EXPECT_EQ(forked([] { ::_exit(3); }).status, 3);
    const Ended recv = forked([=] { (void)c.recv(); });
    EXPECT_EQ(recv.status, 2);
    EXPECT_NE(recv.text.find("forked child"), std::string::npos) << recv.text;
    const Ended started = forked([] { go([] {}); });
    EXPECT_EQ(started.status, 2);
    EXPECT_NE(started.text.find("forked child"), std::string::npos) << started.text;
  }
  stop = true;
  rt.stop(5s);
}

TEST(Fork, TheChildHasTheSignalMaskOfWhoStartedTheRuntime) {
  each_run([] {
    WaitGroup wg;
    wg.go([] {
      for (int i = 0; i < 5; i++) {
        const Ended e = forked([] {
          sigset_t now;
          ::pthread_sigmask(SIG_BLOCK, nullptr, &now);
          ::_exit(sigismember(&now, SIGTERM) || sigismember(&now, SIGINT) ? 1 : 0);
        });
        EXPECT_EQ(e.status, 0);
        sleep_for(1ms);
      }
    });
    wg.wait();
  });
}

}  // namespace
}  // namespace weft::test
