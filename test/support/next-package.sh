#!/bin/bash
# next-package.sh VERSION DIRECTORY: a .deb of this processor with another version, as a later release is: its native
# sources and the settings that it ships differ from those of this tree by a comment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
version=$1 into=$2
mkdir -p .cache
tree=$(mktemp -d "$PWD/.cache/next-package.XXXXXX")
trap 'rm -rf "$tree"' EXIT
for part in src config package.json package-lock.json tsconfig.json tsconfig.build.json README.md CHANGELOG.md LICENSE; do
	cp -R "$part" "$tree/"
done
mkdir "$tree/native"
for part in native/*; do [ "$part" = native/build ] || cp -R "$part" "$tree/native/"; done
ln -s "$PWD/node_modules" "$tree/node_modules"
# Objects of its own.
mkdir "$tree/.cache"
for part in .cache/zig .cache/node .cache/binutils; do ln -s "$PWD/$part" "$tree/.cache/"; done
echo '/* Another build. */' >>"$tree/native/shared/layout.h"
echo '# Of a later release.' >>"$tree/config/tartand.default"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
mkdir -p "$into"
into=$(realpath "$into")
cd "$tree"
npx tsc -p tsconfig.build.json
node dist/package/package.js --fast --only deb --arch "$(dpkg --print-architecture)" --version "$version" --out "$into"
