#!/usr/bin/env bash
# Installs the library of a build folder into a temporary place and builds and runs each consumer project against that
# alone, twice: as it is, and with the exported flags that poll its loops. Each must have been handed the flag that makes its own
# frames safe beside a guard, and the polls only where it asked for them. Usage: run.sh BUILD [NAME]; prints TAP.
set -uo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
build=$(cd -- "${1:?usage: run.sh BUILD [NAME]}" && pwd -P) || exit 2
only=${2:-}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

if ! meson install -C "$build" --no-rebuild --destdir "$stage/root" >"$stage/log" 2>&1; then
  cat "$stage/log"
  exit 1
fi
pc=$(find "$stage/root" -name weft.pc)
prefix=$(cd -- "$(dirname -- "$pc")/$(sed -n 's/^prefix=${pcfiledir}//p' "$pc")" && pwd -P)
export PKG_CONFIG_PATH=${pc%/weft.pc}${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
export LD_LIBRARY_PATH=${PKG_CONFIG_PATH%%:*}/..${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export CXX=${CXX:-c++}

# has_flag FOLDER: every compilation there was told.
has_flag() {
  local all told
  all=$(grep -c '"command"' "$1/compile_commands.json")
  told=$(grep -c '"command".* -fstack-clash-protection ' "$1/compile_commands.json")
  [ "${all:-0}" -gt 0 ] && [ "$all" -eq "$told" ] || { echo "weft does not hand on -fstack-clash-protection"; return 1; }
}

# has_polls FOLDER: in the one program that asked for them.
polls_in() { objdump -d --no-show-raw-insn "$1" | grep -c 'call.*__sanitizer_cov_trace_pc'; }
has_polls() {
  [ "$(polls_in "$1/polled")" -gt 0 ] || { echo "no poll in polled"; return 1; }
  [ "$(polls_in "$1/consumer")" -eq 0 ] || { echo "polls in consumer"; return 1; }
}

# Built outside the tree, as a stranger's project is. Each leaves its program as `consumer` in the folder named, and as `polled`.
meson_consumer() { meson setup "$1" "$here/meson" && meson compile -C "$1" && has_flag "$1"; }
pkgconfig_consumer() {
  if [[ " $(pkg-config --cflags weft) " != *" -fstack-clash-protection "* ]]; then
    echo "weft.pc does not hand on -fstack-clash-protection"
    return 1
  fi
  local id=gcc
  case $($CXX --version) in *clang*) id=clang ;; esac
  # shellcheck disable=SC2046,SC2086  # pkg-config prints words; CXX may be several, as in "ccache g++"
  $CXX -std=c++20 -Wall -Wextra -Werror -o "$1/consumer" "$here/pkgconfig/sieve.cpp" \
    $(pkg-config --cflags --libs weft) &&
    $CXX -std=c++20 -Wall -Wextra -Werror -o "$1/polled" "$here/pkgconfig/sieve.cpp" \
      $(pkg-config "--variable=poll_cflags_$id" weft) $(pkg-config --cflags --libs weft) || return 1
  # On segmented stacks, where this build has them: compiled and linked in one step.
  [ ! -f "${pc%/weft.pc}/weft-segmented.pc" ] || {
    # shellcheck disable=SC2046
    $CXX -std=c++20 -Wall -Wextra -Werror -o "$1/segmented" "$here/pkgconfig/segmented.cpp" \
      $(pkg-config --cflags --libs weft-segmented) && timeout 60 "$1/segmented" || return 1
  }
  # On the collected heap, where this build has it.
  [ ! -f "${pc%/weft.pc}/weft-gc.pc" ] || {
    # shellcheck disable=SC2046
    $CXX -std=c++20 -Wall -Wextra -Werror -o "$1/collected" "$here/pkgconfig/collected.cpp" \
      $(pkg-config --cflags --libs weft-gc) && timeout 60 "$1/collected"
  }
}
cmake_consumer() {
  cmake -G Ninja -S "$here/cmake" -B "$1" "-DCMAKE_PREFIX_PATH=$prefix" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON &&
    cmake --build "$1" && has_flag "$1" || return 1
  [ ! -f "${pc%/weft.pc}/weft-gc.pc" ] || timeout 60 "$1/collected"
}

says_as_expected() {
  timeout -s QUIT -k 5 60 "$stage/$name/$1" ${inputs[@]+"${inputs[@]}"} >"$stage/out" 2>>"$stage/log" &&
    diff "$here/$name/expected" "$stage/out" >>"$stage/log"
}

number=0
for name in meson pkgconfig cmake; do
  [ -z "$only" ] || [ "$only" = "$name" ] || continue
  number=$((number + 1))
  mkdir "$stage/$name"
  inputs=()
  [ ! -f "$here/$name/input" ] || inputs=("$here/$name/input")
  if "${name}_consumer" "$stage/$name" >"$stage/log" 2>&1 </dev/null && has_polls "$stage/$name" >>"$stage/log" &&
      says_as_expected consumer && says_as_expected polled; then
    echo "ok $number - $name"
  else
    cat "$stage/log"
    echo "not ok $number - $name"
  fi
done
echo "1..$number"
