"""Who may do what, every cell of it."""

from __future__ import annotations

import itertools

import pytest

from scheduler.model.apps import App
from scheduler.model.errors import Forbidden, NotFound
from scheduler.model.systems import System
from scheduler.model.users import Permission, Principal
from scheduler.security.authorize import Action, demand, demand_admin, may

ANN, BOB = Principal(tenant="dev", username="ann"), Principal(tenant="dev", username="bob")
ADMIN = Principal(tenant="dev", username="root", is_admin=True)
STRANGER = Principal(tenant="other", username="ann", is_admin=True)
MINE = System(tenant="dev", id="s", uuid="u", owner="ann", host="h")
PUBLIC = System(tenant="dev", id="s", uuid="u", owner="ann", host="h", is_public=True)
PUBLIC_APP = App(tenant="dev", id="a", version="1", uuid="u", owner="ann", image="i", is_public=True)
READ, MODIFY, EXECUTE, OWN = Action

TABLE = {
    "owner": (ANN, MINE, (), set(Action)),
    "admin": (ADMIN, MINE, (), set(Action)),
    "admin of another tenant": (STRANGER, MINE, (), set()),
    "admin of another tenant, public": (STRANGER, PUBLIC, (), set()),
    "someone": (BOB, MINE, (), set()),
    "someone, public": (BOB, PUBLIC, (), {READ, EXECUTE}),
    "someone, public app": (BOB, PUBLIC_APP, (), {READ, EXECUTE}),
    "granted READ": (BOB, MINE, (Permission.READ,), {READ}),
    "granted MODIFY": (BOB, MINE, (Permission.MODIFY,), {READ, MODIFY}),
    "granted EXECUTE": (BOB, MINE, (Permission.EXECUTE,), {READ, EXECUTE}),
    "granted both": (BOB, MINE, (Permission.MODIFY, Permission.EXECUTE), {READ, MODIFY, EXECUTE}),
    "granted across tenants": (STRANGER, MINE, tuple(Permission), set()),
}


@pytest.mark.parametrize(("row", "action"), list(itertools.product(TABLE, Action)))
def test_the_table_of_who_may_do_what(row, action):
    principal, thing, grants, allowed = TABLE[row]
    assert may(principal, action, thing, grants) == (action in allowed)


def test_who_may_not_even_see_a_thing_is_told_that_it_is_not_there():
    with pytest.raises(NotFound, match="system 's' was not found"):
        demand(BOB, MODIFY, MINE, "system", "s")


def test_who_may_see_a_thing_is_told_whom_to_ask():
    with pytest.raises(Forbidden, match="bob may not administer system 's'; ask ann"):
        demand(BOB, OWN, PUBLIC, "system", "s")
    demand(BOB, EXECUTE, PUBLIC, "system", "s")


def test_only_admins_do_what_is_for_admins():
    demand_admin(ADMIN, "make users")
    with pytest.raises(Forbidden, match="only an admin may make users"):
        demand_admin(ANN, "make users")
