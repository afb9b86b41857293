// Starting and naming OS threads. A refused start is an answer, never an abort.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>

namespace weft::arch {

/// Starts `fn(arg)` on a new joinable thread with all signals blocked that `fn` does not unblock itself: a thread
/// inherits the creator's mask. Returns 0 or the error number of pthread_create (EAGAIN: no resources now).
int start_thread(pthread_t* out, void* (*fn)(void*), void* arg);

/// At most 15 characters are kept.
void name_this_thread(const char* name);

/// Number of threads of this process as the kernel counts them; negative if it cannot be read. ThreadSanitizer's
/// background thread is not counted.
int count_process_threads();

/// CPUs this process may run on (affinity mask), at least 1.
int allowed_cpus();

/// The kernel's id of the calling thread.
int thread_id();

/// Is this the process's first?
bool is_first_thread();
/// The calling thread's stack: [lo, hi). Of threads other than the first, `hi` is above their thread-local variables. False: not known.
bool own_thread_stack(void** lo, void** hi);

/// CPU time that `thread` has used, in ns; negative if it cannot be told.
long long thread_cpu_ns(pthread_t thread);
/// True if the kernel has the thread waiting for a CPU or running on one, not asleep.
bool thread_is_runnable(int tid);

/// Asks that the kernel let the thread `tid` (0: the caller) run `ns` at a time, 0: as long as usual, when more threads want to run
/// than there are CPUs. Its share stays the same; one with shorter turns gets its next one sooner. 0.1 to 100 ms; Linux since
/// 6.12, others take it and do nothing. True also where it means nothing (a real-time thread); false: refused. Two system calls.
bool set_thread_turns(int tid, std::int64_t ns);

}  // namespace weft::arch
