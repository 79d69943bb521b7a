#!/bin/sh
# Last step of building a root file system: users, folders and the record of versions. Called by mmdebstrap with the tree's path.
set -eu
root=$1

# '*' and not '!': sshd without PAM takes '!' for a locked account and refuses keys too.
for user in alice:2001 bob:2002; do
    chroot "$root" useradd --uid "${user#*:}" --user-group --no-create-home --shell /bin/bash --password '*' "${user%:*}"
done
# One range of 65536 each is what apptainer --fakeroot asks for.
printf 'alice:1000000:65536\nbob:1100000:65536\n' | tee "$root/etc/subuid" > "$root/etc/subgid"

mkdir -p "$root/shared" "$root/scratch" "$root/.old" "$root/var/spool/slurmctld" "$root/var/spool/slurmd" "$root/var/log/slurm"
chmod 1777 "$root/scratch"
chroot "$root" chown slurm: /var/spool/slurmctld /var/log/slurm

# Machines know each other by /etc/hosts alone; a name server of the host would only cost time-outs.
rm -f "$root/etc/resolv.conf" "$root"/etc/ssh/ssh_host_*_key*
sed -i 's/^hosts:.*/hosts: files/' "$root/etc/nsswitch.conf"
rm -rf "$root/var/cache/apt"/*.bin "$root/var/lib/apt/lists"/*

chroot "$root" dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' \
    slurmctld apptainer munge openssh-server mariadb-server docker-registry skopeo 2>/dev/null |
    sed -n 's/ installed$//p' > "$root/etc/testbed-versions"
