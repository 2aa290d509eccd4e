#!/bin/bash
# Runs in a guest (guest.ts) as its first process: the test files that the kernel's command line names, as they run on any
# machine. Serial line 0 shows them, line 1 carries the results (guest-reporter.ts); then it switches the machine off.
export PATH=/usr/sbin:/usr/bin HOME=/root NO_COLOR=1 TARTAN_PATIENCE=6 TARTAN_GUEST_RESULTS=/dev/ttyS1
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup 2>/dev/null
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts 2>/dev/null || { mkdir -p /dev/pts /dev/shm && mount -t devpts devpts /dev/pts; }
ln -sf /proc/self/fd /dev/fd
# Before Linux 5.11 maps of BPF count against this limit of the user. The unit's 64 MiB hold those of two daemons, of
# one host before and after a restart; a lab has two hosts.
ulimit -l 131072
# On a host udev makes the device that loads it.
modprobe tun
ip link set lo up
cd /tartan || exit 1
uname -r
read -r line </proc/cmdline
tests=${line##*tests=}
tests=${tests%% *}
# shellcheck disable=SC2046
node_modules/.bin/vitest run --reporter=default --reporter=./test/support/guest-reporter.ts ${tests//,/ } </dev/null
echo "ended with $?"
busybox poweroff -f
sleep 60
