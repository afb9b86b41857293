// A full memory barrier in every thread of the process, asked for by one of them: the costly half of a handshake whose other
// half shall cost nothing. Linux: membarrier(PRIVATE_EXPEDITED), about a microsecond per CPU that runs one of our threads.
#pragma once

namespace weft::arch {

/// Once before the first use. False: the kernel does not offer it.
bool barrier_start();

/// After it, each other thread's accesses lie before or after the call, in program order. False: refused.
bool barrier_in_all_threads();

}  // namespace weft::arch
