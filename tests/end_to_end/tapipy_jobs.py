"""Jobs sent through an unmodified tapipy, in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from testbed.server import ADMIN_PASSWORD, Server
from tests.tapipy import RELEASES, python_with

SCRIPT = """
import json, os, sys
from tapipy.tapis import Tapis
client = Tapis(base_url=os.environ["BASE_URL"], username="admin", password=os.environ["PASSWORD"])
client.get_tokens()
for line in sys.stdin:
    print(client.jobs.submitJob(**json.loads(line)).uuid, flush=True)
"""


@contextmanager
def tapipy_jobs(server: Server) -> Iterator[Callable[[Mapping[str, Any]], str]]:
    """What submits a request and gives the job's uuid; nothing when the server refused it."""
    environment = {"BASE_URL": server.url, "PASSWORD": ADMIN_PASSWORD}
    argv = [python_with(RELEASES[0]), "-c", SCRIPT]
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def send(request: Mapping[str, Any]) -> str:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        try:
            yield send
        finally:
            process.kill()
