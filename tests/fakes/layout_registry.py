"""A registry on loopback for programs of other people: it gives the OCI layouts of a test, each under its name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ASKED = re.compile(r"/v2/(?P<name>.+)/(?P<what>manifests|blobs)/(?P<which>[^/]+)")


@contextmanager
def layout_registry(layouts: Mapping[str, Path]) -> Iterator[str]:
    """``host:port`` of a registry without TLS. layouts: by repository (``library/neo4j``), for every tag of it."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = _found(layouts, self.path)
            status, kind, body = (200, *found) if found else (404, "application/json", b'{"errors": []}')
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the library's words

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _found(layouts: Mapping[str, Path], path: str) -> tuple[str, bytes] | None:
    """Content type and bytes of what is asked for."""
    path = path.partition("?")[0]
    if path == "/v2/":
        return "application/json", b"{}"
    asked = ASKED.fullmatch(path)
    layout = layouts.get(asked["name"]) if asked else None
    if asked is None or layout is None:
        return None
    [manifest] = json.loads((layout / "index.json").read_text())["manifests"]
    digest = asked["which"] if asked["which"].startswith("sha256:") else manifest["digest"]
    blob = layout / "blobs" / "sha256" / digest.partition(":")[2]
    if not blob.exists():
        return None
    kind = "application/vnd.oci.image.manifest.v1+json" if asked["what"] == "manifests" else "application/octet-stream"
    return kind, blob.read_bytes()
