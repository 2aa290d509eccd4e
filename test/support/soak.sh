#!/bin/bash
# `npm run soak -- --minutes 30 --seed N [--only TEXT]`: random faults on three hosts and three etcd members, under traffic, with every
# invariant checked (soak.ts). The last line states the result. Needs root.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ "$(id -u)" = 0 ] || { echo 'soak: network namespaces need root: run it as root (sudo npm run soak)' >&2; exit 1; }
bash test/support/setup.sh all
node_modules/.bin/tsc -p test/support/tsconfig.soak.json
TARTAN_TREE=$PWD exec node .cache/soak/test/support/soak.js "$@"
