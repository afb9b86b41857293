/// weft/stacks.hpp: what the stacks of this process take, and what they need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace weft {

/// The deepest that the goroutines of one `go` have come. Only with WEFT_DEBUG=stacks.
struct StackSite {
  const void* site = nullptr;  ///< an instruction of the statement
  std::string function;        ///< that it stands in; empty: not known
  std::string file;
  int line = 0;
  std::uint64_t goroutines = 0;  ///< that have ended
  std::size_t deepest = 0;       ///< bytes, in whole pages
  std::size_t has = 0;           ///< Spawn::stack_bytes, or the default, as rounded up
  std::size_t recommended = 0;   ///< the smallest class that leaves half of itself free
};

struct StackStats {
  std::string guard;               ///< the rung in force
  std::size_t made = 0;            ///< growable stacks that exist, slots of copyable ones among them
  std::size_t bound = 0;           ///< that somebody is on
  std::size_t peak_bound = 0;      ///< about: stacks at hand in the Ps count as bound
  std::size_t trimmed = 0;         ///< times that a stack nobody wanted has given its pages back
  std::uint64_t refused = 0;       ///< times that there was none: the kernel's refusal, or Config::stacks_bytes_max
  std::size_t hibernated = 0;      ///< stacks that are out of memory now
  std::uint64_t hibernated_ever = 0;
  std::uint64_t touched = 0;       ///< of these, brought back because somebody else touched them
  std::size_t slots = 0;           ///< that copyable goroutines share
  std::size_t copied_out = 0;      ///< blocks of copyable and hibernated stacks, with those at hand for the next
  std::size_t block_bytes = 0;     ///< what they take
  std::vector<StackSite> sites;    ///< the deepest first
};

/// Cost: looks at every stack. Threads: any, while a runtime runs.
StackStats stack_stats();

}  // namespace weft
