"""Small images that stand in for those of pods: they speak the protocols, and PostgreSQL is Debian's own.

Each function writes an OCI layout at ``place`` and gives it back.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.fakes.images import directory, file, oci_image, symlink

BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "cat", "chmod", "dirname", "echo", "env", "grep", "head", "httpd", "id", "ls", "mkdir", "nc", "od")
APPLETS += ("printf", "rm", "sleep", "test", "touch", "tr", "wget")

BOLT = r"""#!/bin/sh
# The bolt handshake: a magic word and four versions come in, and the one that is chosen goes out.
asked=$(head -c 20 | od -An -tx1 | tr -d ' \n')
case $asked in
6060b017*) printf '\000\000\004\005' ;;
esac
"""

NEO4J = """#!/bin/sh
test "$1" = neo4j
test -n "${NEO4J_AUTH#*/}"
httpd -p 7474 -h /www
echo "Bolt enabled on 0.0.0.0:7687."
exec nc -ll -p 7687 -e /bin/bolt
"""

CYPHER_SHELL = """#!/bin/sh
# It runs when the server answers: then the user of the pod is made.
nc -w 1 127.0.0.1 7687 </dev/null || exit 1
case "$*" in *"CREATE USER $PODS_USER "*) echo "user $PODS_USER was made" ;; *) exit 1 ;; esac
"""

POSTGRES = r"""#!/bin/sh
# As the image of that name: its user, password and database come by the environment, its files lie under PGDATA.
set -eu
export PATH=/usr/lib/postgresql/bin:/bin PGDATA="${PGDATA:-/var/lib/postgresql/data}"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=scram-sha-256 \
        --locale=C --encoding=UTF8 --no-sync >/dev/null
    rm -f /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    made="CREATE DATABASE \"${POSTGRES_DB:-$POSTGRES_USER}\";"
    [ "${POSTGRES_DB:-$POSTGRES_USER}" = postgres ] || echo "$made" | postgres --single -j postgres >/dev/null
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off "$@"
"""

PASSWD = "".join(
    f"u{uid}:x:{uid}:{uid}::/tmp:/bin/sh\n" for uid in (*range(1000, 1010), *range(2000, 2010), 65534)
)  # initdb wants a name for whoever it runs as


NAMING = """\
global
    maxconn 500
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 5s
frontend web
    bind 127.0.0.1:5000
    http-request return status 200 content-type text/plain lf-string %[env(INSTANCE)]
"""

NAMING_ENTRY = """#!/bin/sh
INSTANCE=$(cat /proc/sys/kernel/random/uuid)
export INSTANCE
exec haproxy -db -f /etc/web.cfg
"""


def web(place: Path, port: int = 5000) -> Path:
    """A page over HTTP."""
    page = [directory("www"), file("www/index.html", b"hello from a pod\n")]
    return oci_image(place, [*_tools(), *page], Entrypoint=["httpd", "-f", "-p", str(port), "-h", "/www"], Env=_PATH)


def naming_web(place: Path) -> Path:
    """``/bin/web`` answers on port 5000 with a name that each instance makes up, and keeps connections."""
    program = Path("/usr/sbin/haproxy")
    entries = [file(str(path).lstrip("/"), path.read_bytes(), 0o755) for path in _libraries([program])]
    entries += [file("bin/haproxy", program.read_bytes(), 0o755), file("etc/web.cfg", NAMING.encode())]
    return oci_image(place, [*_tools(), *entries, file("bin/web", NAMING_ENTRY.encode(), 0o755)], Env=_PATH)


def neo4j(place: Path) -> Path:
    """What answers on the ports of Neo4j, with the programs that its image has."""
    programs = {"bin/bash": '#!/bin/sh\nexec sh "$@"\n', "bin/bolt": BOLT}
    programs |= {"startup/docker-entrypoint.sh": NEO4J, "bin/cypher-shell": CYPHER_SHELL}
    files = [file(name, text.encode(), 0o755) for name, text in programs.items()]
    page = [directory("www"), file("www/index.html", b"a browser of graphs\n")]
    return oci_image(place, [*_tools(), *files, *page], Env=_PATH)


def postgres(place: Path) -> Path:
    """PostgreSQL, with the libraries that it needs."""
    [home] = sorted(Path("/usr/lib/postgresql").iterdir())[-1:]
    share = Path("/usr/share/postgresql") / home.name
    programs = [home / "bin" / name for name in ("postgres", "initdb", "psql", "pg_isready")]
    modules = [path for path in sorted((home / "lib").glob("*.so")) if "llvm" not in path.name]
    copies = {str(home / "bin" / path.name): path for path in programs}
    copies |= {str(path): path for path in [*modules, *_libraries([*programs, *modules])]}
    copies |= {str(path): path for path in share.rglob("*") if path.is_file() and "man" not in path.parts}
    copies |= {f"/usr/share/zoneinfo/{name}": Path("/usr/share/zoneinfo") / name for name in ("UTC", "Etc/UTC")}
    entries = [file(name.lstrip("/"), path.read_bytes(), 0o755) for name, path in sorted(copies.items())]
    entries += [symlink("usr/lib/postgresql/bin", f"{home.name}/bin")]
    entries += [file("bin/postgres-entry", POSTGRES.encode(), 0o755), directory("var/lib/postgresql/data", 0o777)]
    return oci_image(place, [*_tools(), *entries], Entrypoint=["/bin/postgres-entry"], Env=_PATH)


_PATH = ("PATH=/bin",)


def _tools() -> Sequence[object]:
    folders = [directory(name) for name in ("bin", "etc", "proc", "dev", "sys", "run")]
    folders += [directory(name, 0o1777) for name in ("tmp", "data")]
    links = [symlink(f"bin/{name}", "busybox") for name in APPLETS]
    return [*folders, file("bin/busybox", BUSYBOX.read_bytes(), 0o755), *links, file("etc/passwd", PASSWD.encode())]


def _libraries(programs: Iterable[Path]) -> list[Path]:
    """The shared libraries of these programs, the loader included, by the names under which they are looked for."""
    found: set[str] = set()
    for program in programs:
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False, timeout=30).stdout
        found |= set(re.findall(r"(?:=> )?(/\S+) \(0x", told))
    return [Path(name) for name in sorted(found)]
