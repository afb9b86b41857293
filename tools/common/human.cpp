// Numbers and names as people read them.
#include "tools/common/human.hpp"

#include <cstdio>
#include <iterator>
#include <string_view>

namespace tools {

std::string with_commas(std::uint64_t n) {
  std::string digits = std::to_string(n);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return digits;
}

std::string human_bytes(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    unit++;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string human_duration(std::chrono::nanoseconds d) {
  char text[48];
  double ns = static_cast<double>(d.count());
  if (ns < 1e3) {
    std::snprintf(text, sizeof text, "%.0f ns", ns);
  } else if (ns < 1e6) {
    std::snprintf(text, sizeof text, "%.1f us", ns / 1e3);
  } else if (ns < 1e9) {
    std::snprintf(text, sizeof text, "%.1f ms", ns / 1e6);
  } else if (ns < 120e9) {
    std::snprintf(text, sizeof text, "%.1f s", ns / 1e9);
  } else {
    long long seconds = static_cast<long long>(ns / 1e9);
    std::snprintf(text, sizeof text, "%lld min %lld s", seconds / 60, seconds % 60);
  }
  return text;
}

std::string duration_option(std::chrono::nanoseconds d) {
  struct Unit {
    long long ns;
    const char* name;
  };
  constexpr Unit kUnits[] = {{3'600'000'000'000, "h"},
                             {60'000'000'000, "m"},
                             {1'000'000'000, "s"},
                             {1'000'000, "ms"},
                             {1'000, "us"}};
  for (const Unit& unit : kUnits) {
    if (d.count() % unit.ns == 0) return std::to_string(d.count() / unit.ns) + unit.name;
  }
  return std::to_string(d.count()) + "ns";
}

std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string quoted_path(const std::string& path) {
  // What the shell reads even between double quotes, or where the coreutils think so.
  constexpr std::string_view kSpecial = "!\"$&()*;<=>?[\\^`|";
  auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  bool special = false, apostrophe = false;
  bool plain = !path.empty() && path[0] != '#' && path[0] != '~';
  for (char c : path) {
    if (is_control(c) || kSpecial.find(c) != std::string_view::npos) special = true;
    if (c == ' ' || c == ':') plain = false;
    if (c == '\'') apostrophe = true;
  }
  if (!special && apostrophe) return std::string("\"").append(path).append("\"");
  if (!special && plain) return path;

  std::string out = "'";
  bool escaping = false;  // inside $'...', which the shell needs for a control character
  for (char c : path) {
    if (is_control(c)) {
      if (!escaping) out += "'$'";
      escaping = true;
      char escape[8];
      constexpr std::string_view kNamed = "\a\b\t\n\v\f\r";
      if (std::size_t at = kNamed.find(c); at != std::string_view::npos) {
        std::snprintf(escape, sizeof escape, "\\%c", "abtnvfr"[at]);
      } else {
        std::snprintf(escape, sizeof escape, "\\%03o", static_cast<unsigned char>(c));
      }
      out += escape;
      continue;
    }
    if (escaping) out += "''";
    escaping = false;
    out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return out + "'";
}

}  // namespace tools
