#!/usr/bin/env bash
# Builds and runs all suites; the last line is `N passed, N failed`.
set -uo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

usage() {
  cat <<'TEXT'
usage: test.sh [--quick] [--long] [--werror]
  --quick   the plain build only, without the sanitizers, segmented stacks and the second compiler
  --long    also the soaks and the benchmark comparison, with their figures (about 50 minutes more)
  --werror  warnings are errors in all builds
TEXT
}

quick= long= werror=-Dwerror=false
for arg; do
  case $arg in
    --quick) quick=1 ;;
    --long) long=1 ;;
    --werror) werror=-Dwerror=true ;;
    -h | --help) usage; exit 0 ;;
    *) die 2 "unknown option: $arg (--quick, --long, --werror)" ;;
  esac
done

results=$(mktemp)
trap 'rm -f "$results"' EXIT

record() { printf '%s\t%s\n' "$1" "$2" >>"$results"; }

# suite LABEL NAME ARG... COMMAND...: what run_suite.py says of it goes to the terminal and to the results.
suite() {
  local label=$1 name=$2
  shift 2
  python3 "$root/tools/lib/run_suite.py" --label "$label" --name "$name" --results "$results" "$@"
}

# variant LABEL DIR OPTION...: builds DIR and runs its GoogleTest executables.
variant() {
  local label=$1 dir=$2 start=$SECONDS exe
  shift 2
  if ! configure "$dir" "$werror" "$@" || ! compile "$dir"; then
    record failed "$label build"
    echo "FAILED [$label] build"
    echo "  reproduce: ninja -C $(printf %q "$dir")"
    return 1
  fi
  record passed "$label build"
  echo "[$label] built in $((SECONDS - start)) s"
  for exe in "$dir"/tests/weft-test-*; do
    if [ -x "$exe" ] && [ ! -d "$exe" ]; then
      suite "$label" "${exe##*/}" -- ${wrapper[@]+"${wrapper[@]}"} "$exe"
    fi
  done
}

need_packages "${build_packages[@]}" "${test_packages[@]}"
wrapper=()

if variant plain "$root/build" -Dbuildtype=release -Dtools=enabled -Dtests=enabled; then
  suite plain lint --tap -- "$root/tests/lint/run.py" --build "$root/build"
  for script in "$root"/tests/tools/*.sh; do
    [ "${script##*/}" = lib.sh ] || suite plain "tools/${script##*/}" --tap -- "$script" "$root/build"
  done
  suite plain consumers --tap -- "$root/tests/consumers/run.sh" "$root/build"
fi

if [ -z "$quick" ]; then
  # Checked builds: asserts stay in. (-Og: the undefined-behaviour checks take gcc three times as long at -O1.)
  checked=(-Dtests=enabled -Db_ndebug=false)
  # A report ends the process, so that it counts for the test that was running.
  export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
  export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}
  variant asan "$root/build-asan" "${checked[@]}" -Doptimization=g -Db_sanitize=address,undefined \
    -Dtools=disabled
  # TSan's shadow memory does not fit every layout of the address space.
  if setarch -R true 2>/dev/null; then wrapper=(setarch -R); fi
  variant tsan "$root/build-tsan" "${checked[@]}" -Doptimization=1 -Db_sanitize=thread \
    -Dtools=$([ -n "$long" ] && echo enabled || echo disabled)
  wrapper=()

  # Segmented stacks: their own suite, and all others in a library that has them.
  if variant segmented "$root/build-segmented" -Dbuildtype=release -Dtests=enabled -Dtools=disabled -Dsegmented=enabled; then
    suite segmented consumers --tap -- "$root/tests/consumers/run.sh" "$root/build-segmented"
  fi

  # The second compiler, and the library as a shared one.
  if CXX=clang++-14 variant clang "$root/build-clang" -Dtools=enabled -Dtests=enabled \
      -Doptimization=2 -Ddefault_library=shared -Dwerror=true; then
    suite clang consumers --tap -- "$root/tests/consumers/run.sh" "$root/build-clang"
  fi
fi

if [ -n "$long" ]; then
  . "$root/tools/lib/long.sh"
fi

skipped=$(grep -c '^skipped' "$results")
failed=$(grep -c '^failed' "$results")
passed=$(grep -c '^passed' "$results")
if [ "$failed" -gt 0 ]; then
  echo "failed:"
  sed -n 's/^failed\t/  /p' "$results"
fi
[ "$skipped" -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
