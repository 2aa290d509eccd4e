#!/bin/sh
# Makes the etcd role that tartand needs, no more: etcdctl must be set up for an administrator (ETCDCTL_ENDPOINTS,
# ETCDCTL_USER). Usage: etcd-role.sh [PREFIX] [ROLE]
set -eu
prefix=${1:-/coreos.com/network}
role=${2:-tartan}
etcdctl role add "$role"
etcdctl role grant-permission "$role" read "$prefix/config"
etcdctl role grant-permission "$role" readwrite --prefix=true "$prefix/subnets/"
etcdctl role grant-permission "$role" readwrite --prefix=true "$prefix/held/"
# Which host joined by which user, for `tartan token revoke`.
etcdctl role grant-permission "$role" readwrite --prefix=true "$prefix/joined/"
echo "now: etcdctl user add NAME && etcdctl user grant-role NAME $role"
