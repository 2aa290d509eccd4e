#!/bin/bash
# guest-image.sh DIRECTORY: what the kernels of other releases are booted with (guest.ts): DIRECTORY/disk, an ext4 file
# system of this machine's programs and this tree, and DIRECTORY/KERNEL.cpio for each of .cache/kernels, with its modules.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
mkdir -p "$1"
into=$(cd "$1" && pwd)
busybox=$PWD/.cache/tools/bin/busybox
[ -e "$busybox" ] || busybox=$(command -v busybox)
packages=(bash coreutils dash findutils grep iproute2 iptables iputils-ping make mount nftables perl-base procps sed tcpdump util-linux)
scratch=$(mktemp -d "$into/scratch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# What the packages hold and no page of a manual.
files() {
	dpkg -L "${packages[@]}" | grep -E '^/' | grep -vE '^/usr/share/(doc|man|info|locale|lintian|bash-completion)' |
		{ xargs -d '\n' sh -c 'find "$@" -maxdepth 0 -xtype f' find 2>/dev/null || true; }
	readlink -f "$(command -v node)"
	dpkg -L libc-bin | grep -E '/(ldconfig|getent)$'
}

# The shared libraries of every program among the files, and what makes them found.
libraries() {
	{ xargs -d '\n' ldd 2>/dev/null || true; } | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/.*ld-linux/ { print $1 }' | sort -u
	ls /lib/x86_64-linux-gnu/libnss_files.so.2 /usr/lib/x86_64-linux-gnu/xtables/*.so 2>/dev/null || true
}

root() {
	local to=$1 name
	mkdir -p "$to"/{usr/bin,usr/sbin,usr/lib,usr/lib64,usr/lib/modules,dev,proc,sys,run,tmp,root,etc,var/log,tartan}
	for name in bin sbin lib lib64; do ln -s usr/$name "$to/$name"; done
	files >"$scratch/files"
	{ cat "$scratch/files" && find node_modules dist -name '*.node'; } | libraries >"$scratch/libraries"
	cat "$scratch/libraries" >>"$scratch/files"
	# Links are followed: what they name may lie anywhere.
	tar -ch --files-from "$scratch/files" --absolute-names | tar -x --keep-directory-symlink --transform 's|^/||' -C "$to"
	ln -sf bash "$to/bin/sh"
	ln -s "$(readlink -f "$(command -v node)")" "$to/usr/bin/node" 2>/dev/null || true
	cp "$busybox" "$to/bin/busybox"
	cp .cache/qemu/bin/kmod "$to/bin/kmod"
	ln -sf ../bin/kmod "$to/sbin/modprobe"
	printf 'root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$to/etc/passwd"
	printf 'root:x:0:\nnogroup:x:65534:\n' >"$to/etc/group"
	printf '127.0.0.1 localhost\n' >"$to/etc/hosts"
	cp /etc/os-release "$to/etc/os-release"
}

tree() {
	tar -c --exclude=node_modules/{@oxlint,oxlint,@typescript,typescript,prettier,knip} --exclude=test/long-output --exclude=.git \
		ARCHITECTURE.md package.json tsconfig*.json vitest.config.mts config src native dist test node_modules | tar -x -C "$1"
	mkdir -p "$1/.cache/tools/usr/bin"
	cp .cache/tools/usr/bin/{etcd,etcdctl} "$1/.cache/tools/usr/bin/" 2>/dev/null || true
}

# Guests have no compiler.
[ -e native/build/probe ] || { echo 'guest-image: no native/build/probe: run test/support/setup.sh all' >&2; exit 1; }
gcc -D_GNU_SOURCE -std=c11 -O2 -o native/build/burst test/support/burst.c
root "$scratch/root"
tree "$scratch/root/tartan"
bytes=$(du -s --block-size=1M --apparent-size "$scratch/root" | cut -f1)
rm -f "$into/disk"
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -E root_owner=0:0 -d "$scratch/root" "$into/disk" $((bytes * 14 / 10 + 300))M
for kernel in .cache/kernels/*/; do
	first=$scratch/first
	rm -rf "$first"
	mkdir -p "$first"/{bin,dev,proc,sys,new}
	cp "$busybox" "$first/bin/busybox"
	cp test/support/guest-init.sh "$first/init"
	chmod 755 "$first/init"
	cp -a "$kernel/lib" "$first/lib"
	(cd "$first" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$into/$(basename "$kernel").cpio"
done
