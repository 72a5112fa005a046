#!/bin/sh
# castore's main job on real files: run it with `make demo`. Needs `castore` and `python` on the PATH, and
# the repository as the current folder. Everything it makes is in ./.demo.
set -eu

rm -rf .demo
mkdir -p .demo
cp composition.toml .demo/
export CASTORE_COMPOSITION=.demo/composition.toml

# Bold on a terminal that can, and not in a pipe.
bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() { printf '$ %s\n' "$*"; eval "$*"; }

say "1. The stack: a store nearby in front of an archive, declared in composition.toml"
run "castore check"
run "castore graph"

say "2. The files of this repository go in; each line is what b3sum would print"
git ls-files -z 2>/dev/null | xargs -0 -r -I{} sh -c 'test -f "{}" && printf "%s\0" "{}"' > .demo/names
test -s .demo/names || find README.md castore plugins -type f -print0 > .demo/names
run "xargs -0 castore put < .demo/names > .demo/sums"
run "head -n 3 .demo/sums"
run "castore list | wc -l"

say "3. So anything that reads b3sum's format can check them"
if command -v b3sum > /dev/null; then
    run "b3sum --check --quiet .demo/sums && echo every file is what its digest says"
else
    run "python examples/demo/check_sums.py .demo/sums"
fi

say "4. A file of 24 MiB, and a copy with a few words changed in its middle"
run "python examples/demo/make_files.py .demo/big .demo/big-edited"
run "castore put .demo/big | tee .demo/big.sum"
du -sk .demo/stores/archive | cut -f1 > .demo/before
run "castore put .demo/big-edited | tee .demo/edited.sum"
du -sk .demo/stores/archive | cut -f1 > .demo/after
big=$(cut -c1-64 .demo/big.sum)
edited=$(cut -c1-64 .demo/edited.sum)
castore stat --json "$big" > .demo/big.json
castore stat --json "$edited" > .demo/edited.json
run "python examples/demo/shared_chunks.py .demo/big.json .demo/edited.json"
echo "the archive grew by $(($(cat .demo/after) - $(cat .demo/before))) KiB"

say "5. Back again, bit for bit"
run "castore get $big -o .demo/big-again"
run "cmp .demo/big .demo/big-again && echo identical"

say "6. And in part: 60 bytes from the middle, which unpack one chunk and not the file"
run "castore get $edited --offset 12582880 --length 60"
echo

say "7. With the near store gone, the archive answers and fills it again"
run "rm -r .demo/stores/near"
run "castore get $big -o .demo/big-again && cmp .demo/big .demo/big-again && echo identical"
run "du -sh .demo/stores/near .demo/stores/archive"

say "8. A folder goes in under one digest, and comes back as it was"
cp -R examples .demo/examples
run "castore import .demo/examples | tee .demo/examples.sum"
root=$(cut -c1-64 .demo/examples.sum)
run "castore tree -L 1 $root"
echo 'one more line' >> .demo/examples/demo/demo.sh
run "castore diff $root ./.demo/examples || echo it has changed"
run "castore export $root .demo/examples-again"
run "diff -r examples .demo/examples-again && echo the same as before"
