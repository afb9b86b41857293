// How many Ps there are while nobody has said so.
#pragma once

#include <weft/runtime.hpp>

#include <cstdint>

namespace weft::rt {

/// The CPUs this process may run on and the quota of its control groups, now: see procs.cpp. At least 1, at most kProcsMax.
int default_procs();

/// At boot: `config.procs`, which fixes it, or the default.
int procs_at_boot(const Config& config);
/// Somebody has said so: `n` it stays.
void procs_fix(int n);
/// By sysmon at each look: follows the default, asked for at most once in `procs_period_ns`.
void procs_look(std::int64_t now);

/// A second. Tests are more impatient.
extern std::int64_t procs_period_ns;

}  // namespace weft::rt
