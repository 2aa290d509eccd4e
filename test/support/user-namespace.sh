#!/bin/sh
# A process in a user namespace and a network namespace of its own, as an unprivileged container of LXC has them:
# `user-namespace.sh DIRECTORY`. Its root is user 100000 of the machine. /dev/net/tun was passed in, and /proc/uptime is
# that of the container (lxcfs): it began 7 seconds ago. Prints the process's number once it is ready, and lives until it
# is killed.
set -eu
directory=$1
if [ "${2:-}" != inner ]; then exec unshare --mount --propagation private "$0" "$directory" inner; fi
mknod -m 666 "$directory/tun" c 10 200
echo '7.00 7.00' >"$directory/uptime"
mount --bind "$directory/tun" /dev/net/tun
mount --bind "$directory/uptime" /proc/uptime
unshare --user --net sleep 1000000 &
pid=$!
until [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
for map in uid_map gid_map; do echo '0 100000 65536' >"/proc/$pid/$map"; done
echo "$pid"
wait "$pid"
