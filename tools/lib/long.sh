# Sourced by test.sh --long: the soaks and the benchmark bars. Prints their figures.

# soak LABEL COMMAND...
soak() {
  local label=$1
  shift
  echo "[long] $label"
  if "$@" </dev/null; then
    record passed "long $label"
  else
    record failed "long $label"
    echo "FAILED [long] $label"
    printf '  reproduce:'
    printf ' %q' "$@"
    echo
  fi
}

# What takes too long for every commit: a million guarded stacks, ten million goroutines, ten idle seconds.
for exe in "$root"/build/tests/weft-test-{unit,golang}; do
  soak "${exe##*/}, the long ones" "$exe" --gtest_also_run_disabled_tests --gtest_filter='*DISABLED_*'
done

# Ten minutes on the collected heap, and its pauses with up to 100,000 goroutines.
if [ -x "$root/build/tests/weft-test-gc" ]; then
  soak "weft-test-gc, the long ones" env WEFT_TEST_TIMEOUT=1200 "$root/build/tests/weft-test-gc" \
    --gtest_also_run_disabled_tests --gtest_filter='*DISABLED_*'
  soak "weft-gc-demo" "$root/build/tools/weft-gc-demo" --duration 2m
fi

for procs in 1 2 8 64; do
  soak "stress mix, $procs procs" \
    "$root/build/tools/weft-stress" mix --duration 10m --procs "$procs"
done

if [ -x "$root/build-tsan/tools/weft-stress" ]; then
  tsan=("$root/build-tsan/tools/weft-stress" mix --duration 5m --procs 8)
  if setarch -R true 2>/dev/null; then tsan=(setarch -R "${tsan[@]}"); fi
  soak "stress mix under TSan" "${tsan[@]}"
fi

if command -v go >/dev/null; then
  soak "benchmarks against Go" "$root/tools/bench/compare.sh"
else
  echo "[long] benchmarks against Go: left out, go is not on PATH"
fi
