#!/usr/bin/env bash
# tools/run.sh and tools/test.sh before they build: which packages they ask for, what they say when they may not install.
# The package tools are replaced by stand-ins that write down their calls.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)

stand_in() {  # stand_in NAME BODY
  printf '#!/bin/sh\necho "%s $*" >>"$CALLS"\n%s\n' "$1" "$2" >"$fake/$1"
  chmod +x "$fake/$1"
}

# Sets up a fresh machine: packages that dpkg-query does not know are missing; apt-get makes them known.
machine() {  # machine UID INSTALLED...
  fake=$(mktemp -d "$scratch/a machine.XXXX")
  export CALLS=$fake/calls
  printf '%s\n' "${@:2}" >"$fake/installed"
  : >"$CALLS"
  stand_in dpkg-query "for last; do :; done; grep -qx \"\$last\" '$fake/installed' && printf installed"
  stand_in apt-get "case \"\$*\" in *install*) for p; do echo \"\$p\" >>'$fake/installed'; done ;; esac"
  stand_in id "echo $1"
  stand_in sudo 'exit 1'
}

needs() {  # needs PACKAGE...: need_packages on that machine, as a script that goes on to its build
  (
    PATH=$fake:$PATH
    . "$root/tools/lib/common.sh"
    need_packages "$@"
    echo built
  ) >"$fake/out" 2>&1 </dev/null
}

calls() { grep -c "^$1" "$CALLS"; }

nothing_missing_goes_straight_to_the_build() {
  machine 1000 aa bb
  needs aa bb && [ "$(cat "$fake/out")" = built ] && [ "$(calls apt-get)" = 0 ] && [ "$(calls sudo)" = 0 ]
}

root_installs_what_is_missing() {
  machine 0 aa
  needs aa bb cc && [ "$(calls apt-get)" = 1 ] && grep -q 'apt-get .*install bb cc$' "$CALLS" && [ "$(calls sudo)" = 0 ]
}

sudo_installs_what_is_missing() {
  machine 1000 aa
  stand_in sudo '[ "$1" != -n ] || shift; exec "$@"'
  needs aa bb && grep -q 'apt-get .*install bb$' "$CALLS"
}

old_package_lists_are_updated() {
  machine 0 aa
  stand_in apt-get "case \"\$*\" in *update*) : >'$fake/fresh' ;; *) [ -f '$fake/fresh' ] ;; esac"
  needs aa bb && grep -q '^apt-get .*update' "$CALLS" && [ "$(calls apt-get)" = 3 ]
}

without_permission_one_line_names_what_is_missing() {
  machine 1000 aa
  ! needs aa bb cc && [ "$(wc -l <"$fake/out")" = 1 ] && grep -q 'missing packages: bb cc' "$fake/out" &&
    [ "$(calls apt-get)" = 0 ]
}

without_sudo_one_line_names_what_is_missing() {
  machine 1000 aa
  rm "$fake/sudo"
  local tool
  for tool in bash cat dirname grep; do ln -s "$(command -v $tool)" "$fake/$tool"; done
  ! PATH=$fake needs aa bb && [ "$(wc -l <"$fake/out")" = 1 ] && grep -q 'missing packages: bb' "$fake/out"
}

a_failed_installation_names_what_is_missing() {
  machine 0 aa
  stand_in apt-get 'exit 100'
  ! needs aa bb && grep -q 'missing packages: bb' "$fake/out"
}

an_unknown_program_is_refused_with_the_list() {
  cd / && usage_error "$root/tools/run.sh" weft-nothing && grep -q 'weft-nothing.*weft-tour' "$scratch/err"
}

an_unknown_option_of_test_sh_is_refused() {
  cd / && usage_error "$root/tools/test.sh" --nothing && grep -q 'unknown option: --nothing' "$scratch/err"
}

check nothing_missing_goes_straight_to_the_build
check root_installs_what_is_missing
check sudo_installs_what_is_missing
check old_package_lists_are_updated
check without_permission_one_line_names_what_is_missing
check without_sudo_one_line_names_what_is_missing
check a_failed_installation_names_what_is_missing
check an_unknown_program_is_refused_with_the_list
check an_unknown_option_of_test_sh_is_refused
finish
