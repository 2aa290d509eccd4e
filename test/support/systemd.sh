#!/bin/sh
# A host that a real systemd runs, in namespaces of its own. Its root is another one with a tmpfs above it:
#   systemd.sh NAMESPACE DIRECTORY / TREE NODE   this machine's; of its units only those that are named or needed are
#                                                started, and the tree is installed as `npm install -g` would, with NODE
#   systemd.sh NAMESPACE DIRECTORY ROOT          that of a distribution (trees.sh), with all that it starts by itself
# DIRECTORY/etc is copied over its /etc. `systemctl reboot` boots it again, with its disks as they were and a kernel that
# knows nothing of before. Everything is gone with this process but the control group NAMESPACE, which the reaper removes.
set -eu
name=$1 directory=$2 lower=$3 tree=${4:-} node=${5:-}
layers=$directory/layers root=$directory/root

# Process 1 of the host.
boot() {
	mount -t proc proc "$root/proc"
	# A distribution's settings are not for the kernel of this machine; those of the network are the host's own.
	if [ "$lower" != / ]; then
		mount --bind "$root/proc/sys" "$root/proc/sys"
		mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
		mount -o remount,bind,ro "$root/proc/sys"
	fi
	mount -t sysfs sysfs "$root/sys"
	mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
	for place in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$place"; done
	chmod 1777 "$root/tmp"
	mkdir "$root/dev/net" "$root/dev/shm" "$root/dev/pts"
	for device in null zero full random urandom tty net/tun; do
		touch "$root/dev/$device"
		mount --bind "/dev/$device" "$root/dev/$device"
	done
	mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
	ln -s pts/ptmx "$root/dev/ptmx"
	cd "$root"
	mkdir -p .old
	pivot_root . .old
	umount -l /.old
	rmdir /.old 2>/dev/null || :
	[ "$lower" != / ] || set -- --unit=test.target --log-target=console
	exec env -i container=tartan-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin /lib/systemd/systemd \
		--system --show-status=no "$@"
}

# What a reboot takes from the network: all links but the underlay, the routes of tartan, and the packet filters.
forget() {
	for link in $(ip -o link show | sed 's/^[0-9]*: \([^:@]*\).*/\1/'); do
		case $link in lo | eth0) ;; *) ip link delete "$link" 2>/dev/null || : ;; esac
	done
	ip route flush proto 167 2>/dev/null || :
	nft flush ruleset 2>/dev/null || :
	sysctl -q -w net.ipv4.ip_forward=0
}

case ${TARTAN_STAGE:-} in
'')
	groups=/sys/fs/cgroup/unified
	[ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ] || groups=/sys/fs/cgroup
	mkdir -p "$groups/$name"
	echo $$ >"$groups/$name/cgroup.procs"
	TARTAN_STAGE=disks exec nsenter "--net=/run/netns/$name" unshare --mount --propagation private "$0" "$@"
	;;
boot) boot ;;
esac

mkdir -p "$layers" "$root"
mount -t tmpfs tmpfs "$layers"
# layer PLACE LOWER: PLACE of the new root becomes LOWER, which is never written to.
layer() {
	mkdir -p "$layers/$1/upper" "$layers/$1/work"
	mount -t overlay -o "lowerdir=$2,upperdir=$layers/$1/upper,workdir=$layers/$1/work" overlay "$root/$1"
}
layer . "$lower"
[ "$(stat -fc %T "$root")" = overlayfs ] # what is removed below is never the machine's

# With what set-up has unpacked, and without what the machine itself starts.
prepare_machine() {
	# Programs that set-up has unpacked, where their packages would have installed them.
	[ ! -e "$tree/.cache/tools/usr" ] || layer usr "$tree/.cache/tools/usr:/usr"
	for place in bin lib; do
		[ ! -e "$tree/.cache/tools/$place" ] || cp -a "$tree/.cache/tools/$place/." "$root/usr/$place/"
	done
	rm -rf "$root/var/lib/docker" "$root/var/lib/containerd" "$root/var/lib/tartan"
	modules=$root/usr/local/lib/node_modules/tartan
	mkdir -p "$modules"
	mount --bind "$tree" "$modules"
	rm -f "$root/usr/local/bin/node"
	touch "$root/usr/local/bin/node"
	mount --bind "$node" "$root/usr/local/bin/node"
	for program in tartand tartan; do
		ln -sf "../lib/node_modules/tartan/dist/$program.js" "$root/usr/local/bin/$program"
	done
	units=$root/etc/systemd
	rm -rf "$units" "$root/etc/docker" "$root/etc/containerd"
	for group in sysinit sockets timers multi-user local-fs; do rm -rf "$root/usr/lib/systemd/system/$group.target.wants"; done
	mkdir -p "$units/system/service.d"
	printf '[Manager]\nDefaultTimeoutStopSec=10\n' >"$units/system.conf"
	# Without a journal.
	printf '[Service]\nStandardOutput=append:/run/%%N.log\nStandardError=inherit\n' >"$units/system/service.d/log.conf"
	grep -q '^docker:' "$root/etc/group" || echo 'docker:x:2375:' >>"$root/etc/group"
}

if [ "$lower" = / ]; then prepare_machine; else
	tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
fi
# The engine's own overlays cannot lie on an overlay.
for place in docker containerd; do
	mkdir -p "$root/var/lib/$place"
	mount -t tmpfs tmpfs "$root/var/lib/$place"
done
[ ! -e "$directory/etc" ] || cp -r "$directory/etc/." "$root/etc/"
: >"$root/etc/fstab"
echo "$name" >"$root/etc/hostname"

# Process 1 ends by SIGHUP when the host is rebooted, reboot(2).
while :; do
	status=0
	TARTAN_STAGE=boot unshare --mount --propagation private --uts --ipc --pid --fork --kill-child --cgroup --mount-proc \
		"$0" "$@" || status=$?
	[ $status = 129 ] || exit $status
	forget
done
