#!/bin/sh
# The two places where we step into the building of a root file system; mmdebstrap calls this with the tree's path.
set -eu
root=$1

# 1. The essential packages are there and nothing else is: leave documentation and locales out of the rest.
#    (As an option to mmdebstrap itself, this would send every essential package through a slow filter.)
if ! test -f "$root/var/lib/dpkg/info/slurmd.list"; then
    printf 'path-exclude=/usr/share/%s/*\n' doc man locale info > "$root/etc/dpkg/dpkg.cfg.d/no-documentation"
    exit
fi

# 2. Everything is installed: users, folders, an empty database, and the record of versions.
# '*' and not '!': sshd without PAM takes '!' for a locked account and refuses keys too.
for user in alice:2001 bob:2002; do
    chroot "$root" useradd --uid "${user#*:}" --user-group --no-create-home --shell /bin/bash --password '*' "${user%:*}"
done
# One range of 65536 each is what apptainer --fakeroot asks for.
printf 'alice:1000000:65536\nbob:1100000:65536\n' | tee "$root/etc/subuid" > "$root/etc/subgid"

mkdir -p "$root/shared" "$root/scratch" "$root/.old" "$root/var/spool/slurmctld" "$root/var/spool/slurmd" "$root/var/log/slurm"
chmod 1777 "$root/scratch"
chroot "$root" chown slurm: /var/spool/slurmctld /var/log/slurm

# A named folder, because sid's default has moved; small logs, because the database writes is first
# copied from here to a machine's own disk.
chroot "$root" useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mysql
chroot "$root" install -d -o mysql -g mysql /var/lib/mysql
chroot "$root" mariadb-install-db --user=mysql --datadir=/var/lib/mysql --skip-test-db --auth-root-authentication-method=socket \
    --innodb-log-file-size=16M --innodb-undo-tablespaces=0 > "$root/var/log/mariadb-install.log" 2>&1

# Machines know each other by /etc/hosts alone; a name server of the host would only cost time-outs.
rm -f "$root/etc/resolv.conf" "$root"/etc/ssh/ssh_host_*_key*
sed -i 's/^hosts:.*/hosts: files/' "$root/etc/nsswitch.conf"

chroot "$root" dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' \
    slurmctld apptainer munge openssh-server mariadb-server-core docker-registry skopeo 2>/dev/null |
    sed -n 's/ installed$//p' > "$root/etc/testbed-versions"
