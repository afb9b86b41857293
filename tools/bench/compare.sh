#!/usr/bin/env bash
# Builds weft-bench and its Go twin and sets them side by side: compare.sh [--help | OPTIONS of compare.py].
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/../lib/common.sh"

here=$root/tools/bench
command -v python3 >/dev/null || die 2 "python3 is not on PATH"
python3 "$here/compare.py" --check "$@" || exit
case " $* " in *" --help "* | *" -h "*) exit 0 ;; esac

export GOTOOLCHAIN=local # the go on PATH, not one that it would fetch
command -v go >/dev/null || die 2 "go is not on PATH; the comparison needs Go 1.26 or newer"
version=$(go env GOVERSION)
if ! [[ $version =~ ^go([0-9]+)\.([0-9]+) ]] ||
  ((BASH_REMATCH[1] < 1 || BASH_REMATCH[1] == 1 && BASH_REMATCH[2] < 26)); then
  die 2 "$(command -v go) is ${version:-unknown}; the comparison needs Go 1.26 or newer"
fi

need_packages "${build_packages[@]}"
configure "$root/build" -Dtools=enabled >&2
compile "$root/build" tools/weft-bench >&2
GOFLAGS='' GOWORK=off go build -C "$here/go" -buildvcs=false -o "$root/build/go-bench" .
exec python3 "$here/compare.py" --weft "$root/build/tools/weft-bench" --go "$root/build/go-bench" "$@"
