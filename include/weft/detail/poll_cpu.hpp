// Chooses the CPU's poll.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#include <weft/detail/poll_x86_64.hpp>
#else
#include <weft/detail/poll_generic.hpp>
#endif
