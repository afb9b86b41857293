// What every tool does the same way on its command line: one clear line and exit 2 for bad use.
//
// CLI11 prints two lines and returns codes of its own for each kind of error; scripts that drive
// the tools want 0 pass, 1 fail, 2 usage, and nothing else.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

namespace tools {

inline constexpr int kExitPass = 0;
inline constexpr int kExitFail = 1;
inline constexpr int kExitUsage = 2;

/// Largest --procs that a tool accepts: the runtime starts one thread for each.
inline constexpr int kProcsMax = 1024;

/// Parses the command line. A value means: print nothing more and exit with it.
std::optional<int> parse(CLI::App& app, int argc, char** argv);

/// Prints "PROGRAM: MESSAGE" on stderr and returns kExitUsage.
int usage_error(const std::string& program, const std::string& message);

/// "10m", "1h", "30s", "1.5s", "250ms", "20us" or plain seconds; nullopt if it is none of them or
/// not above zero.
std::optional<std::chrono::nanoseconds> parse_duration(const std::string& text);

/// Adds an option that takes a duration as parse_duration() reads it.
CLI::Option* add_duration(CLI::App& app, const std::string& name, std::chrono::nanoseconds& to,
                          const std::string& help);

/// Adds --procs with the range check that all tools share. 0, the default, leaves it to the
/// runtime.
CLI::Option* add_procs(CLI::App& app, int& procs);

}  // namespace tools
