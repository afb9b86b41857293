// See knobs.hpp.
#include "runtime/base/knobs.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <limits>

namespace weft::rt {
namespace {

constexpr int kProcsMost = 1024;
constexpr int kThreadsMost = 1'000'000;
constexpr int kHibernateAfterMost = 86'400'000;  // ms
constexpr std::size_t kStackBytesMost = std::size_t{1} << 30;

struct Word {
  const char* text;
  int value;
};

constexpr Word kGuards[] = {{"auto", static_cast<int>(Guard::Auto)},
                            {"install", static_cast<int>(Guard::Install)},
                            {"hole", static_cast<int>(Guard::Hole)},
                            {"mprotect", static_cast<int>(Guard::Mprotect)},
                            {"canary", static_cast<int>(Guard::Canary)}};
constexpr Word kHibernates[] = {{"off", static_cast<int>(Hibernate::Off)},
                                {"auto", static_cast<int>(Hibernate::Auto)},
                                {"on", static_cast<int>(Hibernate::On)}};
constexpr Word kTracebacks[] = {{"none", static_cast<int>(Traceback::None)},
                                {"single", static_cast<int>(Traceback::Single)},
                                {"all", static_cast<int>(Traceback::All)},
                                {"system", static_cast<int>(Traceback::System)},
                                {"crash", static_cast<int>(Traceback::Crash)},
                                // As GOTRACEBACK takes them.
                                {"0", static_cast<int>(Traceback::None)},
                                {"1", static_cast<int>(Traceback::All)},
                                {"2", static_cast<int>(Traceback::System)}};
constexpr std::string_view kDebugWords[] = {"leaks", "hogs", "preemptoff", "preemptsignal", "tls", "nocgroup", "fixedprocs", "copytraps", "stacks", "sameturns"};

// Collects the first complaint.
class Check {
 public:
  explicit Check(std::string* why) : why_(why) {}

  bool failed() const { return failed_; }
  void refuse(std::string_view what, std::string_view value, std::string_view want) {
    if (failed_) return;
    failed_ = true;
    if (why_) {
      *why_ = "weft: ";
      *why_ += what;
      *why_ += '=';
      for (char c : value) *why_ += std::isprint(static_cast<unsigned char>(c)) ? c : '?';
      *why_ += ": want ";
      *why_ += want;
    }
  }
  std::error_code result() const { return failed_ ? Errc::bad_config : std::error_code(); }

 private:
  std::string* why_;
  bool failed_ = false;
};

/// The variable's value; null if it is unset or empty.
const char* variable(const char* name) {
  const char* v = std::getenv(name);
  return v && *v ? v : nullptr;
}

std::string range_text(const char* what, std::uint64_t least, std::uint64_t most) {
  return std::string("a ") + what + " from " + std::to_string(least) + " to " + std::to_string(most);
}

void int_from(Check& check, const char* name, int least, int most, int* out) {
  const char* v = variable(name);
  if (!v) return;
  std::uint64_t n = 0;
  if (!parse_number(v, &n) || n < static_cast<std::uint64_t>(least) || n > static_cast<std::uint64_t>(most))
    check.refuse(name, v, range_text("number", static_cast<std::uint64_t>(least), static_cast<std::uint64_t>(most)));
  else
    *out = static_cast<int>(n);
}

template <class E, std::size_t N>
void word_from(Check& check, const char* name, const Word (&words)[N], E* out) {
  const char* v = variable(name);
  if (!v) return;
  std::string want;
  for (const Word& w : words) {
    if (std::string_view(v) == w.text) {
      *out = static_cast<E>(w.value);
      return;
    }
    if (std::isdigit(static_cast<unsigned char>(*w.text))) continue;
    if (!want.empty()) want += ", ";
    want += w.text;
  }
  check.refuse(name, v, "one of " + want);
}

/// Calls f for each comma-separated word, blanks trimmed.
template <class F>
void each_word(std::string_view list, F f) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    std::string_view word = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
    while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
    if (!word.empty()) f(word);
  }
}

void check_debug(Check& check, const char* what, std::string_view value) {
  each_word(value, [&](std::string_view word) {
    for (std::string_view known : kDebugWords)
      if (word == known) return;
    std::string want = "a comma-separated list of";
    for (std::string_view known : kDebugWords) want += " " + std::string(known);
    check.refuse(what, value, want);
  });
}

void check_int(Check& check, const char* what, int value, int least, int most) {
  if (value < least || value > most)
    check.refuse(what, std::to_string(value),
                 range_text("number", static_cast<std::uint64_t>(least), static_cast<std::uint64_t>(most)));
}

}  // namespace

bool parse_number(std::string_view text, std::uint64_t* out) {
  int base = 10;
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
    base = 16;
    text.remove_prefix(2);
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

bool parse_size(std::string_view text, std::uint64_t* out) {
  std::size_t digits = text.size();
  const bool hex = text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
  while (!hex && digits > 0 && !std::isdigit(static_cast<unsigned char>(text[digits - 1]))) digits--;
  std::string suffix;
  for (char c : text.substr(digits)) suffix += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  unsigned shift = 0;
  if (!suffix.empty()) {
    switch (suffix[0]) {
      case 'k': shift = 10; break;
      case 'm': shift = 20; break;
      case 'g': shift = 30; break;
      case 'b': break;
      default: return false;
    }
    const std::string rest = shift ? suffix.substr(1) : suffix;
    if (!rest.empty() && rest != "b" && rest != "ib") return false;
  }
  if (!parse_number(text.substr(0, digits), out)) return false;
  if (*out > std::numeric_limits<std::uint64_t>::max() >> shift) return false;
  *out <<= shift;
  return true;
}

bool debug_has(const Config& config, std::string_view word) {
  bool found = false;
  each_word(config.debug, [&](std::string_view w) { found = found || w == word; });
  return found;
}

std::error_code check_config(const Config& config, std::string* why) {
  Check check(why);
  check_int(check, "Config::procs", config.procs, 0, kProcsMost);
  if (config.stack_bytes < 1 || config.stack_bytes > kStackBytesMost)
    check.refuse("Config::stack_bytes", std::to_string(config.stack_bytes), "a size from 1 to 1G");
  if (config.guard > Guard::Canary) check.refuse("Config::guard", std::to_string(static_cast<int>(config.guard)), "a member of Guard");
  if (config.hibernate > Hibernate::On)
    check.refuse("Config::hibernate", std::to_string(static_cast<int>(config.hibernate)), "a member of Hibernate");
  check_int(check, "Config::hibernate_after",
            static_cast<int>(std::clamp<std::int64_t>(config.hibernate_after.count(), 0, kHibernateAfterMost + 1)), 1, kHibernateAfterMost);
  check_int(check, "Config::threads_max", config.threads_max, 1, kThreadsMost);
  check_int(check, "Config::detached_max", config.detached_max, 0, kThreadsMost);
  check_int(check, "Config::blocking_max", config.blocking_max, 1, kThreadsMost);
  check_debug(check, "Config::debug", config.debug);
  if (config.traceback > Traceback::Crash)
    check.refuse("Config::traceback", std::to_string(static_cast<int>(config.traceback)), "a member of Traceback");
  return check.result();
}

std::error_code apply_env(Config& config, std::string* why) {
  if (config.use_env) {
    Check check(why);
    int_from(check, "WEFT_PROCS", 1, kProcsMost, &config.procs);
    if (const char* v = variable("WEFT_SEED"); v && !parse_number(v, &config.seed))
      check.refuse("WEFT_SEED", v, range_text("number", 0, std::numeric_limits<std::uint64_t>::max()));
    if (const char* v = variable("WEFT_STACK_BYTES")) {
      std::uint64_t n = 0;
      if (!parse_size(v, &n) || n < 1 || n > kStackBytesMost)
        check.refuse("WEFT_STACK_BYTES", v, "a size from 1 to 1G, as in 65536, 64K or 1M");
      else
        config.stack_bytes = static_cast<std::size_t>(n);
    }
    word_from(check, "WEFT_GUARD", kGuards, &config.guard);
    word_from(check, "WEFT_HIBERNATE", kHibernates, &config.hibernate);
    int_from(check, "WEFT_THREADS_MAX", 1, kThreadsMost, &config.threads_max);
    int_from(check, "WEFT_DETACHED_MAX", 0, kThreadsMost, &config.detached_max);
    int_from(check, "WEFT_BLOCKING_MAX", 1, kThreadsMost, &config.blocking_max);
    if (const char* v = variable("WEFT_DEBUG")) {
      check_debug(check, "WEFT_DEBUG", v);
      config.debug = v;
    }
    word_from(check, "WEFT_TRACEBACK", kTracebacks, &config.traceback);
    int after = static_cast<int>(config.hibernate_after.count());
    int_from(check, "WEFT_HIBERNATE_AFTER", 1, kHibernateAfterMost, &after);
    config.hibernate_after = std::chrono::milliseconds(after);
    if (const char* v = variable("WEFT_HIBERNATE_TARGET")) {
      std::uint64_t n = 0;
      if (!parse_size(v, &n))
        check.refuse("WEFT_HIBERNATE_TARGET", v, "a size, as in 1000000000, 800M or 1G");
      else
        config.hibernate_target = static_cast<std::size_t>(n);
    }
    if (const char* v = variable("WEFT_STACKS_BYTES_MAX")) {
      std::uint64_t n = 0;
      if (!parse_size(v, &n))
        check.refuse("WEFT_STACKS_BYTES_MAX", v, "a size, as in 1000000000, 800M or 1G");
      else
        config.stacks_bytes_max = static_cast<std::size_t>(n);
    }
    if (const char* v = variable("WEFT_CRASH_OUTPUT")) config.crash_output = v;
    if (check.failed()) return check.result();
  }
  return check_config(config, why);
}

}  // namespace weft::rt
