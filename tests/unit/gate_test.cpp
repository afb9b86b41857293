// What arch/gate.hpp relies on: the layout of exceptions in flight, and who is asked when.
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/internals.hpp"
#include "tests/support/support.hpp"

namespace weft::test {
namespace {

struct NotedGate : arch::Gate {
  bool claims = false;
  int asked_times = 0;
  std::exception_ptr seen;
  bool innermost = false;
  std::size_t above = 0;
  NotedGate() {
    asked = [](arch::Gate* g, _Unwind_Exception* thrown) {
      auto* gate = static_cast<NotedGate*>(g);
      gate->asked_times++;
      gate->seen = arch::in_flight(thrown);
      gate->innermost = arch::innermost_gate() == g;
      gate->above = arch::frames_above(g, nullptr, 0);
      return gate->claims;
    };
  }
};

template <class F>
_Unwind_Exception* call(NotedGate& gate, F f) {
  return arch::gate_call([](void* g) { (*static_cast<F*>(g))(); }, &f, &gate);
}

std::string what_of(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  } catch (...) {
    return "?";
  }
}

TEST(Gate, KnowsTheObjectInFlight) {
  NotedGate gate;
  gate.claims = true;
  _Unwind_Exception* thrown = call(gate, [] { throw std::runtime_error("an object"); });
  ASSERT_NE(thrown, nullptr);
  EXPECT_EQ(std::uncaught_exceptions(), 1);
  EXPECT_EQ(what_of(gate.seen), "an object");
  arch::land(thrown);
  EXPECT_EQ(std::uncaught_exceptions(), 0);
  EXPECT_EQ(what_of(gate.seen), "an object");  // kept by the pointer alone
}

TEST(Gate, KnowsTheObjectOfOneThatIsThrownAgain) {
  const std::exception_ptr first = std::make_exception_ptr(std::logic_error("again"));
  NotedGate gate;
  gate.claims = true;
  arch::land(call(gate, [&] { std::rethrow_exception(first); }));
  EXPECT_EQ(gate.seen, first);
  EXPECT_EQ(arch::object_in(gate.seen), arch::object_in(first));
  arch::land(call(gate, [&] {
    try {
      std::rethrow_exception(first);
    } catch (...) {
      throw;
    }
  }));
  EXPECT_EQ(gate.seen, first);
}

TEST(Gate, AsksFromTheInnermostOutAndOnce) {
  NotedGate outer, inner;
  outer.claims = true;
  arch::land(call(outer, [&] {
    call(inner, [] { throw std::runtime_error("x"); });
    ADD_FAILURE();
  }));
  EXPECT_EQ(inner.asked_times, 1);
  EXPECT_EQ(outer.asked_times, 1);
  EXPECT_TRUE(inner.innermost);
  EXPECT_FALSE(outer.innermost);  // the inner one still stands
  EXPECT_GT(outer.above, inner.above);
}

TEST(Gate, IsNotAskedForWhatIsCaughtFurtherIn) {
  NotedGate gate;
  EXPECT_EQ(call(gate,
                 [] {
                   try {
                     throw 1;
                   } catch (int) {
                   }
                 }),
            nullptr);
  EXPECT_EQ(gate.asked_times, 0);
}

TEST(Gate, LetsPassWhatItDeclines) {
  NotedGate gate;
  try {
    call(gate, [] { throw std::runtime_error("further out"); });
    ADD_FAILURE();
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "further out");
  }
  EXPECT_EQ(gate.asked_times, 1);
}

}  // namespace
}  // namespace weft::test
