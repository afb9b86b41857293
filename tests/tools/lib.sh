# Sourced by the scripts beside it: they are run as SCRIPT BUILD [NAME], print TAP and exit with 1 if a test failed.
# A test is a function; what it prints is shown when it fails.
set -uo pipefail

[ $# -ge 1 ] && [ -d "$1/tools" ] || {
  echo "usage: ${0##*/} BUILD [NAME]" >&2
  exit 2
}
bin=$(cd -- "$1/tools" && pwd -P)
only=${2:-}
scratch=$(mktemp -d)
chmod 755 "$scratch"
trap 'chmod -R u+rwX "$scratch" 2>/dev/null; rm -rf "$scratch"' EXIT
number=0 failed=0

check() {  # check NAME
  [ -z "$only" ] || [ "$only" = "$1" ] || return 0
  number=$((number + 1))
  local output
  if output=$("$1" 2>&1); then
    echo "ok $number - $1"
  else
    [ -z "$output" ] || sed 's/^/# /' <<<"$output"
    echo "not ok $number - $1"
    failed=$((failed + 1))
  fi
}

finish() {
  echo "1..$number"
  [ "$number" -gt 0 ] || { echo "${0##*/}: no test is named $only" >&2; exit 2; }
  exit $((failed > 0))
}

# exits STATUS COMMAND...: its output is in $scratch/out and $scratch/err afterwards.
exits() {
  local wanted=$1 status=0
  shift
  "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
  [ "$status" = "$wanted" ] || {
    echo "exit status $status instead of $wanted: $*"
    tail -n 20 "$scratch/out" "$scratch/err"
    return 1
  }
}

# usage_error COMMAND...: one line on stderr, nothing on stdout, exit status 2.
usage_error() {
  exits 2 "$@" || return 1
  [ "$(wc -l <"$scratch/err")" = 1 ] && [ ! -s "$scratch/out" ] || {
    echo "not one line on stderr: $*"
    cat "$scratch/out" "$scratch/err"
    return 1
  }
}

# on_a_terminal COMMAND...: what it writes to one; its exit status. (Not pty.spawn: with its own input at the end it may wait
# for ever.)
on_a_terminal() {
  TERM=xterm python3 -c '
import os, pty, sys

child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:  # the last one who had it open has ended
        break
    if not data:
        break
    sys.stdout.buffer.write(data)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
' "$@" </dev/null
}
