#!/usr/bin/env bash
# weft-gc-demo: right sums on a heap that stays small, and a failure when it may not grow at all.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

demo=$bin/weft-gc-demo
says() { grep -Eq -- "$1" "$scratch/out" || { echo "no line '$1' in:"; cat "$scratch/out"; return 1; }; }

the_sums_are_right_and_the_heap_is_bounded() {
  exits 0 "$demo" --seed 7 --procs 2 --goroutines 1000 --duration 3s && says '^weft-gc-demo: PASS --seed 7 --procs 2 ' &&
    says '^1,000 goroutines built [0-9,]+ trees and summed [0-9,]+ lists ' && says ' collections, pauses of '
}
a_heap_that_grows_too_far_is_a_failure() {
  exits 1 "$demo" --goroutines 2000 --duration 5s --heap-max 1 && says '^weft-gc-demo: FAIL: the heap grew to '
}
the_verdict_is_json_when_asked() {
  exits 0 "$demo" --seed 3 --goroutines 100 --duration 1s --json && python3 -c '
import json, sys
v = json.load(open(sys.argv[1]))
assert v["verdict"] == "pass" and v["seed"] == 3 and v["wrong"] == 0 and v["trees"] > 0 and v["lists"] > 0, v' "$scratch/out"
}
progress_is_shown_on_a_terminal() {
  on_a_terminal "$demo" --goroutines 200 --duration 2500ms >"$scratch/out" && grep -q '\[#.*trees, .*lists, heap ' "$scratch/out"
}
bad_flags_get_one_line() { usage_error "$demo" --goroutines 0 && usage_error "$demo" --procs x && usage_error "$demo" trees; }

not_built_without_libgc() { echo "weft-gc is not part of this build"; }

if [ ! -x "$demo" ]; then
  check not_built_without_libgc
  finish
fi
check the_sums_are_right_and_the_heap_is_bounded
check a_heap_that_grows_too_far_is_a_failure
check the_verdict_is_json_when_asked
check progress_is_shown_on_a_terminal
check bad_flags_get_one_line
finish
