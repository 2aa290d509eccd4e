#!/bin/sh
# Runs a command where `iptables` and its companions are of one kind: `iptables-variant.sh nft|legacy LOCK COMMAND...`.
# Needs a mount namespace of its own. LOCK is where the programs of one host take turns (xtables.lock): without it hosts
# of a lab would wait for each other, and Docker and tartand, which see different /run, would not.
set -e
kind=$1 lock=$2
shift 2
PATH="$PATH:/usr/sbin:/sbin"
program=$(readlink -f "$(command -v iptables)")
wanted=$(readlink -f "$(command -v "xtables-$kind-multi")")
[ "$program" = "$wanted" ] || mount --bind "$wanted" "$program"
touch "$lock" /run/xtables.lock
mount --bind "$lock" /run/xtables.lock
exec "$@"
