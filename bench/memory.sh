#!/bin/sh
# Stores and reads back 4 GiB from a pipe and prints the peak resident memory of each; it must stay under 200 MiB.
# Needs `castore` on the PATH and GNU time (Debian: apt-get install time).
set -eu
folder=$(mktemp -d "${TMPDIR:-/tmp}/castore-memory.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cp "$(dirname "$0")/../composition.toml" "$folder"
cd "$folder"

peak() { sed -n 's/.*Maximum resident set size (kbytes): //p' "$1"; }

yes | head -c 4G | command time -v castore put - 2> put.time > put.out
digest=$(cut -c1-64 put.out)
command time -v castore get "$digest" 2> get.time | b3sum --no-names > got
test "$(cat got)" = "$digest"
echo "put - of 4 GiB: peak $(($(peak put.time) / 1024)) MiB"
echo "get of 4 GiB:   peak $(($(peak get.time) / 1024)) MiB, and its digest is right"
