#!/bin/sh
# PID 1 of a host with a real Docker engine, in mount, pid, uts and ipc namespaces of its own: when it dies, the engine,
# its containers and all their mounts are gone. `holder.sh DIRECTORY NAME COMMAND...`; makes DIRECTORY/ready when it is set
# up and becomes the command, which reaps processes.
set -e
directory=$1
# A new sysfs shows this network namespace; the control groups are carried over to it.
mkdir -p "$directory/cgroup"
mount --rbind /sys/fs/cgroup "$directory/cgroup"
mount -t sysfs sysfs /sys
mount --move "$directory/cgroup" /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
# What an engine writes outside its data directory (key.json, /opt/containerd) stays in this host.
for place in etc opt var; do
	mkdir -p "/run/layer/$place/upper" "/run/layer/$place/work"
	mount -t overlay -o "lowerdir=/$place,upperdir=/run/layer/$place/upper,workdir=/run/layer/$place/work" overlay "/$place"
done
hostname "$2"
touch "$directory/ready"
shift 2
exec "$@"
