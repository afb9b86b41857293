// See symbolize.hpp.
#include "runtime/obs/symbolize.hpp"

#include <cxxabi.h>
#include <dlfcn.h>

#include <cstdlib>

#include "arch/sanitizer.hpp"
#include "runtime/base/immortal.hpp"

#if defined(WEFT_HAVE_LIBBACKTRACE)
#include <backtrace.h>
#endif

namespace weft::rt {
namespace {

constexpr std::size_t kNameLong = 120;

std::string demangle(const char* name) {
  if (name[0] != '_' || name[1] != 'Z') return name;
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string out = status == 0 && text ? text : name;
  std::free(text);
  return out;
}

/// "/a/b/../c" is "/a/c".
std::string clean_path(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    if (part == ".") continue;
    const std::size_t last = out.rfind('/', out.empty() ? 0 : out.size() - 2);
    const std::string_view before = std::string_view(out).substr(last == std::string::npos ? 0 : last + 1);
    if (part == ".." && out.size() > 1 && !before.empty() && before != "../") {
      out.resize(out.size() - before.size());
      continue;
    }
    out += part;
    if (slash != std::string_view::npos) out += '/';
  }
  return out;
}

bool starts_with_any(std::string_view text, const std::string_view* list, std::size_t n) {
  for (std::size_t i = 0; i < n; i++)
    if (text.substr(0, list[i].size()) == list[i]) return true;
  return false;
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// What reports leave out: the scheduler, the glue between a public template and it, and the exception machinery.
constexpr std::string_view kHiddenFunctions[] = {
    "weft::rt::",         "weft::arch::",      "weft::detail::",     "weft::go<",           "weft::try_go<",
    "weft::run<",         "weft::panic<",      "weft::fatal(",       "weft::Runtime::go",   "weft::Chan<",         "weft::BasicChan<",
    "weft::SendChan<",    "weft::RecvChan<",   "weft::select",       "weft::Selector::",    "weft::blocking<",
    "weft::func<", "weft::Frame<", "weft::SyscallRegion::", "weft::await<",   "weft::AwaitGate",    "weft::yield(",        "weft::goexit(",
    "weft::sleep_for<",   "weft::sleep_until<", "weft::wait_fd(",    "weft::dump_goroutines(", "weft::WaitGroup::",
    "weft::Mutex::",          "weft::Resume<",      "std::terminate(",   "std::rethrow_exception(", "std::invoke<",  "std::__invoke",
    "std::apply<",        "std::__apply_impl<", "std::_Function_handler<", "std::function<", "__cxxabiv1::", "__cxa_throw(",
    "__cxa_rethrow(",     "__cxa_call_",       "__gxx_personality",  "_Unwind_",            "jump_fcontext(",
    "make_fcontext(",     "__clang_call_terminate(", "__morestack",
};
// Of calls that were inlined, whose names may lack their namespaces.
constexpr std::string_view kHiddenFiles[] = {
    "/weft/go.hpp",     "/weft/chan.hpp",     "/weft/select.hpp",   "/weft/runtime.hpp", "/weft/panic.hpp",
    "/weft/await.hpp",  "/weft/mutex.hpp",    "/weft/wait_group.hpp", "/weft/defer.hpp", "/weft/frame.hpp", "/weft/blocking.hpp", "/weft/time.hpp",     "/weft/fd.hpp",      "/weft/test.hpp",
    "/weft/detail/closure.hpp", "/weft/detail/element.hpp", "/weft/detail/clock.hpp", "/weft/detail/poll_cpu.hpp",
    "/weft/detail/poll_x86_64.hpp", "/weft/detail/poll_generic.hpp", "/bits/invoke.h", "/bits/std_function.h", "/functional", "/tuple",
};
// Of the C++ runtime's own libraries, stripped of names, between a throw and std::terminate.
constexpr std::string_view kHiddenModules[] = {"libstdc++.so", "libgcc_s.so", "libc++abi.so"};

/// The folder above runtime/, spelled as debug information spells it.
const std::string& source_root() {
  static Immortal<const std::string> root(std::in_place, [] {
    const std::string path = clean_path(__FILE__);
    const std::size_t at = path.rfind("runtime/obs/");
    return path.substr(0, at == std::string::npos ? 0 : at);
  });
  return *root;
}

/// The text from `at` up to the comma or bracket that ends a template argument.
std::string_view argument_at(std::string_view s, std::size_t at) {
  int depth = 0;
  std::size_t i = at;
  for (; i < s.size(); i++) {
    const char c = s[i];
    if (c == '-' && i + 1 < s.size() && s[i + 1] == '>') {
      i++;
      continue;
    }
    if (depth == 0 && (c == ',' || c == '>')) break;
    if (c == '<' || c == '(' || c == '{' || c == '[') depth++;
    if (c == '>' || c == ')' || c == '}' || c == ']') depth--;
  }
  while (i > at && s[i - 1] == ' ') i--;
  return s.substr(at, i - at);
}

/// Debug information calls a lambda that was inlined "operator()" and no more. The function around it is an instance of ours
/// for this very lambda: its symbol says whose it is. Empty: it is not.
std::string_view lambda_in(std::string_view symbol) {
  constexpr std::string_view kGlue[] = {"weft::WaitGroup::go<", "weft::detail::Bound<", "weft::run<"};
  for (std::string_view glue : kGlue) {
    const std::size_t at = symbol.find(glue);
    if (at == std::string_view::npos) continue;
    std::string_view name = argument_at(symbol, at + glue.size());
    while (!name.empty() && name.back() == '&') name.remove_suffix(1);
    return name;
  }
  return {};
}

/// From what was found to what is shown.
void finish(Symbol* s) {
  const std::string symbol = s->frames.back().function;
  SourceFrame* lambda = nullptr;
  for (std::size_t i = 0; i < s->frames.size(); i++) {
    SourceFrame& f = s->frames[i];
    f.inlined = i + 1 < s->frames.size();
    f.internal = is_internal_function(f.function, f.file);
    if (f.function.empty()) f.function = "?";
    if (!f.internal && f.inlined && f.function == "operator()") lambda = &f;
    f.function = tidy_function(f.function);
  }
  if (!lambda) return;
  if (const std::string_view name = lambda_in(symbol); !name.empty())
    lambda->function = tidy_function(std::string(name) + "::operator()()");
}

// ---- tidying -------------------------------------------------------------------------------------------------------

/// The length of the operator's name if one stands at `at`: its < and > are no brackets, its blank separates nothing.
std::size_t operator_at(std::string_view s, std::size_t at) {
  constexpr std::string_view kWord = "operator";
  if (s.substr(at, kWord.size()) != kWord) return 0;
  if (at > 0 && s[at - 1] != ':' && s[at - 1] != ' ') return 0;
  std::size_t n = kWord.size();
  if (s.substr(at + n, 2) == "()" || s.substr(at + n, 2) == "[]") return n + 2;
  while (at + n < s.size() && std::string_view("<>=-+*/%^&|!~,").find(s[at + n]) != std::string_view::npos) n++;
  if (n > kWord.size() && s.substr(at + n, 2) == " <") return n + 1;  // "operator<< <char>"
  // A conversion, new or delete: the name goes up to the parameters.
  if (n == kWord.size() && at + n < s.size() && s[at + n] == ' ') {
    const std::size_t open = s.find('(', at + n);
    n = (open == std::string_view::npos ? s.size() : open) - at;
  }
  return n;
}

/// Walks `s` outside of brackets. f(index, char) for each such character.
template <class F>
void each_outer(std::string_view s, F f) {
  int depth = 0;
  for (std::size_t i = 0; i < s.size(); i++) {
    if (const std::size_t n = depth == 0 ? operator_at(s, i) : 0) {
      i += n - 1;
      continue;
    }
    const char c = s[i];
    if (c == '-' && i + 1 < s.size() && s[i + 1] == '>') {
      i++;
      continue;
    }
    if (c == '(' || c == '<' || c == '[' || c == '{') {
      if (depth++ == 0) f(i, c);
    } else if (c == ')' || c == '>' || c == ']' || c == '}') {
      if (depth > 0) depth--;
    } else if (depth == 0) {
      f(i, c);
    }
  }
}

/// "f(int)::{lambda(char)#1}::operator()() const::g(int) const" becomes "f::{lambda#1}::g": where a function is local to, without
/// what only the linker needs.
std::string short_scopes(std::string_view name) {
  std::string out;
  int depth = 0;
  for (std::size_t i = 0; i < name.size();) {
    if (const std::size_t n = depth == 0 ? operator_at(name, i) : 0) {
      const bool of_lambda = name.substr(i, n) == "operator()" && ends_with(out, "}::");
      if (of_lambda)
        out.resize(out.size() - 2);
      else
        out += name.substr(i, n);
      i += n;
      continue;
    }
    const char c = name[i];
    if (depth == 0 && c == '{' && name.substr(i, 8) == "{lambda(") {
      const std::size_t end = name.find('#', i);
      if (end != std::string_view::npos) {
        out += "{lambda";
        i = end;
        depth = 1;
        continue;
      }
    }
    if (depth == 0 && c == '(' && name.substr(i, 21) != "(anonymous namespace)") {
      // Parameters of a scope: there is more of the name behind them.
      std::size_t end = i;
      int open = 0;
      do {
        if (name[end] == '(') open++;
        if (name[end] == ')') open--;
        end++;
      } while (open > 0 && end < name.size());
      std::size_t rest = end;
      if (name.substr(rest, 6) == " const") rest += 6;
      if (name.substr(rest, 2) == "::") {
        i = rest;
        continue;
      }
      out += name.substr(i);
      return out;
    }
    if (c == '(' || c == '<' || c == '[' || c == '{') depth++;
    if ((c == ')' || c == '>' || c == ']' || c == '}') && depth > 0 && !(c == '>' && i > 0 && name[i - 1] == '-')) depth--;
    out += c;
    i++;
  }
  return out;
}

/// Template arguments become "...", so that what is left can be read.
std::string cut_arguments(std::string_view name) {
  std::string out;
  int depth = 0;
  for (std::size_t i = 0; i < name.size(); i++) {
    if (const std::size_t n = depth == 0 ? operator_at(name, i) : 0) {
      out += name.substr(i, n);
      i += n - 1;
      continue;
    }
    if (name[i] == '>' && (i == 0 || name[i - 1] != '-') && depth > 0 && --depth == 0) out += "...";
    if (depth == 0) out += name[i];
    if (name[i] == '<') depth++;
  }
  return out;
}

#if defined(WEFT_HAVE_LIBBACKTRACE)

void on_error(void*, const char*, int) {}

// Created once; libbacktrace never gives its memory back.
backtrace_state* state() {
  static backtrace_state* s = backtrace_create_state(nullptr, /*threaded=*/1, on_error, nullptr);
  return s;
}

struct Found {
  Symbol* symbol;
  const char* name = nullptr;
  std::uintptr_t start = 0;
};

int on_frame(void* arg, std::uintptr_t, const char* file, int line, const char* function) {
  if (!function && !file) return 0;
  auto* found = static_cast<Found*>(arg);
  SourceFrame f;
  if (function) f.function = demangle(function);
  if (file) f.file = clean_path(file);
  f.line = line;
  found->symbol->frames.push_back(std::move(f));
  return 0;
}

void on_symbol(void* arg, std::uintptr_t, const char* name, std::uintptr_t start, std::uintptr_t) {
  auto* found = static_cast<Found*>(arg);
  found->name = name;
  found->start = start;
}

bool ask_libbacktrace(std::uintptr_t pc, Symbol* out) {
  backtrace_state* s = state();
  if (!s) return false;
  // Its tables and the names in them are shared by all threads that ask, published by its own atomics.
  const arch::SanForeign foreign;
  Found found{out};
  backtrace_pcinfo(s, pc, on_frame, on_error, &found);
  backtrace_syminfo(s, pc, on_symbol, on_error, &found);
  if (found.name) {
    if (out->frames.empty()) out->frames.emplace_back();
    // Debug information may name the function without its namespaces, the symbol table never does.
    out->frames.back().function = demangle(found.name);
    out->offset = pc - found.start;
  }
  return !out->frames.empty();
}

#else

bool ask_libbacktrace(std::uintptr_t, Symbol*) { return false; }

#endif

void ask_loader(std::uintptr_t pc, Symbol* out) {
  out->frames.emplace_back();
  SourceFrame& f = out->frames.back();
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(pc), &info) && info.dli_fname) {
    f.file = info.dli_fname;  // what addr2line wants
    if (info.dli_sname) {
      f.function = demangle(info.dli_sname);
      out->offset = pc - reinterpret_cast<std::uintptr_t>(info.dli_saddr);
      return;
    }
    const std::string_view path = info.dli_fname;
    const std::size_t slash = path.rfind('/');
    f.function = path.substr(slash == std::string_view::npos ? 0 : slash + 1);
    out->offset = pc - reinterpret_cast<std::uintptr_t>(info.dli_fbase);
    return;
  }
  f.function = "?";
  out->offset = pc;
}

}  // namespace

bool symbols_available() {
#if defined(WEFT_HAVE_LIBBACKTRACE)
  return true;
#else
  return false;
#endif
}

Symbol symbolize(std::uintptr_t pc) {
  Symbol s;
  if (!ask_libbacktrace(pc, &s)) ask_loader(pc, &s);
  finish(&s);
  return s;
}

std::string tidy_function(std::string_view full) {
  const std::string scoped = short_scopes(full);
  std::string_view name = scoped;
  // The parameters are the last parentheses outside of brackets; what follows them (const, [clone]) goes.
  std::size_t parameters = name.size();
  each_outer(name, [&](std::size_t i, char c) {
    if (c == '(' && name.substr(i, 21) != "(anonymous namespace)") parameters = i;
  });
  name = name.substr(0, parameters);
  // The return type of a template ends at the last blank outside of brackets.
  std::size_t start = 0;
  each_outer(name, [&](std::size_t i, char c) {
    if (c == ' ') start = i + 1;
  });
  name.remove_prefix(start);
  std::string out = name.size() > kNameLong ? cut_arguments(name) : std::string(name);
  return out + "(...)";
}

bool is_internal_function(std::string_view name, std::string_view file) {
  const std::string tidy = tidy_function(name);
  if (starts_with_any(tidy, kHiddenFunctions, std::size(kHiddenFunctions))) return true;
  if (starts_with_any(tidy, kHiddenModules, std::size(kHiddenModules))) return true;
  for (std::string_view f : kHiddenFiles)
    if (ends_with(file, f)) return true;
  const std::string& root = source_root();
  return !root.empty() && file.substr(0, root.size()) == root &&
         (file.substr(root.size(), 8) == "runtime/" || file.substr(root.size(), 5) == "arch/");
}

}  // namespace weft::rt
