#!/bin/bash
# Runs what a package has for arm64 on this x86-64, in an emulator: `arm64.sh IMAGE WORK [TEST...]` unpacks the image's archive
# below WORK and asks its programs for their version, then runs a part of the unit project on its Node.js with its native half.
# The emulator is known to the kernel in a user namespace of its own alone: nothing is registered on the machine.
set -euo pipefail
if [ "${1:-}" = --inside ]; then
	shift
	mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	head='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
	mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
	printf ':arm64:M::%s:%s:%s:F' "$head" "$mask" "$TARTAN_EMULATOR" >/proc/sys/fs/binfmt_misc/register
	exec "$@"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
self=$PWD/test/support/arm64.sh
image=$1 work=$2
shift 2
# What packs bytes, loads the addon or plans. Of the others some hold limits of a clock, which an emulator misses, or want
# more than one user; all together take an hour.
[ $# -gt 0 ] || set -- alterations backend children datapath features firewall hardware installed ip judge-peer keeper \
	kernel-pair lease lease-set lease-table log-output measurements netlink network options overlap package peer-numbers peers \
	plan published-few
TARTAN_EMULATOR=$(realpath .cache/cross/usr/bin/qemu-aarch64-static 2>/dev/null || command -v qemu-aarch64-static)
emulated() { unshare --user --map-root-user --mount --propagation private bash "$self" --inside "$@"; }

rm -rf "$work"
mkdir -p "$work/root"
work=$(realpath "$work")
# Where the emulator looks for the C library, before it looks on the machine.
export TARTAN_EMULATOR QEMU_LD_PREFIX=$work/root
layer=$(tar -xOf "$image" ./manifest.json | node -p 'JSON.parse(require("fs").readFileSync(0, "utf8"))[0].Layers[0]')
tar -xOf "$image" "./$layer" | tar -xz -C "$work/root"
home=$work/root/usr/lib/tartan

said=$(emulated "$home/bin/node" "$work/root/usr/bin/tartan" version)
echo "$said"
grep -q '^platform  *linux arm64$' <<<"$said"
grep -Eq '^native build  *[0-9a-f]{12}$' <<<"$said" # which the addon says
file=$(emulated "$home/dist/tartan-datapath" 2>&1 || true)
echo "$file"
grep -q '^arguments: ' <<<"$file"

git clone -q . "$work/tree"
cp -al .cache/release/arm64/node_modules "$work/tree/"
node_modules/.bin/tsc -p tsconfig.build.json --outDir "$work/tree/dist" --tsBuildInfoFile "$work/tree/dist/.tsbuildinfo"
cp "$home"/dist/tartan{.node,-datapath} "$work/tree/dist/"
cd "$work/tree"
# An emulated program is that many times as slow.
export TARTAN_PATIENCE=${TARTAN_PATIENCE:-30}
set -- "${@/#/test/unit/}"
emulated "$home/bin/node" node_modules/vitest/vitest.mjs run --project unit "${@/%/.test.ts}"
