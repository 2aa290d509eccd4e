#!/bin/bash
# Makes root trees of distributions as they are after an installation of Docker, without Node.js and without a compiler:
# `trees.sh SUITE...`, into .cache/trees/SUITE. What `tartan init` may want to install lies in apt's cache of the tree, so
# that its hosts need no mirror. Needs root; quick and silent when all are there. What cannot be had is said in one line
# and is no failure: the tests of that tree are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/support/apt.sh
trees=.cache/trees
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

# debootstrap is only unpacked.
get_debootstrap() {
	[ ! -e $trees/debootstrap/usr/sbin/debootstrap ] || return 0
	mkdir -p $trees/debootstrap
	(cd $trees/debootstrap && apt-get -qq -o APT::Sandbox::User=root download debootstrap </dev/null && dpkg-deb -x debootstrap_*.deb . && rm debootstrap_*.deb)
}

# Ubuntu's releases, where the mirror of Debian has them beside it.
is_ubuntu() { case $1 in jammy | noble) ;; *) false ;; esac; }
main_mirror() {
	local main
	main=$(mirror Debian http://deb.debian.org/debian)
	if is_ubuntu "$1"; then echo "${main%/debian*}/ubuntu"; else echo "$main"; fi
}

# sources SUITE: as an installer writes them.
sources() {
	if is_ubuntu "$1"; then
		for part in "$1" "$1-updates" "$1-security"; do echo "deb $(main_mirror "$1") $part main universe"; done
		return
	fi
	echo "deb $(main_mirror "$1") $1 main"
	echo "deb $(mirror Debian-Security http://deb.debian.org/debian-security) $1-security main"
}

# keyring_of SUITE: Ubuntu's is a package of Debian's, only unpacked.
keyring_of() {
	is_ubuntu "$1" || { echo $keyring; return; }
	local scratch=$trees/apt found=$trees/debootstrap/usr/share/keyrings/ubuntu-archive-keyring.gpg
	if [ ! -e "$found" ]; then
		prepare_apt $scratch trixie
		apt-get -c $scratch/apt.conf -qq update </dev/null >&2
		(cd $scratch && apt-get -c apt.conf -qq download ubuntu-keyring </dev/null >&2)
		dpkg-deb -x $scratch/ubuntu-keyring_*.deb $trees/debootstrap
		rm -rf $scratch
	fi
	echo "$PWD/$found"
}

# inside TREE COMMAND...: nothing of it is started, and no mount outlives it.
inside() {
	local tree=$1
	shift
	unshare --mount --pid --fork --kill-child --propagation private sh -euc '
		mount -t proc proc "$1/proc"
		mount --bind /etc/resolv.conf "$1/etc/resolv.conf" 2>/dev/null || cp /etc/resolv.conf "$1/etc/resolv.conf"
		tree=$1
		shift
		exec chroot "$tree" "$@"' sh "$tree" "$@" </dev/null
}

# make_tree SUITE
make_tree() {
	local suite=$1 new=$PWD/$trees/$1.new keys script=
	keys=$(keyring_of "$suite") || return 1
	# This debootstrap may be older than the suite.
	! is_ubuntu "$suite" || script=$PWD/$trees/debootstrap/usr/share/debootstrap/scripts/jammy
	rm -rf --one-file-system "$new"
	unshare --mount --propagation private env DEBOOTSTRAP_DIR="$PWD/$trees/debootstrap/usr/share/debootstrap" \
		sh "$trees/debootstrap/usr/sbin/debootstrap" --variant=minbase --keyring="$keys" \
		--include=systemd,systemd-sysv,dbus "$suite" "$new" "$(main_mirror "$suite")" $script </dev/null || return 1
	sources "$suite" >"$new/etc/apt/sources.list"
	printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
	chmod 755 "$new/usr/sbin/policy-rc.d"
	inside "$new" apt-get -q update || return 1
	inside "$new" apt-get -q -y upgrade || return 1
	inside "$new" apt-get -q -y install iptables docker.io || return 1
	inside "$new" apt-get -q clean
	# The programs of etcd, and the dependencies of our package.
	inside "$new" apt-get -q -y --download-only install etcd-server etcd-client openssl kmod libstdc++6 || return 1
	rm -f "$new/usr/sbin/policy-rc.d" "$new/etc/resolv.conf"
	mv "$new" "$trees/$suite"
}

get_debootstrap || { echo 'setup: no debootstrap of this distribution' >&2; exit 1; }
mkdir -p $trees
for suite in "$@"; do
	[ ! -d "$trees/$suite" ] || continue
	say "making a root tree of $suite in $trees"
	make_tree "$suite" >"$trees/$suite.log" 2>&1 || say "no root tree of $suite: $(tail -1 "$trees/$suite.log"); its tests are skipped"
done
