// Names for addresses: how they are shortened, what counts as the runtime's own, and that a real PC finds its line.
#include <gtest/gtest.h>

#include <string>

#include "tests/support/internals.hpp"

namespace weft::rt {

__attribute__((noinline)) std::uintptr_t an_address_here() {
  const std::uintptr_t pc = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  asm volatile("");
  return pc;
}

namespace {

TEST(Symbolize, FunctionsAreTidied) {
  const struct {
    const char* full;
    const char* tidy;
  } cases[] = {
      {"main", "main(...)"},
      {"void ns::f<int>(int, char const*) [clone .cold]", "ns::f<int>(...)"},
      {"f(int)::{lambda(char)#1}::operator()(char) const", "f::{lambda#1}(...)"},
      {"main::{lambda()#4}::operator()() const::{lambda()#1}::operator()() const", "main::{lambda#4}::{lambda#1}(...)"},
      {"ns::S::operator bool() const", "ns::S::operator bool(...)"},
      {"ns::operator<(ns::S const&, ns::S const&)", "ns::operator<(...)"},
      {"std::ostream& ns::operator<< <char>(std::ostream&, char)", "ns::operator<< <char>(...)"},
      {"A::operator->() const", "A::operator->(...)"},
      {"ns::F::operator()(int)", "ns::F::operator()(...)"},
      {"bool ns::cmp<ns::less<int> >::operator()<int>(int) const", "ns::cmp<ns::less<int> >::operator()<int>(...)"},
      {"(anonymous namespace)::g(int)", "(anonymous namespace)::g(...)"},
      {"operator new(unsigned long)", "operator new(...)"},
      {"foo[abi:cxx11](int)", "foo[abi:cxx11](...)"},
      {"decltype(auto) x::y<int>(int&&)", "x::y<int>(...)"},
      {"ns::S<(ns::E)1>::f()", "ns::S<(ns::E)1>::f(...)"},
  };
  for (const auto& k : cases) EXPECT_EQ(tidy_function(k.full), k.tidy) << k.full;
}

TEST(Symbolize, LongTemplateArgumentsAreCut) {
  const std::string name = "ns::f<" + std::string(200, 'x') + ", std::vector<int> >::g(int)";
  EXPECT_EQ(tidy_function(name), "ns::f<...>::g(...)");
}

TEST(Symbolize, AnyTextIsTidiedWithoutHarm) {
  for (const char* text : {"", "(", ")", "<", ">", "a<b(c>d)", "x::{lambda(", "operator", "operator()", "operator<", "((((", "f()::", "->", " "})
    (void)tidy_function(text);
}

TEST(Symbolize, TheMachineryIsInternalAndUsersAreNot) {
  EXPECT_TRUE(is_internal_function("weft::rt::park(weft::rt::M*)", ""));
  EXPECT_TRUE(is_internal_function("void weft::go<main::{lambda()#1}>(main::{lambda()#1}&&)", ""));
  EXPECT_TRUE(is_internal_function("__cxa_throw", ""));
  EXPECT_TRUE(is_internal_function("std::terminate()", ""));
  EXPECT_TRUE(is_internal_function("recv", "/usr/include/weft/chan.hpp"));
  EXPECT_FALSE(is_internal_function("weft::test::waits_here(int)", "/src/tests/waits.cpp"));
  EXPECT_FALSE(is_internal_function("main", "/src/main.cpp"));
  EXPECT_FALSE(is_internal_function("app::weft::rt::f()", ""));
}

TEST(Symbolize, FindsFunctionFileAndLine) {
  const std::uintptr_t pc = an_address_here();
  const int line = __LINE__ - 1;
  const Symbol s = symbolize(pc - 1);
  ASSERT_FALSE(s.frames.empty());
  EXPECT_NE(s.frames.back().function.find("TestBody"), std::string::npos) << s.frames.back().function;
  EXPECT_FALSE(s.frames.back().inlined);
  EXPECT_GT(s.offset, 0u);
  if (!symbols_available()) return;
  EXPECT_NE(s.frames.back().file.find("symbolize_test.cpp"), std::string::npos) << s.frames.back().file;
  EXPECT_EQ(s.frames.back().line, line);
}

TEST(Symbolize, AnAddressOfNobodyStillHasAName) {
  const Symbol s = symbolize(16);
  ASSERT_EQ(s.frames.size(), 1u);
  EXPECT_FALSE(s.frames[0].function.empty());
}

}  // namespace
}  // namespace weft::rt
