#!/bin/sh
# First process of a real node, started in a network namespace of its own and fresh mount and uts namespaces: it makes
# the places of the host that a kubelet and containerd write to the node's own, and then only stays.
#
#   node.sh HOSTNAME DISK
set -eu
name=$1 disk=$2

hostname "$name"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mkdir /run/lock
mount --bind "$disk/log" /var/log
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$disk/lib,workdir=$disk/work" /var/lib
# Volumes that the kubelet mounts must be seen where containers are made.
mount --make-rshared /
touch "$disk/booted"
exec sleep infinity
