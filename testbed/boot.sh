#!/bin/sh
# First process of a machine, started by unshare in fresh mount, uts, ipc, pid and cgroup namespaces.
# It builds the machine's own view of the file system and then becomes tini, which reaps what daemons leave behind.
#
#   boot.sh HOSTNAME LOWER DISK SHARED GPUS CGROUP-MODE CGROUP
#
# LOWER: overlay layers below the machine's own; DISK: its disk (root, work, scratch), which survives a power cut;
# SHARED: folder with the cluster's home and shared; CGROUP: the machine's folder, relative to each controller's root (v1).
set -eu
umask 022
name=$1 lower=$2 disk=$3 shared=$4 gpus=$5 cgroup_mode=$6 cgroup=$7

# Reached only when something below fails: a machine that runs has replaced this shell.
trap 'touch "$disk/boot-failed"' EXIT

# /proc is still the host's here, so this is the process id by which the host knows us.
read -r host_pid _ < /proc/self/stat

hostname "$name"
root=$disk/mnt
mkdir -p "$disk/root" "$disk/work" "$disk/scratch" "$root"
chmod 1777 "$disk/scratch"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$disk/root,workdir=$disk/work" "$root"
cd "$root"
mkdir -p .old

mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mkdir run/lock run/sshd run/mysqld run/mariadbd run/munge
chown --from=root --reference=var/lib/mysql run/mysqld run/mariadbd
chown --from=root --reference=var/lib/munge run/munge
mount --bind "$disk/scratch" scratch
mount --bind "$shared/home" home
mount --bind "$shared/shared" shared

mount -t tmpfs -o mode=755,nosuid dev dev
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm dev/shm
# The host's own /dev/fuse may be closed to users; squashfuse needs it open.
while read -r device major minor; do
    mknod -m 666 "dev/$device" c "$major" "$minor"
done << 'DEVICES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
DEVICES
# Stand-ins for GPUs: only their names matter to Slurm.
gpu=0
while [ "$gpu" -lt "$gpus" ]; do mknod -m 666 "dev/nvidia$gpu" c 1 3; gpu=$((gpu + 1)); done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr

case $cgroup_mode in
v1) # The machine's own folder of each controller looks to it like the controller's root.
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    for folder in /sys/fs/cgroup/*/"$cgroup"; do
        controller=${folder#/sys/fs/cgroup/} controller=${controller%%/*}
        mkdir "sys/fs/cgroup/$controller"
        mount --bind "$folder" "sys/fs/cgroup/$controller"
    done ;;
v2) # The cgroup namespace was made while we stood in the machine's folder, so that folder is the root of this mount.
    mount -t cgroup2 cgroup2 sys/fs/cgroup ;;
esac

# pivot_root and not chroot: inside a chroot the kernel refuses new user namespaces, and so apptainer.
pivot_root . .old
exec chroot . /bin/sh -c '
    echo "$1" > "/.old$2/init.pid.new"
    mv "/.old$2/init.pid.new" "/.old$2/init.pid"
    umount -l /.old
    exec tini -- sleep infinity
' boot "$host_pid" "$disk" < /dev/null
