// errno across runtime calls: what compilers make of it, the header that cures it, and where the runtime keeps it.
#include <unistd.h>

#include <cerrno>

#include "tests/golang/errno_use.hpp"
#include "tests/support/migrate.hpp"

namespace weft::test {
namespace {

constexpr int kOnTheNewThread = 77;

// Says something into the errno of the thread that it comes back on; nobody else says that.
void migrate_and_say() {
  migrate();
  *weft_errno() = kOnTheNewThread;
}

TEST(Errno, IsTheOldThreadsAfterAMigration) {
#ifndef __OPTIMIZE__
  GTEST_SKIP() << "only code that is optimised keeps the address";
#endif
  in_run({2, 1}, [] {
    const Traffic traffic;
    EXPECT_NE(stale::errno_around(5, migrate_and_say), kOnTheNewThread)
        << "this compiler asks again: weft/errno.hpp has outlived its purpose";
  });
}

TEST(Errno, IsTheNewThreadsWithTheHeader) {
  in_run({2, 1}, [] {
    const Traffic traffic;
    EXPECT_EQ(cured::errno_around(5, migrate_and_say), kOnTheNewThread);
    EXPECT_EQ(cured::errno_in_a_loop(3, migrate_and_say), 3 * kOnTheNewThread);
  });
}

int failing_read() {
  char byte;
  return static_cast<int>(::read(-1, &byte, 1));
}

TEST(Errno, IsThatOfTheCallAfterASyscallRegion) {
  each_run([] {
    for (int i = 0; i < 100; i++) {
      *weft_errno() = 0;
      {
        SyscallRegion r;
        EXPECT_EQ(failing_read(), -1);
      }
      ASSERT_EQ(*weft_errno(), EBADF);
    }
  });
}

TEST(Errno, IsThatOfTheCallAfterBlocking) {
  each_run([] {
    for (int i = 0; i < 100; i++) {
      *weft_errno() = 0;
      EXPECT_EQ(blocking(failing_read), -1);
      ASSERT_EQ(*weft_errno(), EBADF);
    }
  });
}

// On one P: while this goroutine is in its call another gets the P and computes until it comes back from it, without a P, and is
// queued; so it goes on on the other's thread.
template <class Call>
void comes_back_elsewhere(Call call) {
  in_run({1, 1}, [&] {
    bool moved = false;
    eventually([&] {
      std::atomic<bool> in_call{false}, other_runs{false}, done{false};
      go([&] {
        while (!in_call) yield();
        other_runs = true;
        while (!done) {
          *weft_errno() = EDOM;
          yield();
        }
      });
      const pid_t before = thread_now();
      *weft_errno() = 0;
      call(in_call, other_runs);
      const int after = *weft_errno();
      moved = thread_now() != before;
      done = true;
      settle(1, kPatience);
      EXPECT_EQ(after, EBADF) << (moved ? "on another thread" : "on the same thread");
      return moved || after != EBADF;
    });
    EXPECT_TRUE(moved);
  });
}

TEST(Errno, IsThatOfTheCallAfterASyscallRegionThatLostItsP) {
  comes_back_elsewhere([](std::atomic<bool>& in_call, std::atomic<bool>& other_runs) {
    SyscallRegion r;
    in_call = true;
    while (!other_runs) std::this_thread::yield();
    EXPECT_EQ(failing_read(), -1);
  });
}

TEST(Errno, IsThatOfTheCallAfterBlockingThatCameBackElsewhere) {
  comes_back_elsewhere([](std::atomic<bool>& in_call, std::atomic<bool>& other_runs) {
    EXPECT_EQ(blocking([&] {
                in_call = true;
                while (!other_runs) std::this_thread::yield();
                return failing_read();
              }),
              -1);
  });
}

// "Between two runtime calls a goroutine stays on its thread and no other runs there", as far as safepoints go.
thread_local uint64_t scratch = 0;

TEST(Errno, AndThreadLocalsAreOnesOwnBetweenTwoRuntimeCalls) {
  in_run({2, 1}, [] {
    std::atomic<bool> stop{false};
    WaitGroup wg;
    for (int g = 1; g <= 4; g++)
      wg.go([&, g] {
        while (!stop) {
          const pid_t thread = thread_now();
          *weft_errno() = 1000 + g;
          scratch = static_cast<uint64_t>(g);
          for (int i = 0; i < 2000; i++) {
            asm volatile("" ::: "memory");
          }
          ASSERT_EQ(scratch, static_cast<uint64_t>(g));
          ASSERT_EQ(*weft_errno(), 1000 + g);
          ASSERT_EQ(thread_now(), thread);
          yield();
        }
      });
    sleep_for(std::chrono::milliseconds(scaled(60, 120)));
    stop = true;
    wg.wait();
  });
}

}  // namespace
}  // namespace weft::test
