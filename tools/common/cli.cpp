// Command lines of the tools.
#include "tools/common/cli.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string_view>

namespace tools {

namespace {

struct Unit {
  std::string_view name;
  double ns;
};
constexpr Unit kUnits[] = {{"", 1e9},   {"s", 1e9},  {"ms", 1e6},  {"us", 1e3},
                           {"ns", 1.0}, {"m", 60e9}, {"h", 3600e9}};
constexpr double kDurationMaxNs = 365.0 * 24 * 3600e9;

std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

}  // namespace

int usage_error(const std::string& program, const std::string& message) {
  std::fprintf(stderr, "%s: %s\n", program.c_str(), one_line(message).c_str());
  return kExitUsage;
}

std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& request) {  // --help
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    return usage_error(app.get_name(), std::string(error.what()) + " (try --help)");
  }
}

std::optional<std::chrono::nanoseconds> parse_duration(const std::string& text) {
  const char* begin = text.c_str();
  if (*begin < '0' || *begin > '9') return std::nullopt;  // no sign, space, "inf" or "nan"
  char* end = nullptr;
  double value = std::strtod(begin, &end);
  for (const Unit& unit : kUnits) {
    if (unit.name != end) continue;
    double ns = value * unit.ns;
    if (!(ns >= 1.0) || ns > kDurationMaxNs) return std::nullopt;
    return std::chrono::nanoseconds(std::llround(ns));
  }
  return std::nullopt;
}

CLI::Option* add_duration(CLI::App& app, const std::string& name, std::chrono::nanoseconds& to,
                          const std::string& help) {
  auto read = [&to, name](const std::string& text) {
    std::optional<std::chrono::nanoseconds> value = parse_duration(text);
    if (!value) {
      throw CLI::ValidationError(name, "'" + text + "' is no duration such as 10m, 30s or 250ms");
    }
    to = *value;
  };
  return app.add_option_function<std::string>(name, read, help)->type_name("TIME");
}

CLI::Option* add_procs(CLI::App& app, int& procs) {
  return app.add_option("--procs", procs, "Ps to run on; the runtime's default without it")
      ->check(CLI::Range(1, kProcsMax))
      ->type_name("N");
}

}  // namespace tools
