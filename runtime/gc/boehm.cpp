// The adapter for the Boehm collector: libgc 8.2, its own threads and signals left as they are.
//
// libgc stops the threads that it knows by signals and scans each from its stack pointer to a fixed bottom. On a goroutine's thread
// the stack pointer is in a stack that libgc has never heard of: from there to the thread's bottom lies unmapped memory. And
// goroutines that are parked have no thread at all. So:
//
// Threads    Each M is registered with libgc while it lives: any goroutine may then set a collection off, and has free lists of its
//            thread for small objects (between two calls of the runtime a goroutine stays on its thread). libgc also knows the
//            M's signal stack (GC_register_altstack).
// Stop       Just before libgc stops its threads (GC_EVENT_PRE_STOP_WORLD) the world is frozen by SIGURG: each M that runs stands on
//            its signal stack. libgc's signals find it there, so what libgc scans of it is [stack pointer, end of the signal
//            stack): this holds the frame of SIGURG with all registers. Ms that sleep are on their own stacks, which libgc knows.
//            The M that collects is on a goroutine's: its bottom is moved to that stack's end until the collection is over.
//            No switch of goroutines ever tells libgc anything: that would cost each of them.
// Roots      What libgc cannot know is pushed behind its own threads (GC_set_push_other_roots): the stacks of all goroutines, the own
//            stacks of Ms that run one, closures. Channels, boxes and the like are uncollectable blocks: Collector::allocate.
// Locks      The freeze comes with libgc's allocation lock held: it waits for no safepoint and does not switch (sched/freeze.cpp). A
//            frozen thread may wait for that lock, not hold it. It cannot hold the lock of the marker threads either: libgc
//            waits for builders of free lists before the event, and they begin under the allocation lock.
// Rejected   Ms that libgc does not know: a collection that one sets off aborts ("Collecting from unknown thread"), and so all
//            threads would have to wait for one that libgc knows, or the heap grows meanwhile. GC_set_stackbottom at each
//            switch: a lock each time. libgc's signals alone: their handlers would run on the goroutines' stacks and need 5 KB
//            of each, and nobody would know where a thread stood.
// Finalizers on demand: run by the allocator they could call the runtime and go on on another thread, while GC_malloc holds
//            a pointer to this one's free list.
#define GC_THREADS
#define GC_NO_THREAD_REDIRECTS
#include "runtime/gc/boehm.hpp"

#include <gc/gc.h>
#include <gc/gc_mark.h>
#include <weft/gc_boehm.hpp>

#include <pthread.h>
#include <signal.h>

#include <cstdint>
#include <cstdlib>

#include "arch/cpu.hpp"
#include "runtime/base/check.hpp"

namespace weft::gc::boehm {

bool (*shows)(const StackView& view) = nullptr;

namespace {

GC_push_other_roots_proc libgcs_roots = nullptr;
bool started = false;

// This M's, on its thread: from thread_began to thread_ends, and in the callbacks of a collection. No switch of goroutines between
// two uses in one function.
struct Registered {
  bool known = false;        // to libgc, as an M
  bool by_us = false;
  void* bottom = nullptr;    // of the thread's own stack
  const void* stack_lo = nullptr;
  std::size_t stack_bytes = 0;
};
thread_local Registered here;

// A thread that is no M but makes blocks for values (a host's, the runtime's sysmon): known to libgc from its first one to its end, since
// each may set a collection off.
struct Outsider {
  bool asked = false;
  bool by_us = false;
  ~Outsider() {
    if (by_us) GC_unregister_my_thread();
  }
};
thread_local Outsider outsider;

WEFT_NOINLINE Registered& this_thread() {
  asm volatile("" ::: "memory");
  return here;
}

void set_bottom(const void* at) {
  GC_stack_base base{};
  base.mem_base = const_cast<void*>(at);
  GC_set_stackbottom(nullptr, &base);  // the allocation lock is held
}

void push(const void* lo, const void* hi) {
  if (lo < hi) GC_push_all_eager(const_cast<void*>(lo), const_cast<void*>(hi));
}

void GC_CALLBACK push_roots() {
  libgcs_roots();
  if (!frozen_by_caller()) return;
  each_stack(
      [](const StackView& v, void*) {
        if (shows && !shows(v)) return;
        push(v.lo, v.hi);
        push(v.registers_lo, v.registers_hi);
      },
      nullptr);
  each_root([](const Root& r, void*) { push(r.lo, r.hi); }, nullptr);
}

void freeze() {
  if (frozen_by_caller()) {
    thaw_world();  // the report waits for nobody then
    rt::fatalf("weft-gc: collected memory was asked for while the caller has frozen the world");
  }
  constexpr int kTries = 10;
  int tries = 0;
  while (!freeze_world())
    if (++tries == kTries) rt::fatalf("weft-gc: a thread of the runtime does not stop for a collection: does it block SIGURG?");
  const void *lo, *hi;
  if (this_thread().known && own_stack(&lo, &hi)) set_bottom(hi);
}

void thaw() {
  if (const Registered& r = this_thread(); r.known) set_bottom(r.bottom);
  thaw_world();
}

void GC_CALLBACK on_event(GC_EventType event) {
  if (event == GC_EVENT_PRE_STOP_WORLD) freeze();
  if (event == GC_EVENT_POST_START_WORLD) thaw();
}

void unblock_libgcs_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, GC_get_suspend_signal());
  sigaddset(&set, GC_get_thr_restart_signal());
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void thread_began(const ThreadView& t) {
  Registered& r = this_thread();
  GC_stack_base base{};
  base.mem_base = const_cast<void*>(t.stack_hi);
  // First: from the next line on libgc may want to stop it.
  unblock_libgcs_signals();
  r.by_us = !GC_thread_is_registered() && GC_register_my_thread(&base) == GC_SUCCESS;
  GC_get_my_stackbottom(&base);
  r.bottom = base.mem_base;
  r.stack_lo = t.stack_lo;
  r.stack_bytes = static_cast<std::size_t>(static_cast<const char*>(t.stack_hi) - static_cast<const char*>(t.stack_lo));
  GC_register_altstack(const_cast<void*>(t.stack_lo), r.stack_bytes, const_cast<void*>(t.signal_stack_lo),
                       static_cast<std::size_t>(static_cast<const char*>(t.signal_stack_hi) -
                                                static_cast<const char*>(t.signal_stack_lo)));
  r.known = true;
}

void thread_ends(const ThreadView&) {
  Registered& r = this_thread();
  r.known = false;
  GC_register_altstack(const_cast<void*>(r.stack_lo), r.stack_bytes, nullptr, 0);
  if (r.by_us) GC_unregister_my_thread();
}

WEFT_COLD void register_outsider() {
  outsider.asked = true;
  GC_stack_base base{};
  if (GC_thread_is_registered() || GC_get_stack_base(&base) != GC_SUCCESS) return;
  unblock_libgcs_signals();
  outsider.by_us = GC_register_my_thread(&base) == GC_SUCCESS;
}

// Out of line: what belongs to a thread is looked at once.
WEFT_NOINLINE void known_to_libgc() {
  if (!here.known && !outsider.asked) register_outsider();
}

void* allocate_values(std::size_t bytes, std::size_t align) {
  known_to_libgc();
  constexpr std::size_t kGranule = 16;
  if (align <= kGranule) return GC_malloc_uncollectable(bytes);
  void* block = GC_malloc_uncollectable(bytes + align - kGranule);
  const auto at = (reinterpret_cast<std::uintptr_t>(block) + align - 1) & ~(align - 1);
  return block ? reinterpret_cast<void*>(at) : nullptr;
}

void release_values(void* block) { GC_free(GC_base(block)); }

/// libgc's answer to having no memory: null. It prints warnings by itself otherwise.
void GC_CALLBACK nobody_waits() {}

}  // namespace

void init() {
  if (started) return;
  Collector c;
  c.allocate = allocate_values;
  c.release = release_values;
  c.thread_began = thread_began;
  c.thread_ends = thread_ends;
  attach(c);  // throws while nothing has happened yet
  started = true;
  GC_INIT();
  GC_allow_register_threads();
  GC_set_finalize_on_demand(1);
  GC_set_finalizer_notifier(nobody_waits);
  libgcs_roots = GC_get_push_other_roots();
  GC_set_push_other_roots(push_roots);
  GC_set_on_collection_event(on_event);
}

void* allocate(std::size_t bytes) {
  void* p = GC_MALLOC(bytes);
  if (!p) throw std::bad_alloc();
  return p;
}

void* allocate_plain(std::size_t bytes) {
  void* p = GC_MALLOC_ATOMIC(bytes);
  if (!p) throw std::bad_alloc();
  return __builtin_memset(p, 0, bytes);
}

void collect() { GC_gcollect(); }

int run_finalizers() { return GC_invoke_finalizers(); }

HeapStats heap_stats() {
  HeapStats s;
  s.heap_bytes = GC_get_heap_size();
  s.free_bytes = GC_get_free_bytes();
  s.allocated_bytes = GC_get_total_bytes();
  s.collections = GC_get_gc_no();
  return s;
}

}  // namespace weft::gc::boehm
