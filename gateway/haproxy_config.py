"""What HAProxy is told once: a configuration in which no name of a pod occurs.

A connection is looked at as it comes. The first message of TLS says its name; a plain one (see ``plain``) stays here,
all others go to the embedded proxy as they came. Names are looked up in two maps, which are changed while it runs:

    client -> entry -> web or stream, which end TLS -> ways    (Berth's: a connection to the pod)
                    -> embedded                                (Berth's: everything from the first byte on)
                       web or stream -> named                  (Berth's: a request or connection that is not plain)

A way carries the requests of many clients. What is kept open in between is told apart by the number that the map has
for a name, so that no request takes a connection to where the name led before.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gateway import channels, conversation, embedded, pages, ways
from gateway.accepting import MOST_CONNECTIONS
from gateway.certificates import Certificate
from gateway.pages import Page
from scheduler.model.pods import NetProtocol

MAPS: Mapping[NetProtocol, str] = MappingProxyType({NetProtocol.HTTP: "web.map", NetProtocol.TCP: "stream.map"})
"""Files that hold name and number of each plain route at the start; HAProxy calls maps by these names ever after."""
EMBEDDED, NAMED, WAYS = "embedded.sock", "named.sock", "ways.sock"
"""Sockets of Berth's, beside the directory that HAProxy starts in."""
ADMIN, CERTIFICATES, CONFIGURATION = "admin.sock", "certificates", "haproxy.cfg"
FILES_OF_A_CONNECTION = 5
SPARE_FILES = 200
REWRITE_BYTES = 4 * 1024
"""What a head may grow by."""
ERRORS: Mapping[int, Page] = MappingProxyType(
    {
        400: pages.bad_request("It is no HTTP, or its head is too large."),
        502: pages.bad_answer(),
        503: pages.closed("The pod does not answer"),
        504: pages.closed("The pod has not answered for long"),
    }
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between two of them. listener: number of the inherited file. most_files: that it may open.

    threads: on as many as there are cores it does less, since they wait for each other and for pods.
    retries: how often a request is sent again where the pod closed before it answered.
    """

    listener: int
    most_files: int
    threads: int = 1
    retries: int = 1


def shape_here(listener: int, retries: int) -> Shape:
    """As this machine allows: half of the cores are left to pods and to Berth."""
    cores, most_files = len(os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return Shape(listener, most_files, max(1, cores // 2), retries)


def configuration(shape: Shape) -> str:
    """The whole text. Paths are as seen from the directory that it lies in."""
    most = max(1, min(MOST_CONNECTIONS, (shape.most_files - SPARE_FILES) // FILES_OF_A_CONNECTION))
    errors = "\n".join(f"    errorfile {status} {status}.http" for status in ERRORS)
    return f"""\
global
    nbthread {shape.threads}
    maxconn {2 * most}
    tune.bufsize {conversation.MOST_HEAD_BYTES + REWRITE_BYTES}
    tune.maxrewrite {REWRITE_BYTES}
    ssl-default-bind-options ssl-min-ver TLSv1.2
    stats socket unix@{ADMIN} mode 600 level admin
    hard-stop-after {ways.IDLE_S}s

defaults
    timeout connect {ways.CONNECT_S}s
    timeout client {ways.IDLE_S}s
    timeout client-fin {channels.END_S}s
    timeout server {ways.IDLE_S}s
    timeout server-fin {channels.END_S}s
    timeout http-request {conversation.HEAD_S}s
    timeout http-keep-alive {conversation.KEEP_S}s
    retries 0
{errors}

frontend entry
    mode tcp
    maxconn {most}
    bind fd@{shape.listener}
    tcp-request inspect-delay {embedded.HANDSHAKE_S}s
    tcp-request content reject unless {{ req.len gt 0 }}
    tcp-request content accept unless {{ req.payload(0,1),hex -m str 16 }}
    tcp-request content accept if {{ req.ssl_hello_type 1 }}
    acl is_hello req.ssl_hello_type 1
    acl asks_for_postgres req.ssl_alpn -m sub postgresql
    use_backend to_web if is_hello !asks_for_postgres {{ req.ssl_sni,lower,{_number(NetProtocol.HTTP)} -m found }}
    use_backend to_stream if is_hello !asks_for_postgres {{ req.ssl_sni,lower,{_number(NetProtocol.TCP)} -m found }}
    default_backend embedded

backend to_web
    mode tcp
    server here unix@web.sock send-proxy-v2
backend to_stream
    mode tcp
    server here unix@stream.sock send-proxy-v2
backend embedded
    mode tcp
    server berth unix@../{EMBEDDED} send-proxy-v2

frontend stream
    mode tcp
    bind unix@stream.sock mode 600 accept-proxy ssl crt-list {CERTIFICATES} alpn http/1.1
    tcp-request content set-var(sess.number) ssl_fc_sni,lower,{_number(NetProtocol.TCP)}
    use_backend stream_ways if {{ var(sess.number) -m found }}
    default_backend stream_named

backend stream_ways
    mode tcp
    server berth unix@../{WAYS} send-proxy-v2 proxy-v2-options authority
backend stream_named
    mode tcp
    server berth unix@../{NAMED} send-proxy-v2 proxy-v2-options authority

frontend web
    mode http
    bind unix@web.sock mode 600 accept-proxy ssl crt-list {CERTIFICATES} alpn http/1.1 proto h1
    unique-id-format %[var(txn.number)]
    http-request set-var(txn.name) ssl_fc_sni,lower
    http-request set-var(txn.host) req.hdr(host),host_only,lower
    http-request set-var(txn.number) var(txn.name),{_number(NetProtocol.HTTP)}
    acl is_plain var(txn.number) -m found
    acl is_meant var(txn.host),strcmp(txn.name) eq 0
    acl has_one_host req.fhdr_cnt(host) eq 1
    acl is_of_pods url -m beg /
    acl is_not_passed method CONNECT TRACE
    acl says_of_connection req.fhdr(connection) -m found
    acl says_nothing_new req.fhdr(connection) -m reg -i ^(close|keep-alive|upgrade|keep-alive,\\ *upgrade)?$
    acl wants_change req.fhdr(upgrade) -m found
    acl wants_websocket req.fhdr(upgrade) -i websocket
    acl has_body req.fhdr(content-length) -m found
    acl has_body req.fhdr(transfer-encoding) -m found
    acl is_repeatable method GET HEAD OPTIONS
    use_backend web_named if !is_plain or !is_meant or !has_one_host or !is_of_pods or is_not_passed
    acl has_control_characters req.hdrs -m reg '[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]'
    use_backend web_named if has_control_characters
    use_backend web_named if says_of_connection !says_nothing_new
    use_backend web_named if wants_change !wants_websocket
    use_backend web_ways if is_repeatable !has_body !wants_change
    default_backend web_ways_once

backend web_named
    mode http
    option abortonclose
    http-reuse never
    http-response set-header connection close unless {{ status 101 }}
    server berth unix@../{NAMED} send-proxy-v2 proxy-v2-options authority

backend web_ways
    http-reuse always
    retries {shape.retries}
    retry-on conn-failure empty-response
{_WAY}
backend web_ways_once
    http-reuse never
{_WAY}"""


def _number(protocol: NetProtocol) -> str:
    return f"map_str({MAPS[protocol]})"


_WAY = f"""\
    mode http
    option abortonclose
    http-request del-header ^(forwarded|x[-_]forwarded[-_](for|host|port|proto|server)|x[-_]real[-_]ip)$ -m reg
    http-request del-header ^(keep-alive|te|trailer|proxy[-_](authenticate|authorization|connection))$ -m reg
    http-request set-header x-forwarded-for %[src]
    http-request set-header x-real-ip %[src]
    http-request set-header x-forwarded-proto https
    http-request set-header x-forwarded-host %[req.hdr(host)]
    http-request set-header x-forwarded-port %[dst_port]
    http-request set-src ipv4(127.0.0.1)
    http-request set-src-port int(0)
    http-response del-header ^(keep-alive|trailer|proxy[-_](authenticate|authorization|connection))$ -m reg
    server berth unix@../{WAYS} send-proxy-v2 proxy-v2-options authority,unique-id pool-low-conn {MOST_CONNECTIONS}
"""
"""To a pod. What is said of the client is the same for all, or no two clients could share a connection."""


def entries(numbers: Mapping[str, int]) -> Iterable[str]:
    """The lines of a map."""
    return (f"{name} {number}\n" for name, number in sorted(numbers.items()))


def write(
    folder: Path,
    shape: Shape,
    certificates: Mapping[str, Certificate],
    numbers: Mapping[NetProtocol, Mapping[str, int]],
) -> None:
    """Everything that it reads at its start, into a directory made for it. certificates: by domain."""
    folder.mkdir(mode=0o700)
    (folder / CONFIGURATION).write_text(configuration(shape))
    for protocol, name in MAPS.items():
        (folder / name).write_text("".join(entries(numbers[protocol])))
    for status, page in ERRORS.items():
        (folder / f"{status}.http").write_bytes(pages.raw(page))
    lines = []
    for number, (domain, certificate) in enumerate(sorted(certificates.items())):
        (folder / f"{number}.pem").symlink_to(certificate.chain.absolute())
        if certificate.key != certificate.chain:
            (folder / f"{number}.pem.key").symlink_to(certificate.key.absolute())
        lines.append(f"{number}.pem *.{domain} {domain}\n")
    (folder / CERTIFICATES).write_text("".join(lines))
