// Hibernated stacks: the live bytes of a goroutine that has been parked for long are in a block, and its page is the kernel's again.
//
// What       Growable stacks of a size class whose live bytes lie in their top page. The address range stays the stack's; a touch, by
//            anybody and by the kernel, brings the page back (arch/hibernation.hpp).
// Word       StackSlot::away says where the top page is. Who changes it from or to kBusy owns the page meanwhile:
//
//              0                    in place
//              block | n            in a block of n * 64 bytes, which end where the stack starts; n >= 2
//              kBusy | what it was  somebody takes it out or brings it back; a block is good until the word says otherwise, so that who
//                                   looks on from a frozen world finds the bytes
//              since << 6           in place, brought back by a touch: left alone until its goroutine has run (parked since then)
//
// Taking     (sched/hibernator.cpp; `busy` by CAS)                     its goroutine, or anybody
// out        move_page(): from here who touches it waits               ... touches: waits in the kernel
//            a barrier in all threads                                  handler: busy? looks again until it is not
//            still parked, no M on its way out of it?                  word says block: CAS to busy, put_page(), in place
//            yes: block, word = block | n;  no: move it back, 0
//            The page is whole all the time, so it does not matter who wrote to it before; and as nobody can run on a stack without its
//            top page, what the check finds stays true. Only the bytes that are live at that moment are kept.
// Locks      Whoever waits for a page may hold any lock (a fresh page of a watched stack is a fault, too). So the handler takes
//            none, and between move_page() and the word the hibernator takes none: what it needs it has by then. Blocks that
//            the handler has emptied go to a list that the hibernator frees.
// Looks      The handler works on while the world is frozen, the hibernator does not. So who looks on then may read a
//            block that has just been emptied: its live bytes stay as they are, links of lists lie below them.
//            (tests/model/hibernate_test.cpp)
// Orders     [away] acquire/release on the word: the block's bytes are written before it says so.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/core/g.hpp"

namespace weft::rt {

inline constexpr std::uintptr_t kBusy = std::uintptr_t{1} << 63;

/// How much of hibernation this process has.
enum class Faults : std::uint8_t {
  None,      // refused by the kernel, or by the build
  UserOnly,  // the kernel's own accesses fail with EFAULT
  All,
};

/// Probes, once per start of a runtime, without starting anything. `why` (may be null): in words.
Faults probe_faults(const char** why);

/// Opens the descriptors, so that a program's number of them does not change while it runs. False: refused.
bool faults_open(bool user_only);
/// Starts what answers faults. False: refused.
bool faults_start(bool user_only);
void faults_stop();
bool faults_running();

inline bool has_block(std::uintptr_t word) { return (word & 63) >= 2; }
inline bool is_busy(std::uintptr_t word) { return (word & kBusy) != 0; }
inline bool is_away(std::uintptr_t word) { return has_block(word) && !is_busy(word); }
inline char* block_of(std::uintptr_t word) { return reinterpret_cast<char*>(word & ~(std::uintptr_t{63} | kBusy)); }
inline std::size_t away_bytes(std::uintptr_t word) { return (word & 63) * 64; }

/// One stack on its way out. The hibernator's thread.
class Outgoing {
 public:
  /// Claims the page and gets all that is needed. False: not now.
  bool begin(G* gp, StackSlot* s);
  /// Takes the page to `staging`. False: refused; over.
  bool take(char* staging);
  /// `still`: its goroutine is parked as it was. Keeps its live bytes, or moves the page back (false).
  bool finish(bool still);
  /// After the last of a batch: gives back what was not needed. (Takes a lock: somebody who holds it may be waiting for a page until then.)
  void clean_up();

 private:
  G* g_ = nullptr;
  StackSlot* s_ = nullptr;
  char* page_ = nullptr;
  char* staging_ = nullptr;
  void* block_ = nullptr;
  std::size_t bytes_ = 0;
  std::uintptr_t was_ = 0;
};

/// Where the bytes [lo, hi) of a parked goroutine's stack are now: add `shift` to an address there. The world is stopped or frozen.
struct StackImage {
  char* lo = nullptr;
  char* hi = nullptr;
  std::ptrdiff_t shift = 0;
};
/// Copied out, hibernated, or in place: from its saved context on. Empty: it has no context.
StackImage stack_image(const G* gp);

/// Brings the page back. Any thread, on any stack but this one.
void bring_back(StackSlot* s);

/// The stacks around `s`, which share a registration, are watched from here on. The hibernator's thread.
bool watch_around(StackSlot* s);
/// A page to take others' to, watched. Null: refused.
char* staging_pages(std::size_t n);
void empty_staging(char* staging, std::size_t n);
/// Blocks that have been emptied by touches are freed.
void free_emptied();

struct HibernateStats {
  std::size_t away = 0;        // stacks
  std::uint64_t taken = 0;     // ever
  std::uint64_t resumed = 0;   // brought back because their goroutine ran
  std::uint64_t touched = 0;   // because somebody touched them
  std::uint64_t changed_mind = 0;  // were on the way when their goroutine ran
};
HibernateStats hibernate_stats();

}  // namespace weft::rt
