// Chooses the CPU's sections. TSan could not see what they do.
#pragma once

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WEFT_NO_SECTIONS
#endif
#endif

#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_THREAD__) && !defined(WEFT_NO_SECTIONS)
#include <weft/detail/section_x86_64.hpp>
#else
#include <weft/detail/section_generic.hpp>
#endif
#undef WEFT_NO_SECTIONS
