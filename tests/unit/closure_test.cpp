// How a callable and its arguments travel into the runtime (weft/detail/closure.hpp).
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

/// Counts the objects that live.
struct Counted {
  static inline int alive = 0;
  Counted() { alive++; }
  Counted(const Counted&) { alive++; }
  Counted(Counted&&) noexcept { alive++; }
  ~Counted() { alive--; }
};

template <class C>
struct Stored {
  alignas(C) std::byte bytes[sizeof(C)];
  explicit Stored(C c) { ::new (bytes) C(std::move(c)); }
  void run() { detail::kClosureOps<C>.run(bytes); }
  void destroy() { detail::kClosureOps<C>.destroy(bytes); }
};
template <class C>
Stored(C) -> Stored<C>;

TEST(Closure, RunCallsAndDestroys) {
  int calls = 0;
  Stored s(detail::bind([&calls, c = Counted()] { calls++; }));
  EXPECT_EQ(Counted::alive, 1);
  s.run();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Closure, RunDestroysAlsoWhenItThrows) {
  Stored s(detail::bind([c = Counted()] { throw std::runtime_error("out"); }));
  EXPECT_THROW(s.run(), std::runtime_error);
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Closure, DestroyDropsWithoutCalling) {
  int calls = 0;
  Stored s(detail::bind([&calls, c = Counted()] { calls++; }));
  s.destroy();
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Closure, CopiesItsArgumentsAsThreadDoes) {
  std::string text = "before";
  std::string got;
  Stored s(detail::bind([](std::string a, std::string& b) { b = a; }, text, std::ref(got)));
  text = "after";
  s.run();
  EXPECT_EQ(got, "before");
}

TEST(Closure, MovesWhatCannotBeCopied) {
  int got = 0;
  Stored s(detail::bind([&got](std::unique_ptr<int> p) { got = *p; }, std::make_unique<int>(5)));
  s.run();
  EXPECT_EQ(got, 5);
}

TEST(Closure, CallsMembers) {
  struct Object {
    int value = 0;
    void set(int v) { value = v; }
  } o;
  Stored s(detail::bind(&Object::set, &o, 9));
  s.run();
  EXPECT_EQ(o.value, 9);
}

TEST(Closure, KnowsItsSizeAndAlignment) {
  struct alignas(32) Wide {
    char bytes[96];
    void operator()() const {}
  };
  EXPECT_EQ(detail::kClosureOps<Wide>.size, sizeof(Wide));
  EXPECT_EQ(detail::kClosureOps<Wide>.align, 32u);
}

void nothing() {}

TEST(Closure, NilIsWhatCannotBeCalled) {
  EXPECT_TRUE(detail::is_nil_callable(std::function<void()>()));
  EXPECT_FALSE(detail::is_nil_callable(std::function<void()>(nothing)));
  void (*none)() = nullptr;
  EXPECT_TRUE(detail::is_nil_callable(none));
  EXPECT_FALSE(detail::is_nil_callable(&nothing));
  EXPECT_FALSE(detail::is_nil_callable(nothing));
  EXPECT_FALSE(detail::is_nil_callable([] {}));
}

}  // namespace
}  // namespace weft::test
