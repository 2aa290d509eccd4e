#!/bin/bash
# Makes all packages from a clean checkout of this commit: `clean-build.sh CHECKOUT OUT`. Both are made anew; what set-up
# fetched is linked into the checkout, what was built is not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
checkout=$1 out=$2
rm -rf "$checkout" "$out"
mkdir -p "$(dirname "$checkout")" "$out"
git clone -q . "$checkout"
cp -al node_modules "$checkout/"
mkdir "$checkout/.cache"
for fetched in zig node binutils image; do cp -al ".cache/$fetched" "$checkout/.cache/"; done
out=$(realpath "$out")
cd "$checkout"
node_modules/.bin/tsc -p tsconfig.build.json
exec node dist/package/package.js --out "$out"
