// See eh_globals.hpp.
#include "arch/eh_globals.hpp"

#include <cxxabi.h>

namespace weft::arch {

EhGlobals* thread_eh_globals() {
  return reinterpret_cast<EhGlobals*>(abi::__cxa_get_globals());
}

}  // namespace weft::arch
