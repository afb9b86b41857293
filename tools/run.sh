#!/usr/bin/env bash
# Builds a release of weft in build/ and runs one of its programs: run.sh [PROGRAM [ARGS]], without one weft-tour.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

programs=$(sed -n "s/^ *'\(weft-[a-z-]*\)':.*/\1/p" "$root/tools/meson.build" | tr '\n' ' ')
program=${1:-weft-tour}
[ $# -eq 0 ] || shift
case " $programs" in
  *" $program "*) ;;
  *) die 2 "unknown program: $program; there are: ${programs% }" ;;
esac

need_packages "${build_packages[@]}"
configure "$root/build" -Dbuildtype=release -Dtools=enabled
compile "$root/build" "tools/$program" >&2
exec "$root/build/tools/$program" "$@"
