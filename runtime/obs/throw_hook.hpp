// Where weft-throwtrace, if the program is linked with it, answers the reports.
#pragma once

#include <cstddef>
#include <cstdint>
#include <typeinfo>

namespace weft::rt {

/// The return addresses where `object` was thrown first, innermost first; returns how many, 0: not known. `goid`: by whom.
using ThrowTraceFn = std::size_t (*)(const void* object, const std::type_info* type, std::uintptr_t* pcs, std::size_t max,
                                     std::uint64_t* goid);
extern ThrowTraceFn throw_trace;  // null: not linked

}  // namespace weft::rt
