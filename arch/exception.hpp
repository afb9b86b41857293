// What the C++ runtime keeps about an exception object, beyond what the language shows. Itanium ABI.
#pragma once

#include <exception>

namespace weft::arch {

/// The object that the pointer holds: its identity while any pointer or handler holds it.
inline void* exception_object(const std::exception_ptr& e) { return *reinterpret_cast<void* const*>(&e); }

/// From here on `hook(object)` runs instead of the destructor of the object of `e`, and has to call that one, which is given in
/// `*destroy` (null: none is needed). False: the object's header does not look as expected; nothing is changed.
bool hook_exception_end(const std::exception_ptr& e, void (*hook)(void* object), void (**destroy)(void* object));

}  // namespace weft::arch
