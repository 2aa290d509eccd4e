#!/bin/bash
# `npm run demo`: installs what is missing, builds, and shows three hosts whose containers talk (demo.ts). Needs root.
# `npm run demo -- --keep` leaves them running.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ "$(id -u)" = 0 ] || { echo 'demo: network namespaces need root: run it as root (sudo npm run demo)' >&2; exit 1; }
bash test/support/setup.sh all
node_modules/.bin/tsc -p test/support/tsconfig.demo.json
# The program below cleans up and ends by itself; this shell only waits for it.
trap : INT TERM HUP
TARTAN_TREE=$PWD node .cache/demo/test/support/demo.js "$@" &
demo=$!
trap 'kill -TERM $demo 2>/dev/null' TERM HUP
status=0
while wait $demo || status=$?; kill -0 $demo 2>/dev/null; do status=0; done
exit $status
