#!/bin/bash
# Gets what runs the packages, into .cache/release: Node.js of other lines by the hashes of other-nodes, and the compose
# plugin of Debian 13. What cannot be had is said in one line; the tests that want it fail and name it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/support/apt.sh
nodes=.cache/release/nodes compose=.cache/release/compose lock=test/support/other-nodes/package-lock.json

if [ ! -e $nodes/node_modules ] || [ $lock -nt $nodes/node_modules ]; then
	say "unpacking Node.js of other lines into $nodes"
	rm -rf $nodes
	mkdir -p $nodes
	cp test/support/other-nodes/*.json $nodes/
	(cd $nodes && npm ci --silent --ignore-scripts --no-audit --no-fund </dev/null)
fi

if [ ! -e $compose/.unpacked ]; then
	lacks=$(apt_lacks)
	[ -z "$lacks" ] || { say "no compose plugin of Debian's trixie: $lacks"; exit 0; }
	say "unpacking the compose plugin of Debian's trixie into $compose"
	rm -rf $compose
	prepare_apt $compose/apt trixie
	apt-get -c $compose/apt/apt.conf -qq update </dev/null
	(cd $compose/apt && apt-get -c apt.conf -qq download docker-compose/trixie </dev/null)
	dpkg-deb -x $compose/apt/docker-compose_*.deb $compose
	rm -rf $compose/apt
	touch $compose/.unpacked
fi
