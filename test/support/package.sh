#!/bin/bash
# `npm run package`: fetches by hash what packages are made of, once, and makes them. `npm run package -- --help` says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash test/support/setup.sh package
npx tsc -p tsconfig.build.json
exec node dist/package/package.js "$@"
