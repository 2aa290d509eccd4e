#!/bin/bash
# Gets the Docker engines of other Debian releases for the tests, each with its containerd, into .cache/engines/MAJOR:
# only unpacked, the machine's runc and docker-init serve all of them. Beside them Docker Compose, and the CNI plugins of
# the last release that has flannel's. What cannot be had is said in one line and is no failure: the tests of that engine
# are skipped. Quick and silent when all are there.
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

# Name below .cache/engines, suite, package.
others=('compose trixie docker-compose' 'cni bullseye containernetworking-plugins')

missing_others() {
	local name rest
	for other in "${others[@]}"; do
		read -r name rest <<<"$other"
		[ -e "$engines/$name/.unpacked" ] || echo "$name $rest"
	done
}

# unpack_other NAME SUITE PACKAGE
unpack_other() {
	local debs=$scratch/$1
	mkdir -p "$debs"
	(cd "$debs" && apt-get -c ../apt.conf -qq download "$3/$2" </dev/null) || return 1
	rm -rf "${engines:?}/$1"
	mkdir -p "$engines/$1"
	dpkg-deb -x "$debs"/*.deb "$engines/$1" || return 1
	say "unpacked into $engines/$1, from Debian's $2: $3"
	dpkg-deb -W --showformat='${Package} ${Version}\n' "$debs"/*.deb >"$engines/$1/.unpacked"
}

mapfile -t suites < <(missing_suites)
mapfile -t more < <(missing_others)
[ ${#suites[@]} -gt 0 ] || [ ${#more[@]} -gt 0 ] || exit 0
without() { say "no Docker of Debian's $1: $2; the tests with it are skipped, the next set-up tries again"; }
lacks=$(apt_lacks)
if [ -n "$lacks" ]; then
	without "${suites[*]}" "$lacks"
	exit 0
fi
trap 'rm -rf $scratch' EXIT
mapfile -t sources < <(printf '%s\n' "${suites[@]}" "${more[@]}" | awk 'NF { print NF == 1 ? $1 : $2 }' | sort -u)
prepare_apt $scratch "${sources[@]}"
apt-get -c $scratch/apt.conf -qq update </dev/null >$scratch/log 2>&1 || true
absent=()
for other in "${more[@]}"; do
	read -r name suite package <<<"$other"
	unpack_other "$name" "$suite" "$package" 2>>$scratch/log || say "no $package of Debian's $suite; the tests with it are skipped"
done
for suite in "${suites[@]}"; do unpack_engine "$suite" 2>>$scratch/log || absent+=("$suite"); done
[ ${#absent[@]} -eq 0 ] || without "${absent[*]}" "$(grep -E '^[EW]:' $scratch/log | head -1)"
