#!/usr/bin/env bash
# weft-stress: short runs of every workload, and planted faults that it must find.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

stress=$bin/weft-stress

passes() { exits 0 "$stress" "$@" && tail -n 1 "$scratch/out" | grep -q '^weft-stress: PASS '; }

# finds TEXT ARG...: exit status 1, the text and the command that repeats it in the last line.
finds() {
  local text=$1
  shift
  exits 1 "$stress" "$@" || return 1
  tail -n 1 "$scratch/out" | grep -Eq "^weft-stress: FAIL: .*$text.*; reproduce: .*weft-stress spawn --seed 7 --procs 2 --duration 20s" || {
    cat "$scratch/out"
    tail -n 20 "$scratch/err"
    return 1
  }
}
planted() { finds "$2" spawn --seed 7 --procs 2 --duration 20s --plant "$1" "${@:3}"; }

spawn_passes() { passes spawn --seed 1 --procs 1 --duration 1s && passes spawn --seed 2 --procs 2 --duration 1s && passes spawn --seed 3 --procs 8 --duration 1s; }
chan_passes() { passes chan --seed 1 --procs 1 --duration 1s && passes chan --seed 2 --procs 2 --duration 1s && passes chan --seed 3 --procs 8 --duration 1s; }
select_passes() { passes select --seed 1 --procs 1 --duration 1s && passes select --seed 2 --procs 2 --duration 1s && passes select --seed 3 --procs 8 --duration 1s; }
timer_passes() { passes timer --seed 1 --procs 1 --duration 1s && passes timer --seed 2 --procs 2 --duration 1s && passes timer --seed 3 --procs 8 --duration 1s; }
fd_passes() { passes fd --seed 1 --procs 1 --duration 1s && passes fd --seed 2 --procs 2 --duration 1s && passes fd --seed 3 --procs 8 --duration 1s; }
mix_passes() { passes mix --seed 1 --procs 1 --duration 2s && passes mix --seed 2 --procs 2 --duration 2s && passes mix --seed 3 --procs 8 --duration 2s; }
mix_passes_with_64_procs() { passes mix --seed 4 --procs 64 --duration 3s; }

a_finding_is_reported() { planted finding 'planted in round 2 '; }
a_fatal_is_a_finding() { planted fatal 'exit status 2' && grep -q 'fatal error: planted' "$scratch/err"; }
a_panic_is_a_finding() { planted panic 'exit status 2' && grep -q 'planted' "$scratch/err"; }
a_crash_is_a_finding() { planted crash 'signal 6'; }
a_goroutine_that_stays_is_a_finding() { planted leak '1 goroutines are left' && grep -q planted "$scratch/err"; }
a_hang_is_a_finding() { planted hang 'no progress for 2.0 s' --stall 2s && grep -q '^goroutine ' "$scratch/err"; }
a_loop_is_a_finding() { planted spin 'no progress for 2.0 s' --stall 2s; }
the_round_can_be_named() { planted finding 'planted in round 42 ' --round 40 && grep -q -- '--round 40' "$scratch/out"; }

the_verdict_can_be_json() {
  exits 0 "$stress" chan --seed 5 --duration 1s --json &&
    python3 -c 'import json, sys; o = json.load(open(sys.argv[1])); assert o["verdict"] == "pass" and o["seed"] == 5 and o["rounds"] > 0 and o["operations"] > 0 and o["finding"] is None' "$scratch/out" &&
    exits 1 "$stress" chan --seed 5 --duration 20s --json --plant finding &&
    python3 -c 'import json, sys; o = json.load(open(sys.argv[1])); assert o["verdict"] == "fail" and "planted" in o["finding"] and "--seed 5" in o["reproduce"]' "$scratch/out"
}

a_seed_gives_the_same_rounds() {
  exits 1 "$stress" mix --seed 9 --round 5 --duration 20s --plant finding && cp "$scratch/out" "$scratch/first" &&
    exits 1 "$stress" mix --seed 9 --round 5 --duration 20s --plant finding && cmp "$scratch/first" "$scratch/out" || return 1
  exits 1 "$stress" mix --seed 10 --round 5 --duration 20s --plant finding && ! cmp -s "$scratch/first" "$scratch/out"
}

progress_is_shown_on_a_terminal() {
  on_a_terminal "$stress" spawn --seed 1 --duration 3s >"$scratch/terminal" && grep -q 'spawn \[#' "$scratch/terminal" &&
    tail -n 1 "$scratch/terminal" | grep -q 'PASS' || return 1
  exits 0 "$stress" spawn --seed 1 --duration 2s && [ ! -s "$scratch/err" ]
}

bad_flags_get_one_line() {
  usage_error "$stress" && usage_error "$stress" nothing && usage_error "$stress" mix --seed x && usage_error "$stress" mix --procs 0 &&
    usage_error "$stress" mix --duration 5 minutes && usage_error "$stress" mix --duration -1s && usage_error "$stress" mix --duration 0 &&
    usage_error "$stress" mix chan && usage_error "$stress" --what
}

check spawn_passes
check chan_passes
check select_passes
check timer_passes
check fd_passes
check mix_passes
check mix_passes_with_64_procs
check a_finding_is_reported
check a_fatal_is_a_finding
check a_panic_is_a_finding
check a_crash_is_a_finding
check a_goroutine_that_stays_is_a_finding
check a_hang_is_a_finding
check a_loop_is_a_finding
check the_round_can_be_named
check the_verdict_can_be_json
check a_seed_gives_the_same_rounds
check progress_is_shown_on_a_terminal
check bad_flags_get_one_line
finish
