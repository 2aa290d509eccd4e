#!/bin/bash
# Removes a lab, whatever became of the process that made it: `reaper.sh PREFIX DIRECTORY` waits until its standard
# input ends (the maker closed it, failed or was killed), then ends every process in the namespaces PREFIX<letter>[c]
# and removes the namespaces, the control groups of that name and the directory. A line "keep" makes it leave
# everything as it is. `reaper.sh --now PREFIX DIRECTORY` does not wait.
set -u
trap '' INT TERM HUP
export PATH="$PATH:/usr/sbin:/sbin"
if [ "${1:-}" = --now ]; then shift; else
	while read -r line; do [ "$line" != keep ] || exit 0; done
fi
prefix=$1 directory=$2
[[ $prefix =~ ^tt[0-9]+(x[0-9]+)?$ && $directory == */tartan-lab-* ]] || { echo "reaper: not a lab: $prefix $directory" >&2; exit 64; }

namespaces() { ip netns list | awk -v name="^$prefix[a-z]c?\$" '$1 ~ name { print $1 }'; }
processes() { for name in $(namespaces); do ip netns pids "$name"; done 2>/dev/null; }

# Once more when nothing is left: a command that was under way may have added something.
for attempt in $(seq 100); do
	names=$(namespaces) pids=$(processes)
	[ -z "$names" ] && [ -n "${quiet:-}" ] && break
	[ -n "$names" ] && quiet= || quiet=yes
	[ -z "$pids" ] || kill -KILL $pids 2>/dev/null
	[ -n "$pids" ] || for name in $names; do ip netns del "$name"; done
	sleep 0.05
done
for attempt in $(seq 100); do
	groups=$(find /sys/fs/cgroup -maxdepth 2 -type d -regex ".*/$prefix[a-z]" 2>/dev/null)
	[ -n "$groups" ] || break
	for group in $groups; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
	sleep 0.05
done
rm -rf --one-file-system "$directory"
