// All goroutines at once: taken while the world stands still, named and printed afterwards.
#pragma once

#include <weft/dump.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/obs/traceback.hpp"

namespace weft::rt {

/// Pages of text at most, as in Go.
inline constexpr std::size_t kDumpBytesMax = std::size_t{64} << 20;

/// A picture of all goroutines but `without`: headers and PCs, so that the world may go on while they are printed.
class StackDump {
 public:
  explicit StackDump(bool system) : options_{.system = system, .cache = &cache_} {}

  /// `stopped`: the world is. Goroutines of which nothing can be known then are listed without a stack. May throw bad_alloc.
  void take(const G* without, bool stopped);
  /// One empty line before each goroutine.
  void print(Sink& out);

  std::size_t size() const { return taken_.size(); }

 private:
  struct Taken {
    std::size_t header_at, header_size;
    std::size_t pcs_at, pcs_kept, pcs_count;
    const void* site;
    std::uint64_t parent;
    std::uint64_t scope_of;  // whose scope it is a child in; 0: none
    bool elsewhere;
  };

  PrintOptions options_;
  SymbolCache cache_;
  std::string headers_;
  std::vector<std::uintptr_t> pcs_;
  std::vector<Taken> taken_;
};

/// All goroutines that have not ended, by id.
std::vector<G*> goroutines_by_id();

/// stop_world() for reports: gives up after 100 ms, and at once if the caller's thread seems to hold what it needs.
bool stop_world_for_report();

/// SIGQUIT as Go answers it: the goroutines on stderr, exit status 2. For run().
void sigquit_install();
void sigquit_remove();

}  // namespace weft::rt
