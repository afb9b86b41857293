// See guard.hpp.
#include "runtime/core/guard.hpp"

#include <algorithm>

#include "arch/stack_memory.hpp"
#include "runtime/base/log.hpp"

namespace weft::rt {
namespace {

GuardKind rung = GuardKind::Canary;
bool was_forced = false;
int holes_fd = -1;
std::atomic<std::size_t> hole_reservations{0};
std::atomic<std::size_t> mprotected{0};

// The lowest rung that anybody fell to, and whether that has been said.
std::atomic<std::uint8_t> fell_to{0};
std::atomic<bool> warned{false};

void fall(GuardKind to) {
  std::uint8_t old = peek(fell_to);
  const auto lower = static_cast<std::uint8_t>(to);
  while (old < lower && !fell_to.compare_exchange_weak(old, lower, memory_order_relaxed)) {
  }
}

bool protect(char* bottom, std::size_t bytes) {
  if (mprotected.fetch_add(1, memory_order_relaxed) < kMprotectMax && arch::deny_access(bottom, bytes)) return true;
  mprotected.fetch_sub(1, memory_order_relaxed);
  return false;
}

// From mprotect down: always succeeds.
GuardKind guard_without_kernel_help(GuardKind from, char* bottom, std::size_t bytes) {
  if (from < GuardKind::Canary && protect(bottom, bytes)) {
    if (from < GuardKind::Mprotect) fall(GuardKind::Mprotect);
    return GuardKind::Mprotect;
  }
  fall(GuardKind::Canary);
  return GuardKind::Canary;
}

}  // namespace

bool guards_start(GuardKind forced) {
  was_forced = forced != GuardKind::Auto;
  fell_to.store(0, memory_order_relaxed);
  warned.store(false, memory_order_relaxed);
  const auto wanted = [&](GuardKind k) { return forced == k || forced == GuardKind::Auto; };

  if (wanted(GuardKind::Install) && arch::probe_install_guard()) {
    rung = GuardKind::Install;
    return true;
  }
  if (wanted(GuardKind::Hole)) {
    if (holes_fd < 0) holes_fd = arch::open_holes();
    if (holes_fd >= 0) {
      rung = GuardKind::Hole;
      return true;
    }
  }
  if (wanted(GuardKind::Mprotect)) {
    rung = GuardKind::Mprotect;
    return true;
  }
  rung = GuardKind::Canary;
  return forced == GuardKind::Canary;
}

void guards_stop() {
  if (holes_fd < 0 || peek(hole_reservations) > 0) return;
  arch::close_holes(holes_fd);
  holes_fd = -1;
}

GuardKind guards_rung() { return rung; }

GuardKind guard_reservation(char* lo, std::size_t bytes) {
  if (rung != GuardKind::Hole) return rung;
  if (arch::register_holes(holes_fd, lo, bytes)) {
    hole_reservations.fetch_add(1, memory_order_relaxed);
    return GuardKind::Hole;
  }
  fall(GuardKind::Mprotect);
  return GuardKind::Mprotect;
}

void guard_reservation_gone(GuardKind k) {
  if (k == GuardKind::Hole) hole_reservations.fetch_sub(1, memory_order_relaxed);
}

bool guard_stack(GuardKind from, char* bottom, char* lo, char* hi, GuardKind* got) {
  const auto guard = static_cast<std::size_t>(lo - bottom);
  *got = from;
  if (from == GuardKind::Install && arch::install_guard(bottom, guard)) return true;
  if (from == GuardKind::Hole) {
    if (arch::fill_hole(holes_fd, lo, static_cast<std::size_t>(hi - lo))) return true;
    // Half-filled: what is missing would look like an overflow. Out of the registration, or out of use.
    if (!arch::unregister_holes(holes_fd, bottom, static_cast<std::size_t>(hi - bottom))) return false;
  }
  *got = guard_without_kernel_help(from, bottom, guard);
  return true;
}

void guard_gone(GuardKind got) {
  if (got == GuardKind::Mprotect) mprotected.fetch_sub(1, memory_order_relaxed);
}

bool guard_refill(const StackSlot* s) {
  return s->guard != GuardKind::Hole || arch::fill_hole(holes_fd, s->lo, s->bytes());
}

WEFT_NO_SANITIZE bool canary_intact(const StackSlot* s) {
  const auto* p = reinterpret_cast<const volatile std::uint64_t*>(s->lo - arch::kPageBytes);
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < arch::kPageBytes / sizeof *p; i++) seen |= p[i];
  return seen == 0;
}

void guards_warn() {
  const auto to = static_cast<GuardKind>(peek(fell_to));
  if (to == GuardKind::Auto || (was_forced && to == rung) || warned.exchange(true, memory_order_relaxed)) return;
  log_warn("the kernel refuses %s guards for more stacks; from here on: %s%s", guard_name(rung), guard_name(to),
           to == GuardKind::Canary ? ", which finds an overflow only when the goroutine ends" : "");
}

const char* guard_name(GuardKind k) {
  switch (k) {
    case GuardKind::Auto: return "auto";
    case GuardKind::Install: return "install";
    case GuardKind::Hole: return "hole";
    case GuardKind::Mprotect: return "mprotect";
    case GuardKind::Canary: return "canary";
  }
  return "?";
}

}  // namespace weft::rt
