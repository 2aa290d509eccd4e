#!/bin/sh
# An overlay given by command (npm run bench -- --contender): kernel vxlan that learns, as an administrator would make it by
# hand, where flannel's has an entry for each peer. The variables are those of command-contender.ts.
#
#   npm run bench -- --contender 'learning=sh test/bench/contender-vxlan.sh' --without plain --only tcp1,rtt
set -eu
own=${BENCH_SUBNET%.*}.0
ip link add vx1 mtu 1450 type vxlan id 7 dstport 4789 dev "$BENCH_INTERFACE" local "$BENCH_ADDRESS"
ip address add "$own/32" dev vx1
ip link set vx1 up
for peer in $BENCH_PEER_ADDRESS; do
	bridge fdb append 00:00:00:00:00:00 dev vx1 dst "$peer"
done
for subnet in $BENCH_PEER_SUBNET; do
	ip route add "$subnet" via "${subnet%.*}.0" dev vx1 onlink
done
printf 'FLANNEL_SUBNET=%s.1/24\nFLANNEL_MTU=1450\n' "${BENCH_SUBNET%.*}" > "$BENCH_SUBNET_FILE"
exec sleep infinity
