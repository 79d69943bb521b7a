#!/bin/sh
# Debian packages that the commands of the Makefile need; installed when root, named when not.
set -eu
case "${1:?python or test}" in
python) wanted="python3-venv" ;;
test) wanted="bubblewrap busybox-static haproxy iptables openssh-client openssh-server postgresql skopeo slirp4netns squashfs-tools uidmap util-linux wrk" ;;
esac

missing=""
for package in $wanted; do
    if [ "$package" = python3-venv ]; then
        "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null && continue
    elif dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii'; then
        continue
    fi
    missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "berth: please install:$missing" >&2
    [ "${CI:-}" = true ] && exit 1
    exit 0
fi
echo "berth: installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# A policy for this call alone: packages bring servers, and none of them is to be started here.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get -qq -o Acquire::Check-Valid-Until=false update
# shellcheck disable=SC2086 # a list of words
apt-get -qq -y --no-install-recommends install $missing >/dev/null
