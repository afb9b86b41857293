#!/usr/bin/env bash
# weft-digest against find, sort and sha256sum on trees that are hard to name, to read and to sort.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

digest=$scratch/weft-digest
cp "$bin/weft-digest" "$digest"  # where another user can reach it

pipeline() {  # pipeline DIR [SUM]
  find "$1" -type f -print0 | LC_ALL=C sort -z | xargs -0 "${2:-sha256sum}"
}

# The same user for both sides: root may read everything.
as_nobody() {
  if [ "$(id -u)" = 0 ]; then
    setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
  else
    "$@"
  fi
}

same() {  # same DIR [OPTION...]: equal output, exit status 0, nothing on stderr
  local dir=$1 sum=sha256sum
  shift
  case " $* " in *" md5 "*) sum=md5sum ;; esac
  pipeline "$dir" $sum >"$scratch/expected" 2>/dev/null
  exits 0 "$digest" "$@" "$dir" || return 1
  cmp "$scratch/expected" "$scratch/out" && [ ! -s "$scratch/err" ]
}

tree=$scratch/tree
make_tree() {
  mkdir -p "$tree"/{a,'a b',empty,'deep/er',$'new\nline',-dash,a.d} || return
  local i name
  for name in 'a-b' 'a.b' 'a b/x' 'a/x' 'a/y' 'a.d/z' 'ab' 'a!' 'A' ' lead' 'trail ' $'new\nline/n' $'c\nd\n' 'b\s' 'b\\' \
    $'r\rq' $'t\tab' "q'uote" 'd"q' 'co:lon' 'é' $'\xff\xfe' '#h' '~t' '*' '$x' '-n' '-dash/-' '{' 'deep/er/f'; do
    printf '%s' "$name" >"$tree/$name"
  done
  : >"$tree/none"
  : >"$tree/empty file"
  head -c 20000000 /dev/urandom >"$tree/big"
  head -c 131072 /dev/zero >"$tree/one read"
  head -c 131073 /dev/zero >"$tree/one read and a byte"
  ln -s big "$tree/link"
  ln -s a "$tree/link to directory"
  ln -s nowhere "$tree/dangling"
  ln -s .. "$tree/deep/loop"
  mkfifo "$tree/fifo"
  ln "$tree/big" "$tree/hard link"
  mkdir "$scratch/many"
  for i in {1..40}; do mkdir "$scratch/many/$((i % 7))-$i"; done
  for i in {1..3000}; do echo "$i" >"$scratch/many/$((i % 40 % 7))-$((i % 40 + 1))/$i" || true; done 2>/dev/null
  name=$scratch/long
  for i in {1..100}; do name+=/directory-$i-of-a-long-path; done
  mkdir -p "$name"
  echo end >"$name/end"
  [ -s "$tree/big" ]
}

equals_the_pipeline() { same "$tree"; }
md5_equals_the_pipeline() { same "$tree" --algo md5; }
one_digester_equals_the_pipeline() { same "$tree" --jobs 1 --procs 1; }
many_digesters_equal_the_pipeline() { same "$scratch/many" --jobs 200 --procs 8 && same "$tree" --jobs 3 --procs 2; }
a_long_path_equals_the_pipeline() { same "$scratch/long"; }
an_empty_directory_equals_the_pipeline() { same "$tree/empty"; }
a_file_equals_the_pipeline() { same "$tree/big" && same "$tree/b\\s"; }
a_link_equals_the_pipeline() { same "$tree/link" && same "$tree/link to directory" && same "$tree/link to directory/"; }
ways_to_write_a_directory_equal_the_pipeline() {
  cd "$tree" && same . && same ./ && same .// && same ../tree && same 'a b' && same "$tree//a/"
}
repeated_runs_are_equal() {
  local i
  for i in {1..20}; do same "$scratch/many" --jobs 7 --procs $((i % 4 + 1)) || return 1; done
}

without_a_directory_it_takes_the_current_one() {
  cd "$tree" && exits 0 "$digest" && pipeline . | cmp - "$scratch/out"
}

unreadable_ones_are_reported_and_the_rest_goes_on() {
  local dir="$scratch/closed doors"
  mkdir -p "$dir"/{open,shut} && echo 1 >"$dir/open/1" && echo 2 >"$dir/shut/2" && echo 3 >"$dir/3" && echo 4 >"$dir/"$'4\n4'
  echo 5 >"$dir/q'uote"
  chmod 755 "$dir" "$dir/open" && chmod 000 "$dir/3" "$dir/"$'4\n4' "$dir/shut" "$dir/q'uote"
  exits 1 as_nobody "$digest" "$dir" || return 1
  cp "$scratch/out" "$scratch/got"
  cp "$scratch/err" "$scratch/told"
  exits 123 as_nobody bash -c 'find "$1" -type f -print0 | LC_ALL=C sort -z | LC_ALL=C.UTF-8 xargs -0 sha256sum' - "$dir" || return 1
  cmp "$scratch/out" "$scratch/got" || return 1
  # sha256sum's messages, and one for the directory, in the order of the paths.
  { grep '^sha256sum: ' "$scratch/err"; echo "sha256sum: '$dir/shut': Permission denied"; } |
    sed 's/^sha256sum/weft-digest/' | LC_ALL=C sort >"$scratch/wanted"
  LC_ALL=C sort "$scratch/told" | diff - "$scratch/wanted"
}

an_unreadable_root_is_reported() {
  mkdir -p "$scratch/shut" && chmod 000 "$scratch/shut"
  exits 1 as_nobody "$digest" "$scratch/shut" && grep -qx "weft-digest: $scratch/shut: Permission denied" "$scratch/err"
}

fail_fast_cancels_everything() {
  local dir=$scratch/fast
  mkdir -p "$dir" && echo 0 >"$dir/0" && chmod 000 "$dir/0"
  local i
  for i in {1..300}; do echo "$i" >"$dir/$i"; done
  ln "$tree/big" "$dir/big"
  exits 1 as_nobody "$digest" --fail-fast --jobs 4 "$dir" || return 1
  [ "$(wc -l <"$scratch/err")" = 1 ] && grep -q 'fast/0: Permission denied' "$scratch/err" || return 1
  [ "$(wc -l <"$scratch/out")" -lt 300 ] || return 1
  exits 1 as_nobody "$digest" "$dir" && [ "$(wc -l <"$scratch/out")" = 301 ]
}

a_directory_that_is_not_there_is_bad_usage() {
  usage_error "$digest" "$scratch/nowhere" && grep -qx "weft-digest: $scratch/nowhere: No such file or directory" "$scratch/err"
}

bad_flags_get_one_line() {
  usage_error "$digest" --algo sha1 && usage_error "$digest" --jobs 0 && usage_error "$digest" --jobs x &&
    usage_error "$digest" --procs 0 && usage_error "$digest" --procs 99999 && usage_error "$digest" --what &&
    usage_error "$digest" . . && usage_error "$digest" --jobs && usage_error "$digest" ''
}

help_is_no_error() { exits 0 "$digest" --help && grep -q -- --fail-fast "$scratch/out"; }

a_full_disk_is_reported() {
  local status=0
  "$digest" "$scratch/many" >/dev/full 2>"$scratch/err" || status=$?
  [ "$status" = 1 ] && grep -qx 'weft-digest: write error: No space left on device' "$scratch/err"
}

make_tree || { echo "Bail out! the trees cannot be made"; exit 1; }
check equals_the_pipeline
check md5_equals_the_pipeline
check one_digester_equals_the_pipeline
check many_digesters_equal_the_pipeline
check a_long_path_equals_the_pipeline
check an_empty_directory_equals_the_pipeline
check a_file_equals_the_pipeline
check a_link_equals_the_pipeline
check ways_to_write_a_directory_equal_the_pipeline
check repeated_runs_are_equal
check without_a_directory_it_takes_the_current_one
check unreadable_ones_are_reported_and_the_rest_goes_on
check an_unreadable_root_is_reported
check fail_fast_cancels_everything
check a_directory_that_is_not_there_is_bad_usage
check bad_flags_get_one_line
check help_is_no_error
check a_full_disk_is_reported
finish
