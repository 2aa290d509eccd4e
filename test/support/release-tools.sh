#!/bin/bash
# Gets what runs the packages, into .cache/release: Node.js of other lines by the hashes of other-nodes, modules of the
# tests for arm64, and the compose plugin of Debian 13. A plugin that cannot be had is said in one line; the test that
# wants it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/support/apt.sh
nodes=.cache/release/nodes arm64=.cache/release/arm64 compose=.cache/release/compose
lock=test/support/other-nodes/package-lock.json

if [ ! -e $nodes/node_modules ] || [ $lock -nt $nodes/node_modules ]; then
	say "unpacking Node.js of other lines into $nodes"
	rm -rf $nodes
	mkdir -p $nodes
	cp test/support/other-nodes/*.json $nodes/
	(cd $nodes && npm ci --silent --ignore-scripts --no-audit --no-fund </dev/null)
fi

# What the unit project runs with on arm64, by the hashes of the tree's own lock file.
if [ ! -e $arm64/node_modules/.package-lock.json ] || [ package-lock.json -nt $arm64/node_modules/.package-lock.json ]; then
	say "unpacking modules for arm64 into $arm64"
	rm -rf $arm64
	mkdir -p $arm64
	cp package.json package-lock.json $arm64/
	(cd $arm64 && npm ci --silent --ignore-scripts --cpu=arm64 --os=linux --libc=glibc --no-audit --no-fund </dev/null)
	touch $arm64/node_modules/.package-lock.json
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
