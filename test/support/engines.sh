#!/bin/bash
# Gets the Docker engines of other Debian releases for the tests, each with its containerd, into .cache/engines/MAJOR:
# only unpacked, the machine's runc and docker-init serve all of them. What cannot be had is said in one line and is no
# failure: the tests of that engine are skipped. Quick and silent when all are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/support/apt.sh
engines=.cache/engines
scratch=$engines/apt

# The engine of the machine's own release is unpacked with the other tools.
missing_suites() {
	local suite own
	own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	for suite in bookworm trixie forky; do
		[ "$suite" = "$own" ] || grep -qsx "suite $suite" $engines/*/.unpacked || echo "$suite"
	done
}

# unpack_engine SUITE
unpack_engine() {
	local suite=$1 debs=$scratch/$1 version major file
	mkdir -p "$debs"
	(cd "$debs" && apt-get -c ../apt.conf -qq download "docker.io/$suite" "containerd/$suite" </dev/null) || return 1
	version=$(dpkg-deb -f "$debs"/docker.io_*.deb Version)
	major=${version%%.*}
	rm -rf "${engines:?}/$major"
	mkdir -p "$engines/$major"
	for file in "$debs"/*.deb; do
		dpkg-deb --fsys-tarfile "$file" | tar -x -C "$engines/$major" --wildcards './usr/*bin/*' || return 1
	done
	(cd "$engines/$major/usr/bin" && rm -f ctr docker-init containerd-shim containerd-shim-runc-v1)
	for file in "$debs"/*.deb; do dpkg-deb -W --showformat='${Package} ${Version}\n' "$file"; done >"$debs/found"
	say "unpacked into $engines/$major, from Debian's $suite: $(paste -sd, "$debs/found" | sed 's/,/, /')"
	{ echo "suite $suite" && cat "$debs/found"; } >"$engines/$major/.unpacked"
}

mapfile -t suites < <(missing_suites)
[ ${#suites[@]} -gt 0 ] || exit 0
without() { say "no Docker of Debian's $1: $2; the tests with it are skipped, the next set-up tries again"; }
lacks=$(apt_lacks)
if [ -n "$lacks" ]; then
	without "${suites[*]}" "$lacks"
	exit 0
fi
trap 'rm -rf $scratch' EXIT
prepare_apt $scratch "${suites[@]}"
apt-get -c $scratch/apt.conf -qq update </dev/null >$scratch/log 2>&1 || true
absent=()
for suite in "${suites[@]}"; do unpack_engine "$suite" 2>>$scratch/log || absent+=("$suite"); done
[ ${#absent[@]} -eq 0 ] || without "${absent[*]}" "$(grep -E '^[EW]:' $scratch/log | head -1)"
