#!/usr/bin/env bash
# weft-lint-tls over what compilers make of thread-local variables and errno around a call that yields, and weft/errno.hpp in C.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
lint=$root/tools/weft-lint-tls
clang=
for name in clang++-14 clang++; do
  if command -v "$name" >/dev/null; then clang=$name; break; fi
done

cat >"$scratch/rows.cpp" <<'CODE'
#include <weft/weft.hpp>

#include <cerrno>
#include <thread>

thread_local int x, y, tv, a[64];
extern thread_local int ext;
void use(int*);
// Kept by some compiler or other:
int errno_twice() { errno = 5; weft::yield(); return errno; }
int errno_in_a_loop(int n) { int s = 0; while (n-- > 0) { errno = 0; weft::yield(); s += errno; } return s; }
int scalar() { x++; weft::yield(); return ++x; }
int two_scalars() { x++; y++; weft::yield(); x++; return ++y; }
void array_in_a_loop() { for (int i = 0; i < 64; i++) { a[i]++; weft::yield(); } }
void passed_on() { use(&tv); weft::yield(); use(&tv); }
int memory_clobber() { x++; weft::yield(); asm volatile("" ::: "memory"); return ++x; }
void use(std::thread::id);
void thread_id() { use(std::this_thread::get_id()); weft::yield(); use(std::this_thread::get_id()); }
int own_pointer(int n) { int s = 0; for (int* p = a; n-- > 0; p++) { s += *p; weft::yield(); } return s; }
int in_a_switch(int k) {
  errno = 5;
  switch (k) {
    case 0: use(&k); use(nullptr); break;
    case 1: use(nullptr); weft::yield(); break;
    case 2: use(nullptr); use(&k); break;
    case 3: use(nullptr); use(nullptr); break;
    case 4: use(&k); use(&k); break;
    case 5: use(&k); use(nullptr); use(&k); break;
  }
  return errno;
}
[[gnu::noinline]] static void deeper() { weft::yield(); use(nullptr); }
int yield_below() { errno = 5; deeper(); return errno; }
// Never:
int external_thread_local() { ext++; weft::yield(); return ++ext; }
void external_passed_on() { use(&ext); weft::yield(); use(&ext); }
int* place();  // an accessor that the compiler cannot look into
int accessor() { ++*place(); weft::yield(); return ++*place(); }
int errno_before() { errno = 0; use(nullptr); int e = errno; weft::yield(); return e; }
int errno_after() { weft::yield(); errno = 0; use(nullptr); return errno; }
int errno_without_a_yield() { errno = 0; use(nullptr); return errno; }
int errno_and_what_is_no_safepoint() { errno = 0; auto id = weft::goid(); use(nullptr); return errno + static_cast<int>(id); }
void a_safepoint(int n) { for (int i = 0; i < n; i++) { x++; weft::safepoint(); } }
CODE

found_in() {  # found_in COMPILER FLAG...: names of the functions reported, sorted
  "$1" -std=c++20 -O2 "${@:2}" -I "$root/include" -c -o "$scratch/rows.o" "$scratch/rows.cpp" || return 1
  "$lint" "$scratch/rows.o" >"$scratch/out"
  [ $? = 1 ] || { echo "exit status is not 1"; return 1; }
  sed -n 's/^[^ ]*: \([a-z_]*\)(.*/\1/p' "$scratch/out" | sort -u | tr '\n' ' '
}
expect_rows() {  # expect_rows WANTED COMPILER FLAG...
  local found wanted=$1
  shift
  found=$(found_in "$@") || { echo "$found"; return 1; }
  [ "$found" = "$wanted " ] || { echo "$*: found $found"; echo "instead of $wanted"; cat "$scratch/out"; return 1; }
}
kept_always="array_in_a_loop errno_in_a_loop errno_twice in_a_switch"
gccs_pie_code_keeps_errno_arrays_and_addresses() {
  expect_rows "$kept_always own_pointer passed_on thread_id yield_below" g++ -fPIE &&
    expect_rows "$kept_always own_pointer passed_on thread_id yield_below" g++ -fno-pie
}
gccs_pic_code_keeps_every_thread_local() {
  expect_rows "$kept_always memory_clobber own_pointer passed_on scalar thread_id two_scalars yield_below" g++ -fPIC
}
clangs_pie_code_keeps_errno_and_addresses() {
  [ -z "$clang" ] || expect_rows "errno_in_a_loop errno_twice in_a_switch own_pointer passed_on thread_id yield_below" "$clang" -fPIE
}
clangs_pic_code_keeps_every_thread_local() {
  [ -z "$clang" ] || expect_rows "errno_in_a_loop errno_twice in_a_switch memory_clobber own_pointer passed_on scalar thread_id two_scalars yield_below" \
    "$clang" -fPIC
}
the_header_cures_errno() {
  local compiler
  for compiler in g++ $clang; do
    "$compiler" -std=c++20 -O2 -I "$root/include" -include weft/errno.hpp -c -o "$scratch/rows.o" "$scratch/rows.cpp" || return 1
    "$lint" "$scratch/rows.o" >"$scratch/out"
    ! grep errno "$scratch/out" || return 1
    ! objdump -r "$scratch/rows.o" | grep __errno_location || return 1
  done
}
the_header_is_c_as_well() {
  local compiler
  echo 'int f(void) { errno = 5; return errno; }' >"$scratch/c.c"
  for compiler in gcc ${clang/++/}; do
    "$compiler" -std=c11 -O2 -Wall -Wextra -Werror -I "$root/include" -include weft/errno.hpp -include errno.h -c \
      -o "$scratch/c.o" "$scratch/c.c" && objdump -r "$scratch/c.o" | grep -q weft_errno || return 1
    ! objdump -r "$scratch/c.o" | grep __errno_location || return 1
  done
}

cat >"$scratch/user.cpp" <<'CODE'
#include <cerrno>
namespace mine { void wait_for_it(); }
int named() { errno = 5; mine::wait_for_it(); return errno; }
void use(int*);
int with_a_loop(int n) { while (n-- > 0) { errno = n; use(nullptr); } return errno; }
int through_a_pointer(void (*f)()) { errno = 5; f(); return errno; }
CODE
calls_that_yield_can_be_named() {
  g++ -std=c++20 -O2 -c -o "$scratch/user.o" "$scratch/user.cpp" && exits 0 "$lint" "$scratch/user.o" || return 1
  grep -q '^weft-lint-tls: 0 findings in 3 functions$' "$scratch/out" || return 1
  exits 1 "$lint" --may-yield '^mine::wait_' "$scratch/user.o" && grep -q 'named()' "$scratch/out" &&
    ! grep -q through_a_pointer "$scratch/out" || return 1
  exits 1 "$lint" --indirect "$scratch/user.o" && grep -q 'through_a_pointer' "$scratch/out" && ! grep -q 'named()' "$scratch/out"
}
inserted_polls_are_such_calls() {
  g++ -std=c++20 -O2 -fsanitize-coverage=trace-pc -c -o "$scratch/user.o" "$scratch/user.cpp" &&
    exits 1 "$lint" --json "$scratch/user.o" && python3 -c '
import json, sys
found = json.load(open(sys.argv[1]))["findings"]
assert {(f["function"], f["called"]) for f in found} == {("with_a_loop(int)", "__sanitizer_cov_trace_pc")}, found
' "$scratch/out"
}
archives_and_linked_programs_are_read_too() {
  found_in g++ -fPIE >/dev/null || return 1
  cp "$scratch/out" "$scratch/wanted"
  ar rc "$scratch/rows.a" "$scratch/rows.o" && exits 1 "$lint" "$scratch/rows.a" &&
    [ "$(grep -c kept "$scratch/out")" = "$(grep -c kept "$scratch/wanted")" ] || return 1
  # Undefined symbols may stay: it is only looked at.
  g++ -shared -fPIC -std=c++20 -O2 -I "$root/include" -o "$scratch/rows.so" "$scratch/rows.cpp" && exits 1 "$lint" "$scratch/rows.so" &&
    grep -q ' scalar()' "$scratch/out" && ! grep -q ' errno_after()' "$scratch/out"
}
wrong_use_is_one_line_and_status_2() {
  usage_error "$lint" && usage_error "$lint" --nonsense x.o && usage_error "$lint" "$scratch/not there.o" &&
    usage_error "$lint" "$scratch/rows.cpp" && usage_error "$lint" --may-yield '(' "$scratch/rows.o" &&
    usage_error "$lint" --objdump no-such-objdump "$scratch/rows.o"
}
programs_of_the_tree_are_clean() {  # with what was linked into them; the tour stands for those that it runs
  exits 0 "$lint" "$bin/weft-tour" "$bin/weft-stress"
}

check gccs_pie_code_keeps_errno_arrays_and_addresses
check gccs_pic_code_keeps_every_thread_local
check clangs_pie_code_keeps_errno_and_addresses
check clangs_pic_code_keeps_every_thread_local
check the_header_cures_errno
check the_header_is_c_as_well
check calls_that_yield_can_be_named
check inserted_polls_are_such_calls
check archives_and_linked_programs_are_read_too
check wrong_use_is_one_line_and_status_2
check programs_of_the_tree_are_clean
finish
