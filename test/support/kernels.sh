#!/bin/bash
# Gets the kernels that Debian packages into .cache/kernels/SUITE-FLAVOUR, for `npm run test:long -- kernels`: vmlinuz and
# the modules that a guest without hardware wants. The newest of each release, with its security updates. It stays until
# .cache/kernels is removed. Quick and silent when all are there; one that cannot be had is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/support/apt.sh
kernels=.cache/kernels
scratch=$kernels/apt
suites=(bullseye bookworm trixie)
flavours=(amd64 cloud-amd64)
# Below lib/modules/VERSION/kernel.
folders=(arch block crypto lib mm net fs/ext4 fs/jbd2 fs/fuse fs/overlayfs drivers/block drivers/char drivers/net drivers/virtio)

die() {
	printf 'setup: %s\n' "$*" >&2
	exit 1
}

# unpack_kernel SUITE FLAVOUR
unpack_kernel() {
	local suite=$1 flavour=$2 directory=$kernels/$1-$2 package version file folder
	local -a patterns=('./boot/vmlinuz-*' './lib/modules/*/modules.*' './usr/lib/modules/*/modules.*' '*/kernel/fs/mbcache.ko*')
	package=$(apt-cache -c $scratch/apt.conf depends "linux-image-$flavour/$suite-security" 2>/dev/null |
		awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
	[ -n "$package" ] || die "no linux-image-$flavour in Debian's $suite-security"
	(cd $scratch && apt-get -c apt.conf -qq download "$package" </dev/null) || die "could not download $package"
	rm -rf "$directory"
	mkdir -p "$directory"
	for folder in "${folders[@]}"; do patterns+=("*/kernel/$folder/*"); done
	file=$(echo $scratch/"$package"_*.deb)
	dpkg-deb --fsys-tarfile "$file" | tar -x -C "$directory" --wildcards "${patterns[@]}" 2>/dev/null || true
	[ ! -d "$directory/usr/lib" ] || mv "$directory/usr/lib" "$directory/lib"
	mv "$directory"/boot/vmlinuz-* "$directory/vmlinuz"
	# Drivers of cards are most of it.
	rm -rf "$directory"/lib/modules/*/kernel/drivers/net/{ethernet,wireless,usb,can,wan,phy,fddi,arcnet,hamradio}
	find "$directory/lib" -name '*.ko.xz' -exec xz -d {} +
	version=$(ls "$directory/lib/modules")
	# By its links it would be the machine's.
	(exec -a depmod .cache/qemu/bin/kmod -b "$directory" "$version")
	echo "$package $(dpkg-deb -f "$file" Version)" >"$directory/.unpacked"
	rm "$file"
	say "unpacked into $directory: $(cat "$directory/.unpacked")"
}

missing=()
for suite in "${suites[@]}"; do
	for flavour in "${flavours[@]}"; do [ -e "$kernels/$suite-$flavour/.unpacked" ] || missing+=("$suite $flavour"); done
done
[ ${#missing[@]} -gt 0 ] || exit 0
[ "$(uname -m)" = x86_64 ] || die "the kernels are booted on x86_64 only, this is $(uname -m)"
lacks=$(apt_lacks)
[ -z "$lacks" ] || die "no kernels: $lacks"
trap 'rm -rf $scratch' EXIT
prepare_apt $scratch "${suites[@]}" "${suites[@]/%/-security}"
apt-get -c $scratch/apt.conf -qq update </dev/null || die 'apt-get update failed, see above'
for one in "${missing[@]}"; do unpack_kernel $one; done
