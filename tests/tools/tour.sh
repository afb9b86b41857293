#!/usr/bin/env bash
# weft-tour: every program does what it says, alone and in a row.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

tour=$bin/weft-tour
dir="$scratch/a tree"
mkdir -p "$dir/sub" && echo 1 >"$dir/sub/one" && echo 2 >"$dir/two"

says() { grep -Eq -- "$1" "$scratch/out" || { echo "no line '$1' in:"; cat "$scratch/out"; return 1; }; }

the_whole_tour_ends_well() {
  cd "$dir" && exits 0 "$tour" --small && says '^weft-tour: 6 programs, all as expected$' && [ ! -s "$scratch/err" ]
}
the_sieve_finds_its_prime() { exits 0 "$tour" sieve && says '^prime number 2000 is 17389$'; }
skynet_counts_a_million() { exits 0 "$tour" skynet && says '^1,000,000 goroutines counted to 499,999,500,000$'; }
sleepers_do_not_wake_early() { exits 0 "$tour" sleepers && says '^100,000 goroutines slept .*, 0 woke early$'; }
every_message_is_echoed() { exits 0 "$tour" echo && says ' had 64,000 of 64,000 messages echoed$'; }
the_deadlock_is_explained() {
  exits 0 "$tour" deadlock && says '^  \| fatal error: all goroutines are asleep - deadlock!$' &&
    says 'philosopher [012]' && says '^the child process ended with exit status 2$'
}
the_digest_is_compared() {
  exits 0 "$tour" digest "$dir" && says '^2 files, 4 B digested$' && says 'prints the same bytes' || return 1
  says "  $dir/sub/one\$"
}
each_says_how_long_it_took() {
  local program
  for program in digest sieve skynet sleepers echo deadlock; do
    cd "$dir" && exits 0 "$tour" --small "$program" --procs 2 && says "^== $program: " && says '^done in [0-9.]+ (ns|us|ms|s)$' || return 1
  done
}
a_terminal_gets_no_rubbish() {
  cd "$dir" && on_a_terminal "$tour" --small sieve >"$scratch/out" && says "prime number 100 is 541" && ! grep -q "\[#" "$scratch/out"
}
bad_flags_get_one_line() {
  usage_error "$tour" nothing && usage_error "$tour" --procs x && usage_error "$tour" --what &&
    usage_error "$tour" sieve skynet && usage_error "$tour" digest "$scratch/nowhere"
}

check the_whole_tour_ends_well
check the_sieve_finds_its_prime
check skynet_counts_a_million
check sleepers_do_not_wake_early
check every_message_is_echoed
check the_deadlock_is_explained
check the_digest_is_compared
check each_says_how_long_it_took
check a_terminal_gets_no_rubbish
check bad_flags_get_one_line
finish
