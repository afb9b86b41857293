// Which weakened memory orders the programs notice.
//
// For each operation of a file that the programs reach, each weaker order that it could have is
// tried by itself: a mutant is killed by the first program that fails with it.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tests/model/atomic.hpp"

namespace weft::model {

struct Case {
  const char* name;
  int threads;
  std::function<std::unique_ptr<Program>()> make;
  int preemptions = -1;
};

/// A program that is tried with each of its steps left out or done otherwise: an enum whose Real is the runtime's way.
template <class S>
class Stepped : public Program {
 public:
  using Step = S;
  explicit Stepped(Step s) : step_(s) {}

 protected:
  const Step step_;
};

template <class P>
Case of(const char* name, int threads, typename P::Step step = P::Step::Real, int preemptions = P::kPreemptions) {
  return {name, threads, [step] { return std::make_unique<P>(step); }, preemptions};
}

/// Of one that has no steps, or has them as template arguments.
template <class P>
  requires std::is_default_constructible_v<P>
Case of(const char* name, int threads) {
  return {name, threads, [] { return std::make_unique<P>(); }, P::kPreemptions};
}

// A sanitizer makes each execution 25 times as long, and looks for other things: there the big
// searches are cut off.
inline constexpr bool kSanitized = WEFT_ASAN || WEFT_TSAN;

inline Result explore(const Case& c, Options o = {}) {
  if (kSanitized) o.executions_max = 10'000;
  o.preemptions = c.preemptions;
  return Explorer(c.threads, c.make, o).run();
}

/// All executions of `c` keep its claims.
inline void expect_holds(const Case& c) {
  const Result r = explore(c);
  EXPECT_FALSE(r.violated) << c.name << ": " << r.what << " after " << r.executions
                           << " executions\n"
                           << r.trace;
  EXPECT_TRUE(r.complete || kSanitized) << c.name << ": the search was cut off";
  std::printf("%s: %llu executions\n", c.name,
              static_cast<unsigned long long>(r.executions - r.redundant));
}

/// Some execution of `c` breaks a claim; `how` is a part of what the explorer says then.
inline void expect_broken(const Case& c, std::string_view how = {}) {
  const Result r = explore(c);
  if (kSanitized && !r.complete) return;
  EXPECT_TRUE(r.violated) << c.name << ": " << r.executions << " executions, none of them wrong";
  EXPECT_NE(r.what.find(how), std::string::npos) << c.name << ": " << r.what << "\n" << r.trace;
  std::printf("%s: killed by \"%s\" in execution %llu\n", c.name, r.what.c_str(),
              static_cast<unsigned long long>(r.executions));
}

inline std::vector<std::memory_order> weaker(const Site& s) {
  using enum std::memory_order;
  const std::string_view what = s.what;
  const bool load = what == "load" || what == "cas failure" || what == "sleep";
  const bool store = what == "store";
  std::vector<std::memory_order> all;
  if (s.order == seq_cst) {
    if (load)
      all = {acquire};
    else if (store)
      all = {release};
    else
      all = {acq_rel};
  } else if (s.order == acq_rel) {
    all = {acquire, release};
  } else {
    all = {relaxed};
  }
  return all;
}

/// The weakened orders of the operations in `file` (the end of its path) that no case notices, as
/// "function: operation order -> weaker", with a number if the function has several that read the
/// same. `only`: of these functions (empty: of all). Prints the table.
inline std::set<std::string> survivors(const std::vector<Case>& cases, std::string_view file,
                                       const std::set<std::string_view>& only = {}) {
  std::set<Site> sites;
  for (const Case& c : cases)
    for (const Site& s : explore(c).sites)
      if (std::string_view(s.file).ends_with(file) && (only.empty() || only.count(s.function)))
        sites.insert(s);
  std::set<std::string> left;
  std::map<std::string, int> alike;
  int killed = 0;
  int all = 0;
  for (const Site& s : sites) {
    for (std::memory_order to : weaker(s)) {
      std::string mutant = std::string(s.function) + ": " + s.what + " " + order_name(s.order) +
                           " -> " + order_name(to);
      if (const int n = ++alike[mutant]; n > 1) mutant += " #" + std::to_string(n);
      Options o;
      o.weaken = &s;
      o.to = to;
      const char* killer = nullptr;
      for (const Case& c : cases) {
        if (explore(c, o).violated) {
          killer = c.name;
          break;
        }
      }
      std::printf("  %-58s %s\n", mutant.c_str(), killer ? killer : "survives");
      all++;
      killed += killer != nullptr;
      if (!killer) left.insert(mutant);
    }
  }
  std::printf("  %d of %d killed\n", killed, all);
  return left;
}

}  // namespace weft::model
