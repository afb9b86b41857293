/// weft/gc_boehm.hpp: goroutines on the collected heap of the Boehm collector (libgc). In a library of its own, weft-gc.
///
/// After init() goroutines, and threads that libgc knows, allocate with GC_MALLOC and its kin, or with make(), and keep pointers in
/// locals, closures, channels, contexts and collected objects; the collector finds them wherever a goroutine stands. Not found, as
/// everywhere with libgc: pointers in malloc'ed memory (also inside std::string, std::vector and std::function: give them
/// ValueAllocator-like allocators of libgc's), in a thrown exception, in thread_locals of threads that are not the runtime's.
///
/// Rules  Threads of your own that touch collected memory register themselves: GC_register_my_thread(). Goroutines that allocate
///        need stacks of 64 KiB or more: libgc clears 16 KiB of the stack that it runs on now and then. No GC_enable_incremental(),
///        no GC_do_blocking() around anything that calls weft. Finalizers run in run_finalizers() only: inside the allocator they
///        could move a goroutine to another thread, whose free lists it would go on with.
/// Deadlock The report that all goroutines are asleep counts threads: libgc's markers are strangers to it, so that it stays silent
///        (GC_MARKERS=1 in the environment: none).
/// Signals  Threads of the runtime unblock libgc's (SIGPWR, SIGXCPU on Linux), beside SIGURG.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace weft::gc::boehm {

/// Starts libgc and attaches it. On the first thread of the process, before anything of weft's that holds values is made.
/// Panic: too late (see gc::attach). Again: nothing.
void init();

/// Memory that is traced, or, `allocate_plain`, holds no pointers. Zeroed. Throws bad_alloc.
void* allocate(std::size_t bytes);
void* allocate_plain(std::size_t bytes);

/// A collected T. Its destructor is not run.
template <class T, class... Args>
T* make(Args&&... args) {
  static_assert(std::is_trivially_destructible_v<T>, "nobody will destroy it");
  static_assert(alignof(T) <= 16);
  return ::new (allocate(sizeof(T))) T{std::forward<Args>(args)...};
}

/// A whole collection, now.
void collect();

/// Runs finalizers (GC_REGISTER_FINALIZER) of what was found dead, on the caller. Returns how many.
int run_finalizers();

struct HeapStats {
  std::size_t heap_bytes = 0;   ///< of the system
  std::size_t free_bytes = 0;   ///< of these
  std::uint64_t allocated_bytes = 0;  ///< since the process began
  std::uint64_t collections = 0;
};
/// How long collections stopped everybody: gc::pause_stats().
HeapStats heap_stats();

}  // namespace weft::gc::boehm
