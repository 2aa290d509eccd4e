#!/bin/sh
# Installs tartan from the tarball that this file came in, without a network: nothing is started, nothing of Docker's is
# changed. `install.sh --uninstall` takes everything back, with what tartan has in the kernel.
set -eu
usage() {
	echo 'Usage: install.sh [--prefix DIR] [--uninstall]'
	echo 'Installs below DIR (/usr/local), which systemd must look into: /usr/local or /usr. Runs as root.'
}
die() {
	echo "install.sh: $*" >&2
	exit 1
}
prefix=/usr/local
action=install
while [ $# -gt 0 ]; do
	case $1 in
	--prefix=*) prefix=${1#*=} ;;
	--prefix)
		[ $# -gt 1 ] || die '--prefix needs a directory'
		prefix=$2
		shift
		;;
	--uninstall) action=uninstall ;;
	--help | -h)
		usage
		exit 0
		;;
	*) die "unknown option $1, expected --prefix, --uninstall or --help" ;;
	esac
	shift
done
case $prefix in /*) ;; *) die "--prefix is $prefix, expected an absolute path" ;; esac
prefix=${prefix%/}
here=$(cd "$(dirname "$0")" && pwd)
list=$prefix/lib/tartan/installed-files
[ "$(id -u)" = 0 ] || die 'it writes to directories of the system: run it as root'
booted() { [ -d /run/systemd/system ]; }

# Removes the files of a list, and the directories that were made for them where nothing else is in them.
remove_files() {
	while IFS= read -r file; do rm -f -- "$file"; done <"$1"
	sed 's,/[^/]*$,,' "$1" | sort -ru | while IFS= read -r folder; do
		while [ "$folder" != "$prefix" ] && [ -n "$folder" ]; do
			rmdir -- "$folder" 2>/dev/null || break
			folder=${folder%/*}
		done
	done
	rm -f "$1"
}

if [ $action = uninstall ]; then
	[ -e "$list" ] || die "$list is missing: tartan is not installed below $prefix"
	if booted; then
		# Refused on a host whose etcd other hosts use.
		"$prefix/bin/tartan" uninstall
	else
		rm -f /etc/systemd/system/docker.service.d/tartan.conf
		rmdir /etc/systemd/system/docker.service.d 2>/dev/null || true
		"$prefix/bin/tartan" cleanup || true
	fi
	remove_files "$list"
	(cd "$prefix" && rmdir -p lib/tartan 2>/dev/null) || true
	if booted; then systemctl daemon-reload || true; fi
	echo "tartan is removed from $prefix; the identity of this host stays in /var/lib/tartan"
	exit 0
fi

[ -x "$here/lib/tartan/bin/node" ] || die "$here/lib/tartan/bin/node is missing: run it in the unpacked tarball"
"$here/lib/tartan/bin/node" -e 0 2>/dev/null || die "the programs do not run here: this is the tarball of another processor, or glibc is older than 2.31"
umask 022
mkdir -p "$prefix/lib/tartan"
# Docker's drop-in, where `tartan join` has put it, follows the version unless somebody changed it.
shipped=$prefix/share/tartan/systemd
drop_in=docker.service.d/tartan.conf
follows=
for kind in . redhat; do
	if cmp -s "$shipped/$kind/$drop_in" "/etc/systemd/system/$drop_in"; then follows=$kind; fi
done
new=$list.new
: >"$new"
(cd "$here" && find bin sbin lib share -type f -o -type l) | while IFS= read -r file; do
	mkdir -p "$prefix/$(dirname "$file")"
	# A running program's file is never written to.
	cp -a --no-preserve=ownership --remove-destination "$here/$file" "$prefix/$file"
	echo "$prefix/$file" >>"$new"
done
for program in tartan tartand; do
	sed -i "1s,.*,#!$prefix/lib/tartan/bin/node," "$prefix/lib/tartan/dist/bundle/$program.js"
done
# What only an earlier version had goes last: until then there is a whole program.
if [ -e "$list" ]; then
	grep -vxFf "$new" "$list" >"$list.old" || true
	remove_files "$list.old"
fi
mv "$new" "$list"
[ -z "$follows" ] || install -m 644 "$shipped/$follows/$drop_in" "/etc/systemd/system/$drop_in"
if [ ! -e /etc/default/tartand ]; then
	mkdir -p /etc/default
	install -m 644 "$prefix/share/tartan/tartand.default" /etc/default/tartand
fi
if booted; then
	systemd-sysusers "$prefix/lib/sysusers.d/tartan.conf" >/dev/null 2>&1 || true
	systemctl daemon-reload
	systemctl try-restart tartand.service || true
fi
echo "tartan is installed below $prefix; next: tartan join"
