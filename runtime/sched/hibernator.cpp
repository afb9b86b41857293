// Who hibernates, and when: a thread that looks for goroutines that have been parked for long.
//
// Policy     Under `auto` it starts with the kThreshold-th goroutine, under `on` with the first; both only if the kernel serves faults
//            (`auto`: also its own accesses). Parked for Config::hibernate_after, or, while more than Config::hibernate_target bytes are
//            resident, for kHurry. Never: goroutine 1, stacks above 1 MiB, who is locked to a thread or is on a copyable stack,
//            Spawn{.hibernate = Hibernate::Off}, and who has more live bytes than its top page holds.
// Held back  While an eighth more than the target is resident, stacks that nobody has had yet are given out only as others are taken: who is to
//            start waits in Sched::stackless, as for memory that the kernel refuses. A round that takes none still lets kTrickle start: those
//            that run may be waiting for them.
// Round      All descriptors are looked at without a lock: whom that finds is only a candidate. In batches: pages out, a barrier, and then
//            each is asked for again (hibernate.hpp). "Parked as it was": its status is Waiting, since and context are what they were,
//            and no M is on its way out of it: neither runs it nor has it as the one that it has left last. That one's context may be
//            unsaved, or saved long ago; it is left alone either way.
// Locks      Sched::world, so that nobody stops the world or changes who is special meanwhile; Sched::freezing, so that nobody looks at
//            pages that are half way; Sched::mu, for the list of Ms, before the
//            first page is taken: who waits for a page may hold it.
// Cost       A look is one line of each descriptor; looks take at most a tenth of a CPU.
// Rest       With nothing due it sleeps until sysmon has seen goroutines run again: an idle process is not woken.
// Orders     [hibernator] its own: stop and asleep, with the note.
//            [run-state] see lifecycle.cpp. [status] see core/g.hpp.
#include "runtime/sched/hibernator.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "arch/barrier.hpp"
#include "arch/clock.hpp"
#include "arch/thread.hpp"
#include "runtime/base/log.hpp"
#include "runtime/core/hibernate.hpp"
#include "runtime/sched/sched.hpp"

namespace weft::rt {
namespace {

constexpr std::uint64_t kThreshold = 1000;
constexpr std::uint32_t kHurry = 20;           // ms
constexpr std::size_t kBatch = 16;
constexpr std::size_t kTrickle = 1000;
constexpr std::int64_t kTargetLook = 5'000'000;  // ns: how often what is resident is compared with the target
constexpr std::int64_t kMs = 1'000'000;

struct Hibernator {
  pthread_t thread{};
  Note note;
  std::atomic<bool> stop{false};
  std::atomic<bool> asleep{false};
  std::atomic<bool> running{false};
  Faults faults = Faults::None;
  bool wanted = false;    // by the mode, for all
  std::atomic<bool> asked{false};   // by a goroutine's Spawn
  bool failed = false;
  std::uint64_t threshold = 0;
  // sysmon's
  std::uint64_t seen_switches = 0;
  std::int64_t poked_at = 0;
};
Hibernator hib;

std::uint64_t switches_so_far() {
  std::uint64_t n = 0;
  for (std::uint32_t i = 0; i < ps_there(); i++) n += peek(sched.ps[i]->switches);
  return n;
}

std::uint64_t resident() {
  unsigned long long all = 0, in = 0;
  if (std::FILE* f = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(f, "%llu %llu", &all, &in) != 2) in = 0;
    std::fclose(f);
  }
  return in * arch::kPageBytes;
}

struct Candidate {
  G* gp;
  std::uint32_t since;
  arch::Context ctx;
};

struct Round {
  std::vector<Candidate> due;
  std::uint32_t now = 0;
  std::uint32_t age = 0;
  bool young = false;  // somebody will be due
  std::int64_t looked_for = 0;  // ns, without the taking
};

std::uint8_t started_of(const G* gp) { return __atomic_load_n(&gp->started, __ATOMIC_RELAXED); }

void look_at(G* gp, void* arg) {
  auto& r = *static_cast<Round*>(arg);
  if (gp->status.load(memory_order_acquire) != GStatus::Waiting || started_of(gp) != kStarted) return;  // [status]
  const StackSlot* s = gp->stack;
  if (!s || !s->may_hibernate || s->kind != StackKind::Growable || s->cls == kOwnMapping) return;
  if (r.now - gp->since < r.age)
    r.young = true;
  else
    r.due.push_back({gp, gp->since, gp->ctx});
}

bool parked_as_it_was(const Candidate& c, const StackSlot* s) {
  const G* gp = c.gp;
  if (gp->status.load(memory_order_acquire) != GStatus::Waiting || started_of(gp) != kStarted) return false;  // [status]
  if (gp->since != c.since || gp->ctx != c.ctx || gp->stack != s || peek(s->owner) != gp) return false;
  for (M* mp = sched.all_ms; mp; mp = mp->all_link)
    if (__atomic_load_n(&mp->from, __ATOMIC_RELAXED) == gp || running_on(mp) == gp) return false;
  return true;
}

/// So many more get a new stack.
void let_start(std::size_t n) {
  GList some;
  sched.mu.lock();
  // What nobody took of the trickle does not pile up.
  const std::int64_t left = std::max<std::int64_t>(peek(sched.starts_allowed) - static_cast<std::int64_t>(2 * kTrickle), 0);
  sched.starts_allowed.fetch_add(static_cast<std::int64_t>(n) - left, memory_order_relaxed);
  while (some.count < n) {
    G* gp = sched.stackless.pop();
    if (!gp) break;
    some.push(gp);
  }
  sched.mu.unlock();
  if (some.count == 0) return;
  const unsigned many = some.count;
  put_global_list(some);
  // Counted until they are queued: never nowhere for the one who looks for a deadlock.
  sched.mu.lock();
  sched.stackless_count.store(sched.stackless.count, memory_order_relaxed);
  sched.mu.unlock();
  wake_one();
  if (many > 1) wake_one();
}

void hold_starts(bool on) {
  if (on == peek(memory_short)) return;
  sched.mu.lock();
  sched.starts_allowed.store(0, memory_order_relaxed);
  sched.stackless_since = 0;
  memory_short.store(on, memory_order_relaxed);
  sched.mu.unlock();
  if (!on) let_start(peek(sched.stackless_count) + std::size_t{1});
}

/// Returns how many it took.
std::size_t take_batch(const Candidate* cs, std::size_t n, char* staging) {
  Outgoing out[kBatch];
  const Candidate* of[kBatch];
  StackSlot* stacks[kBatch];
  std::size_t k = 0;
  lock_world();
  sched.freezing.lock();
  for (std::size_t i = 0; i < n; i++) {
    StackSlot* s = cs[i].gp->stack;
    if (!s || !out[k].begin(cs[i].gp, s)) continue;
    of[k] = &cs[i];
    stacks[k++] = s;
  }
  bool have[kBatch] = {};
  sched.mu.lock();
  for (std::size_t i = 0; i < k; i++) have[i] = out[i].take(staging + i * arch::kPageBytes);
  // Without it nobody knows what others have just written: then all stay.
  const bool seen = k == 0 || arch::barrier_in_all_threads();
  std::size_t taken = 0;
  for (std::size_t i = 0; i < k; i++)
    if (have[i]) taken += out[i].finish(seen && parked_as_it_was(*of[i], stacks[i]));
  sched.mu.unlock();
  sched.freezing.unlock();
  sched.world.unlock();
  for (std::size_t i = 0; i < k; i++) out[i].clean_up();
  empty_staging(staging, kBatch);
  return taken;
}

/// More is resident than the target and so many eighths of it.
bool above_target(unsigned eighths) {
  const std::size_t target = sched.config->hibernate_target;
  return target != 0 && resident() > target + target / 8 * eighths;
}

void look_at_memory() {
  const bool much = above_target(1);
  hold_starts(much);
  if (much) stacks_trim_all();
}

void do_round(Round& r) {
  const std::int64_t began = arch::clock_now();
  g_table_each(look_at, &r);
  r.looked_for = arch::clock_now() - began;
  char* staging = staging_pages(kBatch);
  if (!staging) return;
  for (std::size_t i = 0; i < r.due.size() && !hib.stop.load(memory_order_acquire); i += kBatch) {  // [hibernator]
    const std::size_t taken = take_batch(&r.due[i], std::min(kBatch, r.due.size() - i), staging);
    if (i % (kBatch * 16) == 0) look_at_memory();
    if (taken != 0 && peek(memory_short)) let_start(taken);
  }
  free_emptied();
}

/// Ends early when memory gets short.
void nap(std::int64_t ns) {
  const std::int64_t until = arch::clock_now() + ns;
  if (sched.config->hibernate_target == 0) return void(hib.note.sleep_until(until));
  for (std::int64_t now = arch::clock_now(); now < until && !hib.stop.load(memory_order_acquire); now = arch::clock_now()) {  // [hibernator]
    if (hib.note.sleep_until(std::min(until, now + kTargetLook)) || above_target(0)) return;
  }
}

void* hibernator_main(void*) {
  arch::name_this_thread("weft-hibernate");
  while (!hib.stop.load(memory_order_acquire)) {  // [hibernator]
    hib.note.clear();
    Round r;
    const auto after = static_cast<std::uint32_t>(sched.config->hibernate_after.count());
    const bool hurry = above_target(0);
    look_at_memory();
    r.age = hurry ? std::min(after, kHurry) : after;
    r.now = static_cast<std::uint32_t>((arch::clock_now() - sched.started_at) / kMs);
    do_round(r);
    if (hib.stop.load(memory_order_acquire)) break;  // [hibernator]
    if (peek(memory_short)) let_start(kTrickle);
    // Whoever is held back is woken from here only: it may have become short during the round.
    const bool soon = hurry || peek(memory_short);
    if (soon || r.young) {
      // At most a tenth of a CPU goes into looking, unless memory is short.
      if (soon)
        hib.note.sleep_until(arch::clock_now() + kTargetLook);
      else
        nap(std::max(std::max<std::int64_t>(r.age / 4, 1) * kMs, 10 * r.looked_for));
    } else {
      hib.asleep.store(true, memory_order_release);  // [hibernator]
      hib.note.sleep();
      hib.asleep.store(false, memory_order_relaxed);
    }
  }
  hold_starts(false);
  return nullptr;
}

void start() {
  hib.stop.store(false, memory_order_relaxed);
  hib.asleep.store(false, memory_order_relaxed);
  if (!arch::barrier_start() || !faults_start(hib.faults != Faults::All) ||
      arch::start_thread(&hib.thread, hibernator_main, nullptr) != 0) {
    faults_stop();
    hib.failed = true;
    log_warn("stacks are not hibernated: the kernel refuses userfaultfd, membarrier or a thread");
    return;
  }
  hib.running.store(true, memory_order_release);  // [hibernator]
}

}  // namespace

void hibernator_boot(const Config& config, bool in_run) {
  Hibernate mode = config.hibernate;
  if (mode == Hibernate::Default) mode = in_run ? Hibernate::Auto : Hibernate::Off;
  const char* why = nullptr;
  hib.failed = false;
  hib.asked.store(false, memory_order_relaxed);
  hib.wanted = mode != Hibernate::Off;
  hib.threshold = mode == Hibernate::On ? 1 : kThreshold;
  hib.seen_switches = 0;
  hib.poked_at = 0;
  hib.faults = probe_faults(&why);
  if (mode == Hibernate::On) {
    if (hib.faults == Faults::None) log_warn("stacks are not hibernated: %s", why);
  } else if (hib.faults == Faults::UserOnly) {
    hib.wanted = false;
  }
  hib.wanted = hib.wanted && hib.faults != Faults::None;
  hib.wanted = hib.wanted && faults_open(hib.faults != Faults::All);
  sched.hibernates = hib.wanted;
  sched.hibernates_safely = hib.faults == Faults::All;
}

std::string hibernation_text() {
  const char* why = nullptr;
  const Faults f = probe_faults(&why);
  if (hib.failed) return "off: the kernel refused it when it was to start";
  if (f == Faults::None) return std::string("off: ") + why;
  if (!hib.wanted && !peek(hib.asked)) return f == Faults::UserOnly ? std::string("off: ") + why : "off: Config::hibernate";
  return f == Faults::All ? "on" : "on, but the kernel's own accesses to a hibernated stack fail with EFAULT";
}

void hibernator_asked() {
  if (hib.faults != Faults::None) hib.asked.store(true, memory_order_relaxed);
}

void hibernator_look(std::int64_t now) {
  if ((!hib.wanted && !peek(hib.asked)) || hib.failed) return;
  if (!peek(hib.running)) {
    if (live_goroutines() >= (peek(hib.asked) ? 1 : hib.threshold)) start();
    return;
  }
  std::int64_t pause = std::max<std::int64_t>(sched.config->hibernate_after.count() / 4, 1) * kMs;
  if (sched.config->hibernate_target != 0) pause = std::min(pause, kTargetLook);
  if (now - hib.poked_at >= pause && hib.asleep.load(memory_order_acquire)) {  // [hibernator]
    if (const std::uint64_t s = switches_so_far(); s != hib.seen_switches) {
      hib.seen_switches = s;
      hib.poked_at = now;
      hib.note.wake();
    }
  }
}

int hibernator_threads() { return peek(hib.running) ? 2 : 0; }

void hibernator_stop() {
  if (!peek(hib.running)) return;
  hib.stop.store(true, memory_order_release);  // [hibernator]
  hib.note.wake();
  pthread_join(hib.thread, nullptr);
  hib.running.store(false, memory_order_relaxed);
}

void bring_all_back() {
  if (!faults_running()) return;
  g_table_each(
      [](G* gp, void*) {
        if (gp->status.load(memory_order_acquire) == GStatus::Dead) return;  // [status]
        if (StackSlot* s = gp->stack) bring_back(s);
      },
      nullptr);
}

}  // namespace weft::rt
