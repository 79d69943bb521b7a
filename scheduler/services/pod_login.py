"""Saying to a pod's gateway who somebody is: a ticket for one host name, for those whom the pod lets in."""

from __future__ import annotations

from scheduler.model.errors import Forbidden, NotFound, Unauthenticated
from scheduler.model.pod_names import domain_of, host_name, label_of
from scheduler.model.pods import PodNet
from scheduler.model.tenants import Tenant
from scheduler.ports import Ports
from scheduler.security.tokens import PodPassKind, Tokens
from scheduler.services import auth
from scheduler.store.pods import PodStore

CODE_S = 60
TICKET_S = 60


async def code(ports: Ports, tokens: Tokens, tenant: str, label: str, login: tuple[str, str, str], state: str) -> str:
    """What says for a minute who somebody is who may enter the net behind ``label`` (``mypod`` or ``mypod-net``).

    login: user name, password, and the address that they come from. Raises LoginRefused, TooManyLogins, NotFound for a
    net without a login, or Forbidden for a user whom the pod does not let in.
    """
    pod_id, net = await guarded_net(ports, tenant, label)
    user = await auth.demand_password(ports, tenant, *login)
    _demand_entry(pod_id, net, user.username)
    return tokens.pod_pass(PodPassKind.CODE, user, label, CODE_S, state).token


async def ticket(
    ports: Ports, tokens: Tokens, tenant: Tenant, label: str, pods_domain: str, code: str, state: str
) -> tuple[str, str]:
    """The host name behind ``label``, and a ticket for it, for a code that was given for this label and state.

    Raises Unauthenticated for any other code, and NotFound and Forbidden as above.
    """
    known = tokens.read_pod_pass(PodPassKind.CODE, code, label)
    if known.principal.tenant != tenant.id or known.state != state:
        raise Unauthenticated("this login was begun elsewhere; begin at the pod's own address")
    pod_id, net = await guarded_net(ports, tenant.id, label)
    _demand_entry(pod_id, net, known.principal.username)
    host = host_name(pod_id, net.name, domain_of(tenant, pods_domain)).lower()
    return host, tokens.pod_pass(PodPassKind.TICKET, known.principal, host, TICKET_S, known.state).token


async def guarded_net(ports: Ports, tenant: str, label: str) -> tuple[str, PodNet]:
    """The pod and the net of a label, if that net has a login; NotFound otherwise."""
    pod_id = label.partition("-")[0]
    async with ports.reading() as db:
        pod = await PodStore(db).get(tenant, pod_id)
    for net in pod.definition.nets:
        if net.needs_login and net.is_outside and label_of(pod_id, net.name) == label:
            return pod_id, net
    raise NotFound("login of pod", label)


def may_enter(net: PodNet, username: str) -> bool:
    """Whether a user of the pod's tenant is let in."""
    return "*" in net.allowed_users or username in net.allowed_users


def _demand_entry(pod_id: str, net: PodNet, username: str) -> None:
    if not may_enter(net, username):
        raise Forbidden(f"the pod {pod_id} does not let '{username}' in; ask its owner")
