// Functions that use errno and thread-local variables around a call that migrates: errno_use.cpp is built twice, as it is
// (namespace stale) and with weft/errno.hpp forced upon it (namespace cured).
#pragma once

#if defined(CURED)
#define ERRNO_USE cured
#else
#define ERRNO_USE stale
#endif

namespace weft::test {

namespace stale {
int errno_around(int before, void (*migrate)());
int errno_in_a_loop(int rounds, void (*migrate)());
}  // namespace stale
namespace cured {
int errno_around(int before, void (*migrate)());
int errno_in_a_loop(int rounds, void (*migrate)());
}  // namespace cured

}  // namespace weft::test
