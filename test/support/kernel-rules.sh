#!/bin/bash
# kernel-rules.sh COUNT SEED: kernel-rules.c in a network namespace of its own, which ends with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
make -s -C native build/kernel-rules
exec unshare -n bash -c '
	ip link set lo up
	ip link add under index 2 mtu 1600 type veth peer name beyond index 3 mtu 1600
	ip link set beyond up
	ip address add 192.0.2.1/24 dev under
	ip link set under up
	sysctl -qw net.ipv4.ip_forward=1
	exec native/build/kernel-rules "$@"' kernel-rules "$@"
