/// weft/errno.hpp: an errno that stays right across runtime calls. Opt-in: not part of weft/weft.hpp.
///
/// A goroutine may go on on another thread after any runtime call that blocks, and each thread has an errno of its own. The C
/// library declares the function behind `errno` constant, so compilers ask it once and keep the answer across the call: a function
/// that looks at errno before and after one reads or writes the old thread's. This header replaces the macro by one that asks
/// each time. Include it last in a file, or, for files that nobody wants to touch, force it: `-include weft/errno.hpp`.
/// It is C as well as C++.
/// Cost:    a call per use, as before, but none is saved.
/// Limits:  only names that are compiled with it: libc and other libraries use their own; those do not block in weft. What errno
///          says is kept by blocking(), SyscallRegion and inserted polls alone: any other runtime call may change it.
/// Threads: any.
#pragma once

#include <errno.h>

#ifdef __cplusplus
extern "C" {
/// Where this thread's errno is; valid until the next runtime call.
int* weft_errno() noexcept;
}
#else
int* weft_errno(void);
#endif

#undef errno
#define errno (*weft_errno())
