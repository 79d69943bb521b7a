"""A pod's way out of its own network, where the node has one to give."""

import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

from testbed.pytest_plugin import cannot_run
from tests.contract.local import unprivileged_directory

NODE = r"""
set -e
mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200
ip link set lo up
ip link add outside type veth peer name other && ip address add 10.9.9.9/24 dev outside
ip link set outside up && ip link set other up && ip route add default dev outside
/usr/bin/python3 -c "
import socket
for host in ('10.9.9.9', '127.0.0.1'):
    if __import__('os').fork() == 0:
        with socket.create_server((host, 7777)) as door:
            while True:
                with door.accept()[0] as one: one.sendall(b'outside')
" &
setpriv --reuid=nobody --regid=nogroup --clear-groups /usr/bin/python3 -I "$1/door.py" "$1" \
    '{"ports": [80], "tcp": false, "shared": false, "contained": false}' /usr/bin/python3 -c "
import socket, time
for host in ('10.9.9.9', '10.0.2.2'):
    for attempt in range(30):
        try:
            with socket.create_connection((host, 7777), 5) as sock:
                print(host, sock.recv(100).decode())
            break
        except OSError:
            time.sleep(0.2 if host == '10.9.9.9' else 0)
    else:
        print(host, 'closed')
"
cat "$1/door"
"""
"""A node with a network of its own, so that nothing of this machine's is touched; killed with its first process."""


def test_a_pod_reaches_the_outside_by_slirp4netns_and_not_the_nodes_own_loopback():
    if os.geteuid() != 0:
        cannot_run("only root can make a node with a network of its own")
    if shutil.which("slirp4netns") is None:
        cannot_run("slirp4netns is missing: apt install slirp4netns")
    with unprivileged_directory() as work:
        (work / "door.py").write_bytes(files("backends.pods.programs").joinpath("door.py").read_bytes())
        argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        done = subprocess.run([*argv, "sh", "-c", NODE, "node", str(work)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("10.9.9.9 outside\n10.0.2.2 closed\n"), done
        assert '"network": "its own, outbound by slirp4netns"' in done.stdout
        assert not Path(work / "refused").exists()
