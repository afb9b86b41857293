// Numbers as people read them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace tools {

std::string with_commas(std::uint64_t n);                 // 1,234,567
std::string human_bytes(std::uint64_t bytes);             // 17 B, 4.2 MiB
std::string human_duration(std::chrono::nanoseconds d);   // 31.5 ms, 2.4 s, 10 min 3 s
std::string duration_option(std::chrono::nanoseconds d);  // as parse_duration() reads it: 10m
std::string json_string(const std::string& text);         // quoted and escaped

/// A path as the coreutils write it in their messages: quoted for the shell where it must be.
std::string quoted_path(const std::string& path);

}  // namespace tools
