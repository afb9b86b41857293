// Taking pages out from under their owner and bringing them back when somebody touches them: userfaultfd with a thread that answers.
//
// A fault in a watched range waits until the page is put, moved or cleared there. Where the kernel allows it (privilege, or
// vm.unprivileged_userfaultfd), the kernel's own accesses wait, too: another thread's recv() into such a page, a futex in it,
// process_vm_readv. Else (`user_only`) these fail with EFAULT.
// move_page() takes the page itself, atomically: whatever is written before is in it, whatever comes after waits. It refuses pages
// that are pinned (I/O in flight) or shared with a child since a fork. Linux 6.8.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::arch {

/// A descriptor; -1: refused, errno says why (ENOSYS: this kernel cannot move pages).
int open_faults(bool user_only);
void close_faults(int fd);
bool watch_range(int fd, char* lo, std::size_t bytes);
bool unwatch_range(int fd, char* lo, std::size_t bytes);

/// From one watched page to another, where there is none.
bool move_page(int fd, char* to, char* from);
/// A copy of kPageBytes from `bytes`; who waits for the page goes on. True also if there is a page already.
bool put_page(int fd, char* to, const char* bytes);
/// Zeroes, if there is no page.
bool clear_page(int fd, char* to);
/// Who waits for a page that is there by now goes on.
void wake_faults(int fd, char* at);

/// Waits for a fault and says where; false: `stop_fd` is readable. Interruptions and errors are no fault: *at is 0 then.
bool next_fault(int fd, int stop_fd, std::uintptr_t* at);

}  // namespace weft::arch
