// What tests of the adapter may see.
#pragma once

#include <weft/gc_hook.hpp>

namespace weft::gc::boehm {

/// Not null: views for which it answers false are kept from the collector. For tests that must find that.
extern bool (*shows)(const StackView& view);

}  // namespace weft::gc::boehm
