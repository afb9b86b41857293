// Where the tree is that this program was built from.
#pragma once

#include <string>

namespace tools {

/// The weft tree that holds this executable, "." if that is the current directory or there is none.
std::string repository_or_current_directory();

/// The path of this executable, to start it again.
std::string own_executable();

}  // namespace tools
