#!/bin/bash
# `npm run bench`: compiles the bench and runs it (bench.ts; `npm run bench -- --help`). Needs root, and a built tree.
#
# It runs in pid, mount and network namespaces of its own with a /run that is gone with them: whatever ends the bench,
# a Ctrl-C, a kill -9 or its own end, the kernel ends every process of it and removes every namespace, link and file.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PATH:/usr/sbin:/sbin"
fail() { echo "bench: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail 'network namespaces need root: run it as root (sudo npm run bench)'
for tool in gcc ip iptables-restore iperf3 nsenter ping setpriv taskset unshare; do
	command -v "$tool" > /dev/null || fail "no $tool: install gcc iproute2 iptables iperf3 iputils-ping util-linux"
done

out=.cache/bench
mkdir -p "$out/bin"
for program in plain offload flow echo tiny ports; do
	source=test/bench/$program.c
	[ "$out/bin/$program" -nt "$source" ] ||
		gcc -D_GNU_SOURCE -std=c11 -O2 -Wall -Wextra -Wconversion -Wshadow -Werror "$source" -o "$out/bin/$program"
done
node_modules/.bin/tsc -p test/bench/tsconfig.json

export BENCH_TREE=$PWD BENCH_ID=$$
inside='mount -t tmpfs tmpfs /run && mkdir /run/netns && exec node "$BENCH_TREE/.cache/bench/test/bench/bench.js" "$@"'
setpriv --pdeathsig KILL unshare --pid --mount-proc --mount --net --fork --kill-child=KILL sh -c "$inside" bench "$@" &
bench=$!
# The control groups of --priority are empty once its processes have ended.
leave() { for group in /sys/fs/cgroup/{cpu/,}tartan-bench-"$BENCH_ID"-*; do [ ! -d "$group" ] || rmdir "$group"; done; }
trap 'kill -KILL $bench 2> /dev/null; wait $bench 2> /dev/null || :; leave; exit 130' INT TERM HUP
status=0
wait $bench || status=$?
leave
exit $status
