// See barrier.hpp.
#include "arch/barrier.hpp"

#include <linux/membarrier.h>

#include "arch/kernel.hpp"

namespace weft::arch {

bool barrier_start() { return kernel.membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0) == 0; }

bool barrier_in_all_threads() { return kernel.membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0) == 0; }

}  // namespace weft::arch
