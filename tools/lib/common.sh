# Sourced by run.sh and test.sh: the tree's root, messages, packages, builds.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)

say() { printf '%s\n' "$*" >&2; }

die() {  # die STATUS MESSAGE...
  local status=$1
  shift
  say "${0##*/}: $*"
  exit "$status"
}

# Packages of Debian 12. The compiler and Meson; Boost.Context, spdlog with fmt; CLI11 and libcrypto for the programs; the Boehm collector for weft-gc.
build_packages=(g++ meson ninja-build pkgconf
  libboost-context-dev libspdlog-dev libfmt-dev libcli11-dev libssl-dev libgc-dev)
# GoogleTest; the second compiler; CMake for its consumer project.
test_packages=(libgtest-dev clang-14 cmake gdb)

# Installs those of the named packages that are missing. Without any missing it does not call apt-get.
need_packages() {
  command -v dpkg-query >/dev/null || return 0  # not Debian: Meson names what it does not find
  local package missing=() as_root=()
  for package; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local hint="missing packages: ${missing[*]} (apt-get install ${missing[*]})"
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die 1 "$hint"
    if ! sudo -n true 2>/dev/null; then
      { [ -t 0 ] && [ -z "${CI:-}" ] && sudo -v; } || die 1 "$hint"
    fi
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  local install=(${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive
    apt-get -qq -y --no-install-recommends install "${missing[@]}")
  local log
  log=$(mktemp)
  if ! "${install[@]}" </dev/null >"$log" 2>&1; then
    # The package lists may be empty or old.
    ${as_root[@]+"${as_root[@]}"} apt-get -qq update </dev/null >"$log" 2>&1 || true
    if ! "${install[@]}" </dev/null >>"$log" 2>&1; then
      tail -n 5 "$log" >&2
      rm -f "$log"
      die 1 "$hint"
    fi
  fi
  rm -f "$log"
}

# configure DIR OPTION...: sets DIR up when it is new or lacks one of the options. Options it was given before stay.
# What it was given stands in DIR/weft-options, below the root it was made for: a copied tree starts anew.
configure() {
  local dir=$1 log=$1.log stamp=$1/weft-options command=(meson setup) option changed=
  shift
  local -A set=()
  if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$root" ]; then rm -rf -- "$dir"; fi
  if [ -f "$dir/build.ninja" ]; then
    command+=(--reconfigure)
    for option in $(tail -n +2 "$stamp" 2>/dev/null); do set[${option%%=*}]=$option; done
  else
    changed=1
  fi
  for option; do
    [ "${set[${option%%=*}]-}" = "$option" ] || changed=1
    set[${option%%=*}]=$option
  done
  [ -n "$changed" ] || return 0
  say "configuring ${dir#"$root"/}"
  if ! "${command[@]}" "$@" "$dir" "$root" </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
  printf '%s\n' "$root" "${set[@]}" >"$stamp"
}

# compile DIR [TARGET...]
compile() {
  local dir=$1
  shift
  if [ -t 1 ]; then
    ninja -C "$dir" "$@"
  else
    ninja --quiet -C "$dir" "$@"
  fi
}
