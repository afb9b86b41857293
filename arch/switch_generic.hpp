// Any CPU: the switch as a call. Its return address stays on the return predictor (see switch_x86_64.hpp).
#pragma once

#include "arch/cpu.hpp"

namespace weft::arch {

WEFT_ALWAYS_INLINE Transfer switch_context(Context to, void* data) { return jump_fcontext(to, data); }

}  // namespace weft::arch
