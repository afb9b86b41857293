// SCHED_POINT(id): one in every runtime operation, where the order of threads may matter.
//
// Nothing in normal builds. A build with -DWEFT_PERTURB=1 (meson option `perturb`) delays the thread there at random, by the
// seed in WEFT_SEED, so that rare interleavings become common. A simulator takes the same points over.
#pragma once

#if defined(WEFT_PERTURB) && WEFT_PERTURB
namespace weft::rt {
void perturb(const char* id);
}
#define SCHED_POINT(id) ::weft::rt::perturb(id)
#else
#define SCHED_POINT(id) ((void)0)
#endif
