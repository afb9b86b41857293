// Every way to write a select gives the same result: the forms are generated here and compared with
// one model.
#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/support.hpp"

namespace weft::test {
namespace {

using namespace std::chrono_literals;

// The states a channel of ints may be in when a case meets it.
enum class State { Nil, Empty, Half, Full, Closed, ClosedWithValue };
constexpr State kStates[] = {State::Nil,  State::Empty,  State::Half,
                             State::Full, State::Closed, State::ClosedWithValue};

Chan<int> channel_in(State s) {
  if (s == State::Nil) return {};
  Chan<int> c = make_chan<int>(2);
  if (s == State::Half || s == State::Full || s == State::ClosedWithValue) c.send(11);
  if (s == State::Full) c.send(12);
  if (s == State::Closed || s == State::ClosedWithValue) c.close();
  return c;
}

// What a case does with a channel in a state: the model.
enum class Outcome { NotReady, Value, Zero, Sent, Panics };

Outcome receiving(State s) {
  switch (s) {
    case State::Half:
    case State::Full:
    case State::ClosedWithValue:
      return Outcome::Value;
    case State::Closed:
      return Outcome::Zero;
    default:
      return Outcome::NotReady;
  }
}

Outcome sending(State s) {
  switch (s) {
    case State::Empty:
    case State::Half:
      return Outcome::Sent;
    case State::Closed:
    case State::ClosedWithValue:
      return Outcome::Panics;
    default:
      return Outcome::NotReady;
  }
}

// One form of a case beside default: what came of it. Each is written out, since their spelling is
// the subject.
using Form = std::function<Outcome(const Chan<int>&)>;

Outcome value_or_zero(std::optional<int> v) {
  if (!v) return Outcome::Zero;
  EXPECT_EQ(*v, 11);
  return Outcome::Value;
}

std::vector<Form> receive_forms(bool with_default) {
  // Runs `select(case, otherwise())` or, where the model says it will not block, `select(case)`.
  std::vector<Form> forms;
  auto add = [&](auto one_case) {
    forms.push_back([=](const Chan<int>& c) {
      Outcome o = Outcome::NotReady;
      one_case(c, o, with_default);
      return o;
    });
  };
  add([](const Chan<int>& c, Outcome& o, bool d) {  // a handler that takes the value
    auto h = [&](std::optional<int> v) { o = value_or_zero(v); };
    const int i = d ? select(recv(c, h), otherwise()) : select(recv(c, h));
    EXPECT_EQ(i == 0, o != Outcome::NotReady);
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // a temporary handler
    if (d)
      select(recv(c, [&](std::optional<int> v) { o = value_or_zero(v); }),
             otherwise([&] { EXPECT_EQ(o, Outcome::NotReady); }));
    else
      select(recv(c, [&](std::optional<int> v) { o = value_or_zero(v); }));
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // an optional
    std::optional<int> v = 99;
    const int i = d ? select(recv(c, v), otherwise()) : select(recv(c, v));
    if (i == 0)
      o = value_or_zero(v);
    else
      EXPECT_EQ(v, 99) << "a case that was not chosen wrote its operand";
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // a T and a bool
    int v = 99;
    bool ok = false;
    const int i = d ? select(recv(c, v, ok), otherwise()) : select(recv(c, v, ok));
    if (i == 0) {
      EXPECT_EQ(v, ok ? 11 : 0);
      o = ok ? Outcome::Value : Outcome::Zero;
    }
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // a T alone
    int v = 99;
    const int i = d ? select(recv(c, v), otherwise()) : select(recv(c, v));
    if (i == 0) o = v == 0 ? Outcome::Zero : value_or_zero(v);
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // default first: its place does not matter
    std::optional<int> v;
    const int i = d ? select(otherwise(), recv(c, v)) : select(recv(Chan<int>(), v), recv(c, v));
    if (i == 1) o = value_or_zero(v);
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // as one of several, the others never ready
    std::optional<int> v;
    int w = 0;
    const Chan<int> empty = make_chan<int>();
    const Chan<int> full = channel_in(State::Full);
    const int i = d ? select(recv(empty, w), recv(c, v), send(full, 1), otherwise())
                    : select(recv(empty, w), recv(c, v), send(full, 1));
    if (i == 1) o = value_or_zero(v);
    EXPECT_TRUE(i == 1 || (d && i == 3));
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // switched off beside its twin
    std::optional<int> v, w = 99;
    const int i = d ? select(recv(c, w).when(false), recv(c, v).when(true), otherwise())
                    : select(recv(c, w).when(false), recv(c, v));
    if (i == 1) o = value_or_zero(v);
    EXPECT_EQ(w, 99);
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // through a receive-only handle
    const RecvChan<int> r = c;
    std::optional<int> v;
    if ((d ? select(recv(r, v), otherwise()) : select(recv(r, v))) == 0) o = value_or_zero(v);
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // at run time
    Selector s;
    std::optional<int> v;
    s.recv(c, v);
    const int i = d ? s.try_wait() : s.wait();
    EXPECT_TRUE(i == 0 || (d && i == -1));
    if (i == 0) o = value_or_zero(v);
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // prioritized
    std::optional<int> v;
    const int i =
        d ? select(prioritized, recv(c, v), otherwise()) : select(prioritized, recv(c, v));
    if (i == 0) o = value_or_zero(v);
  });
  add([](const Chan<int>& c, Outcome& o, bool d) {  // without select at all
    if (d) {
      const Recv<int> r = c.try_recv();
      if (r.status != RecvStatus::Empty) o = value_or_zero(r.value);
    } else {
      o = value_or_zero(c.recv());
    }
  });
  return forms;
}

std::vector<Form> send_forms(bool with_default) {
  std::vector<Form> forms;
  auto add = [&](auto one_case) {
    forms.push_back([=](const Chan<int>& c) {
      Outcome o = Outcome::NotReady;
      const size_t before = c.len();
      try {
        if (one_case(c, with_default)) o = Outcome::Sent;
      } catch (const Panic&) {
        o = Outcome::Panics;
      }
      EXPECT_EQ(c.len(), before + (o == Outcome::Sent ? 1 : 0));
      return o;
    });
  };
  add([](const Chan<int>& c, bool d) {  // an lvalue
    const int x = 13;
    return (d ? select(send(c, x), otherwise()) : select(send(c, x))) == 0;
  });
  add([](const Chan<int>& c, bool d) {  // an rvalue and a handler
    bool ran = false;
    auto h = [&] { ran = true; };
    const int i = d ? select(send(c, 13, h), otherwise()) : select(send(c, 13, h));
    EXPECT_EQ(ran, i == 0);
    return ran;
  });
  add([](const Chan<int>& c, bool d) {  // something that converts
    const short x = 13;
    return (d ? select(send(c, x), otherwise()) : select(send(c, x))) == 0;
  });
  add([](const Chan<int>& c, bool d) {  // one of several
    int w = 0;
    const Chan<int> empty = make_chan<int>();
    return (d ? select(recv(empty, w), send(Chan<int>(), 1), send(c, 13), otherwise())
              : select(recv(empty, w), send(Chan<int>(), 1), send(c, 13))) == 2;
  });
  add([](const Chan<int>& c, bool d) {  // a send-only handle
    const SendChan<int> s = c;
    return (d ? select(send(s, 13), otherwise()) : select(send(s, 13))) == 0;
  });
  add([](const Chan<int>& c, bool d) {  // at run time
    Selector s;
    s.send(c, 13);
    return (d ? s.try_wait() : s.wait()) == 0;
  });
  add([](const Chan<int>& c, bool d) {  // without select
    if (d) return c.try_send(13);
    c.send(13);
    return true;
  });
  return forms;
}

TEST(Select, AllReceiveFormsAgree) {  // 30
  each_run([] {
    for (State s : kStates) {
      const Outcome expected = receiving(s);
      for (bool with_default : {true, false}) {
        if (!with_default && expected == Outcome::NotReady) continue;  // blocks: BlockingMatrix
        const auto forms = receive_forms(with_default);
        for (size_t f = 0; f < forms.size(); f++)
          EXPECT_EQ(forms[f](channel_in(s)), expected)
              << "form " << f << ", state " << static_cast<int>(s) << ", default " << with_default;
      }
    }
  });
}

TEST(Select, AllSendFormsAgree) {  // 30
  each_run([] {
    for (State s : kStates) {
      const Outcome expected = sending(s);
      for (bool with_default : {true, false}) {
        if (!with_default && expected == Outcome::NotReady) continue;
        const auto forms = send_forms(with_default);
        for (size_t f = 0; f < forms.size(); f++)
          EXPECT_EQ(forms[f](channel_in(s)), expected)
              << "form " << f << ", state " << static_cast<int>(s) << ", default " << with_default;
      }
    }
  });
}

TEST(Select, AllPairsOfStatesTakeAReadyCaseOrDefault) {  // 30
  each_run([] {
    for (State a : kStates)
      for (State b : kStates) {
        for (int kind = 0; kind < 3; kind++) {
          const Outcome first = kind == 2 ? sending(a) : receiving(a);
          const Outcome second = kind == 0 ? receiving(b) : sending(b);
          const Chan<int> ca = channel_in(a), cb = channel_in(b);
          int v = 0, i = -1;
          bool panicked = false;
          try {
            if (kind == 0) i = select(recv(ca, v), recv(cb, v), otherwise());
            if (kind == 1) i = select(recv(ca, v), send(cb, 13), otherwise());
            if (kind == 2) i = select(send(ca, 13), send(cb, 13), otherwise());
          } catch (const Panic&) {
            panicked = true;
          }
          const bool may_panic = first == Outcome::Panics || second == Outcome::Panics;
          const bool any = first != Outcome::NotReady || second != Outcome::NotReady;
          if (panicked) {
            EXPECT_TRUE(may_panic);
          } else if (i == 0) {
            EXPECT_TRUE(first != Outcome::NotReady && first != Outcome::Panics);
          } else if (i == 1) {
            EXPECT_TRUE(second != Outcome::NotReady && second != Outcome::Panics);
          } else {
            EXPECT_EQ(i, 2);
            EXPECT_FALSE(any);
          }
        }
      }
  });
}

TEST(Select, ReceivedValueMayBeDiscarded) {  // 31
  each_run([] {
    Chan<int> c = make_chan<int>(5);
    for (int i = 0; i < 5; i++) c.send(i);
    EXPECT_EQ(select(recv(c)), 0);
    EXPECT_EQ(select(recv(c), otherwise()), 0);
    bool ran = false;
    EXPECT_EQ(select(recv(c, [&] { ran = true; })), 0);
    EXPECT_TRUE(ran);
    (void)c.recv();
    EXPECT_EQ(c.recv(), 4) << "a discarded value was not taken";
  });
}

TEST(Select, BreakLeavesTheSwitchAroundIt) {  // 31
  each_run([] {
    Chan<int> c = make_chan<int>(1);
    Chan<void> quit = make_chan<void>(1);
    c.send(1);
    int loops = 0;
    for (;;) {
      loops++;
      std::optional<int> v;
      switch (select(recv(c, v), recv(quit))) {
        case 0:
          if (v) break;
          FAIL() << "not reached";
        case 1:
          EXPECT_EQ(loops, 2);
          return;
      }
      quit.send();
    }
  });
}

TEST(Select, OperandsAreEvaluatedOnceAlsoThoseOfLosers) {  // 37
  each_run([] {
    std::vector<std::string> said;
    auto chan = [&](const char* name, Chan<int> c) {
      said.push_back(name);
      return c;
    };
    auto value = [&](const char* name, int v) {
      said.push_back(name);
      return v;
    };
    Chan<int> ready = make_chan<int>(1);
    const Chan<int> empty = make_chan<int>();
    int v = 0;
    EXPECT_EQ(select(recv(chan("a", empty), v), send(chan("b", empty), value("1", 1)),
                     send(chan("c", ready), value("2", 2)), recv(chan("d", {}), v)),
              2);
    std::sort(said.begin(), said.end());
    EXPECT_EQ(said, (std::vector<std::string>{"1", "2", "a", "b", "c", "d"}));
    EXPECT_EQ(ready.recv(), 2);

    said.clear();
    EXPECT_EQ(select(send(chan("a", {}), value("1", 1)), otherwise()), 1);
    std::sort(said.begin(), said.end());
    EXPECT_EQ(said, (std::vector<std::string>{"1", "a"}));

    // A Selector evaluates in the order written.
    said.clear();
    Selector s;
    s.recv(chan("first", empty), v);
    s.send(chan("second", ready), value("third", 3));
    s.recv(chan("fourth", empty), v);
    EXPECT_EQ(s.wait(), 1);
    EXPECT_EQ(said.size(), 4u);
    EXPECT_EQ(said.front(), "first");
    EXPECT_EQ(said.back(), "fourth");
  });
}

TEST(Select, OperandsKeepTheirValueWhileParked) {  // 37
  each_run([] {
    Chan<std::string> c = make_chan<std::string>();
    go_parked("select", [=] {
      std::string mine = "what was given";
      select(send(c, mine), recv(Chan<int>()));
      EXPECT_EQ(mine, "what was given");
    });
    EXPECT_EQ(c.recv_or(), "what was given");
    go_parked("select", [=] {
      select(send(c, std::string("a temporary that outlives the call's operands")),
             recv(Chan<int>()));
    });
    EXPECT_EQ(c.recv_or(), "a temporary that outlives the call's operands");
  });
}

// A T that can be called is still a place for the value, not a handler.
TEST(Select, ALvalueOfTheElementTypeIsNeverAHandler) {
  each_run([] {
    Chan<std::function<int()>> c = make_chan<std::function<int()>>(2);
    c.send([] { return 5; });
    std::function<int()> f = [] { return 6; };
    EXPECT_EQ(select(recv(c, f)), 0);
    EXPECT_EQ(f(), 5);
    c.send([] { return 7; });
    std::optional<std::function<int()>> g;
    EXPECT_EQ(select(recv(c, g)), 0);
    EXPECT_EQ((*g)(), 7);
  });
}

TEST(Select, SelectorWithManyCases) {
  each_run([] {
    constexpr int kCases = 300;
    std::vector<Chan<int>> c;
    for (int i = 0; i < kCases; i++) c.push_back(make_chan<int>(i % 3));
    Chan<int> chosen = make_chan<int>();
    for (int i = 0; i < kCases; i += 7) {
      go_parked("select", [=] {
        Selector s;
        int v = -1;
        for (const Chan<int>& ch : c) s.recv(ch, v);
        const int k = s.wait();
        EXPECT_EQ(v, k * 10);
        chosen.send(k);
      });
      c[static_cast<size_t>(i)].send(i * 10);
      EXPECT_EQ(chosen.recv(), i);
    }
    Selector s;
    int v = 0;
    for (const Chan<int>& ch : c) s.recv(ch, v);
    EXPECT_EQ(s.try_wait(), -1);
    Selector t;
    for (const Chan<int>& ch : c) t.recv(ch, v);
    EXPECT_EQ(t.wait_for(1ms), -1);
  });
}

TEST(Select, MoreCasesThanItCanCountPanic) {
  constexpr int kMost = 65'535;
  in_run({2, 1}, [] {
    const Chan<int> quiet = make_chan<int>();
    const Chan<int> last = make_chan<int>();
    const Chan<int> chosen = make_chan<int>();
    go_parked("select", [=] {
      Selector s;
      for (int i = 0; i < kMost - 1; i++) s.recv(quiet);
      s.recv(last);
      chosen.send(s.wait());
    });
    last.send(1);
    EXPECT_EQ(chosen.recv(), kMost - 1);

    Selector s;
    for (int i = 0; i < kMost; i++) s.recv(quiet);
    const char* text = "select: too many cases (max 65535)";
    EXPECT_EQ(panic_of([&] { s.try_wait(); }), text) << "the default counts";
    s.recv(quiet);
    EXPECT_EQ(panic_of([&] { s.wait(); }), text);
    EXPECT_TRUE(runtime_panic([&] { s.wait_for(1ms); }));
    // Nothing has been left in the channel's queue.
    go([=] { quiet.send(5); });
    EXPECT_EQ(quiet.recv(), 5);
  });
}

}  // namespace
}  // namespace weft::test
