// From a PC to names: function, file, line, and the calls that were inlined there.
//
// libbacktrace where the build has it (DWARF: files, lines, inlined calls), else the dynamic symbol table (functions only).
// The first query reads the debug information of all modules (about 0.1 s); it allocates, and its memory stays. So symbolising
// is a step of its own, after the PCs are collected: a report that must not wait can print them bare.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace weft::rt {

struct SourceFrame {
  std::string function;   ///< demangled, as tidy_function() leaves it
  std::string file;       ///< empty: not known
  int line = 0;
  bool inlined = false;
  bool internal = false;  ///< the runtime's own, or the glue of a public template: hidden from users
};

struct Symbol {
  std::vector<SourceFrame> frames;  ///< innermost first; never empty
  std::uintptr_t offset = 0;        ///< of the PC from the start of the function that contains it
};

/// Reports carry files and lines.
bool symbols_available();

/// Names the instruction at `pc` (of a return address: the byte before it). Allocates. Threads: any.
Symbol symbolize(std::uintptr_t pc);

/// "void ns::f<int>(int, char const*) [clone .cold]" becomes "ns::f<int>(...)", "f(int)::{lambda(char)#1}::operator()(char) const"
/// becomes "f::{lambda#1}(...)"; long template arguments are cut.
std::string tidy_function(std::string_view name);

/// Whether a function is of the machinery that reports leave out.
bool is_internal_function(std::string_view tidy, std::string_view file);

/// Symbols by PC, for a report that meets the same ones again and again.
class SymbolCache {
 public:
  const Symbol& at(std::uintptr_t pc) {
    auto it = symbols_.find(pc);
    if (it == symbols_.end()) it = symbols_.emplace(pc, symbolize(pc)).first;
    return it->second;
  }

 private:
  std::unordered_map<std::uintptr_t, Symbol> symbols_;
};

}  // namespace weft::rt
