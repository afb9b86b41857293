// The knobs: Config as the program wrote it, overridden by WEFT_* variables, checked.
#pragma once

#include <weft/runtime.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

namespace weft::rt {

/// Applies the environment to `config` unless config.use_env is false, then checks the result. On Errc::bad_config `*why`
/// is one line that begins with "weft: " and has no newline. Unknown variables are nobody's business here.
std::error_code apply_env(Config& config, std::string* why);

/// Range checks alone.
std::error_code check_config(const Config& config, std::string* why);

/// `word` is one of the comma-separated words of Config::debug.
bool debug_has(const Config& config, std::string_view word);

/// A number in decimal or 0x form, all of `text`. False: it is none, or does not fit.
bool parse_number(std::string_view text, std::uint64_t* out);
/// The same with an optional suffix K, M or G (powers of 1024; "KiB", "kb" and the like as well).
bool parse_size(std::string_view text, std::uint64_t* out);

}  // namespace weft::rt
