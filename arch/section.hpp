// The other half of include/weft/detail/section_cpu.hpp: whoever changed what sections look at.
#pragma once

namespace weft::arch {

/// When it returns, every section of another thread that began before is through, or has not happened.
/// Cost: about a microsecond per CPU that runs one of our threads, up to 30 on a virtual machine. Locks: any.
void section_barrier();

}  // namespace weft::arch
