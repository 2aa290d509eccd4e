#!/bin/bash
# What tests could leave on a machine, one line each, sorted: namespaces, links, mounts, control groups, processes,
# firewall rules and directories. `traces.sh --compare FILE` waits a little for things that are just ending and fails
# with the lines by which an earlier listing differs.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

list() {
	ip netns list | awk '{ print "namespace", $1 }'
	ip -o link | awk -F': ' '{ print "link", $2 }'
	awk '$5 != "/run/netns" { print "mount", $5 }' /proc/self/mountinfo # iproute2 makes that one once
	# One with processes is another run's that is under way: processes of ours are listed below.
	find /sys/fs/cgroup -maxdepth 2 -type d -name 'tt[0-9]*' 2>/dev/null | while read -r group; do
		[ -n "$(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null)" ] || echo "control group $group"
	done
	# Without zombies: where process 1 reaps nobody, as in many containers, an orphan stays listed after its end.
	ps -eo pid=,stat=,comm= | awk '$2 !~ /^Z/ && $3 ~ /^(etcd|dockerd|containerd|tartan-datapath|tartand|prometheus|chromium-headle)$/ { print "process", $1, $3 }'
	ps -eo pid=,stat=,args= | awk -v tree="$PWD/dist/" '$2 !~ /^Z/ && index($4, tree) == 1 { print "process", $1, $4 }'
	nft list ruleset 2>/dev/null | sed 's/ counter packets [0-9]* bytes [0-9]*//; s/^/nft /'
	for tables in iptables-legacy-save ip6tables-legacy-save; do
		[ ! -s /proc/net/ip_tables_names ] || $tables 2>/dev/null | grep -v '^[#:]' | sed "s/^/$tables /"
	done
	find /run/tartan /run/flannel /var/lib/tartan "${TMPDIR:-/tmp}" -maxdepth 1 \( -path '/run/*' -o -path '/var/*' -o -name 'tartan-lab-*' \) \
		-printf 'file %p\n' 2>/dev/null
}

# A process that ended and a lab that another run took down in the meantime are no traces of these tests; anything else
# that is missing was somebody's.
compare() {
	local attempt
	for attempt in $(seq 50); do
		difference=$(diff "$1" <(list | sort) | grep '^[<>]' | grep -vE '^< (process|.*[ /](tt[0-9]+|tartan-lab-))')
		[ -n "$difference" ] || return 0
		sleep 0.1
	done
	printf 'left behind (>) or missing (<) after the tests:\n%s\n' "$difference"
	return 1
}

case ${1:-} in
--compare) compare "$2" ;;
*) list | sort ;;
esac
