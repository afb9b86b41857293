#!/usr/bin/env bash
# What the compilers make of polls: which loops the exported flags reach, how many loads a safepoint is, what stays vectorised.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
build=${bin%/tools}
compilers=(g++)
for clang in clang++-14 clang++; do
  if command -v "$clang" >/dev/null; then compilers+=("$clang"); break; fi
done
clang=${compilers[1]-}

# The flags as the library exports them.
exported() {  # exported COMPILER
  local pc id=gcc
  pc=$(find "$build/meson-private" -name weft.pc) || return 1
  case $1 in clang*) id=clang ;; esac
  sed -n "s/^poll_cflags_$id=//p" "$pc"
}

# Counts the polls of a loop that has no way out, beside its rounds: "POLLS ROUNDS".
cat >"$scratch/endless.cpp" <<'CODE'
#include <atomic>
extern std::atomic<unsigned long> rounds;
[[noreturn]] void endless() {
  for (;;) rounds.fetch_add(1, std::memory_order_relaxed);
}
CODE
cat >"$scratch/count.cpp" <<'CODE'
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>

std::atomic<unsigned long> rounds, polls;
extern "C" void __sanitizer_cov_trace_pc() { polls.fetch_add(1, std::memory_order_relaxed); }
[[noreturn]] void endless();
int main() {
  std::thread([] { endless(); }).detach();
  while (rounds < 1000000) {
  }
  unsigned long n = polls;
  std::printf("%lu %lu\n", n, rounds.load());
  std::fflush(stdout);
  _exit(0);
}
CODE
polls_of_an_endless_loop() {  # polls_of_an_endless_loop COMPILER FLAGS
  local polls
  "$1" -std=c++20 -O2 "$2" -c -o "$scratch/endless.o" "$scratch/endless.cpp" &&
    "$1" -std=c++20 -O2 -pthread -o "$scratch/count" "$scratch/count.cpp" "$scratch/endless.o" || return 1
  polls=$(timeout 60 "$scratch/count") || return 1
  echo "$1 $2: $polls" >&2
  echo "${polls%% *}"
}

the_exported_flags_poll_loops_without_a_way_out() {
  local compiler n
  for compiler in "${compilers[@]}"; do
    n=$(polls_of_an_endless_loop "$compiler" "$(exported "$compiler")") && [ "$n" -ge 100000 ] || return 1
  done
}
clangs_pruned_coverage_does_not_poll() {
  [ -n "$clang" ] || return 0
  local kind n
  for kind in bb,trace-pc edge,trace-pc trace-pc; do
    n=$(polls_of_an_endless_loop "$clang" "-fsanitize-coverage=$kind") && [ "$n" -le 1 ] || return 1
    [ "$(exported "$clang")" != "-fsanitize-coverage=$kind" ] || return 1
  done
}
the_flags_are_not_in_the_default_ones() {
  ! grep '^Cflags:' "$(find "$build/meson-private" -name weft.pc)" | grep -- -fsanitize-coverage
}

# code_of FUNCTION FILE: its instructions, one a line.
code_of() { objdump -d --no-show-raw-insn --disassemble="$1" "$2" | sed -n 's/^ *[0-9a-f]*:\t//p'; }

cat >"$scratch/safepoint.cpp" <<'CODE'
#include <weft/go.hpp>

extern "C" thread_local void* weft_current_m = nullptr;
namespace weft::detail { void safepoint_slow() {} }

extern "C" __attribute__((noinline)) void one_safepoint() { weft::safepoint(); }
int main() { one_safepoint(); }
CODE
a_safepoint_is_three_loads() {
  local compiler loads
  for compiler in "${compilers[@]}"; do
    "$compiler" -std=c++20 -O2 -I "$root/include" -o "$scratch/safepoint" "$scratch/safepoint.cpp" || return 1
    code_of one_safepoint "$scratch/safepoint" >"$scratch/code"
    cat "$scratch/code"
    # What reads memory: all that has a memory operand, but lea and the jumps, whose targets look like one.
    loads=$(grep -E '\(%|%fs:' "$scratch/code" | grep -cvE '^(lea|nop|j)')
    [ "$loads" = 3 ] || { echo "$compiler: $loads loads"; return 1; }
    ! grep -qE '^call' <(sed '/^ret/q' "$scratch/code") || { echo "a call on the fast path"; return 1; }
  done
}
an_inserted_poll_that_nobody_answers_is_eight_instructions() {
  local library
  library=$(find "$build" -maxdepth 1 \( -name libweft.a -o -name 'libweft.so.*.*' \) | head -n 1)
  code_of __sanitizer_cov_trace_pc "$library" | grep -v '^nop\|^endbr64\|^xchg *%ax,%ax\|^cs nop\|^data16' >"$scratch/code"
  cat "$scratch/code"
  [ "$(sed '/^ret/q' "$scratch/code" | wc -l)" = 8 ] && ! grep -q '^call\|^push' "$scratch/code"
}

cat >"$scratch/chunks.cpp" <<'CODE'
#include <weft/go.hpp>

extern "C" void in_chunks(std::span<float> v) {
  weft::for_each_chunk(v, 1024, [](std::span<float> part) {
    for (float& x : part) x *= 2;
  });
}
extern "C" void one_by_one(std::span<float> v) {
  for (float& x : v) {
    x *= 2;
    weft::safepoint();
  }
}
CODE
for_each_chunk_keeps_the_loop_vectorised() {
  local compiler
  for compiler in "${compilers[@]}"; do
    "$compiler" -std=c++20 -O3 -I "$root/include" -c -o "$scratch/chunks.o" "$scratch/chunks.cpp" || return 1
    code_of in_chunks "$scratch/chunks.o" >"$scratch/code"
    grep -qE '^v?(add|mul)ps' "$scratch/code" || { echo "$compiler: not vectorised"; cat "$scratch/code"; return 1; }
    grep -q '%fs:' "$scratch/code" || { echo "$compiler: no safepoint"; return 1; }
    ! code_of one_by_one "$scratch/chunks.o" | grep -qE '^v?(add|mul)ps' || { echo "$compiler: the comparison is none"; return 1; }
  done
}

check the_exported_flags_poll_loops_without_a_way_out
check clangs_pruned_coverage_does_not_poll
check the_flags_are_not_in_the_default_ones
check a_safepoint_is_three_loads
check an_inserted_poll_that_nobody_answers_is_eight_instructions
check for_each_chunk_keeps_the_loop_vectorised
finish
