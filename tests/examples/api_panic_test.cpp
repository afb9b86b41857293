// The API by example, "Panic, defer, recover": each line as a user writes it, and run.
#include <string>

#include <gtest/gtest.h>
#include <weft/weft.hpp>

namespace {

struct MyError {
  int code;
};

std::string logged;
void log(const char* text) { logged += text; }
void risky() { weft::panic("index out of range"); }

TEST(Api, PanicLines) {
  weft::run([] {
    try {
      risky();
    } catch (const weft::Panic& p) {
      log(p.what());
    }
    EXPECT_EQ(logged, "index out of range");
    try {
      weft::panic(MyError{7});
    } catch (const weft::Panic& p) {
      const MyError* e = p.value<MyError>();
      ASSERT_TRUE(e);
      EXPECT_EQ(e->code, 7);
      EXPECT_FALSE(p.is_runtime_error());
      EXPECT_FALSE(p.value<std::string>());
    }
    try {
      weft::make_chan<int>().close();
      weft::Chan<int>().close();
    } catch (const std::exception& e) {
      EXPECT_STREQ(e.what(), "close of nil channel");
    }
  });
}

TEST(Api, Defer) {
  weft::run([] {
    weft::Mutex mu;
    try {
      mu.lock();
      weft::Defer unlock{[&] { mu.unlock(); }};
      EXPECT_FALSE(mu.try_lock());
      risky();
    } catch (const weft::Panic&) {
      EXPECT_TRUE(mu.try_lock());
      mu.unlock();
    }
  });
}

int f() {
  return weft::func<int>([&](weft::Frame<int>& f) -> int {
    f.defer([&] { if (std::optional<weft::Panic> p = f.recover()) f.result = -1; });
    risky();
    return 0;
  });
}

TEST(Api, FunctionWithAFrame) {
  weft::run([] {
    EXPECT_EQ(f(), -1);
    int order = 0;
    weft::func([&](weft::Frame<>& f) { f.defer([&] { order = 1; }); });
    EXPECT_EQ(order, 1);
  });
}

}  // namespace
