"""The command that finds out what is wrong: each check says what it found and, when something is wrong, the fix."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

import typer

from berth.cli.render import Format, Output, document, print_document, print_table, safe
from berth.cli.systems import is_local
from berth.errors import ApiError, BerthError, ExitCode, Unauthenticated
from berth.units import duration

if TYPE_CHECKING:
    from berth.client import Client

app = typer.Typer(rich_markup_mode=None)
CLOCK_TOLERANCE_S = 30.0


class Finding(NamedTuple):
    """What one check found. ``fix`` is empty when all is well."""

    check: str
    verdict: str
    detail: str
    fix: str = ""


@app.command()
def doctor(output: Output = Format.TABLE) -> None:
    """Check server, login, systems, credentials and clock, and say the fix.

    The exit code is 1 when something is wrong.

    \b
    Examples:
      berth doctor
      berth doctor -o json
    """
    findings = list(examine())
    if output in (Format.JSON, Format.YAML):
        print_document(document("FindingList", items=[finding._asdict() for finding in findings]), output)
    elif output is Format.ID:
        for finding in findings:
            if finding.verdict == "wrong":
                print(safe(finding.check))
    else:
        print_table(("CHECK", "VERDICT", "FOUND"), [finding[:3] for finding in findings])
        for finding in findings:
            if finding.fix:
                print(f"\n{safe(finding.check)}: {safe(finding.fix)}")
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(ExitCode.JOB_FAILED)


def examine() -> Iterator[Finding]:
    """All findings, from the server's address on; it ends where nothing further can be known."""
    from berth.client import Client

    try:
        client = Client()
    except BerthError as error:
        yield Finding("server", "wrong", error.message, error.fix)
        return
    with client:
        try:
            answered = client.answer_date()
        except BerthError as error:
            fix = f"start the server (berth up), or name another one: berth login URL; tried {client.url}"
            yield Finding("server", "wrong", error.message, fix)
            return
        yield Finding("server", "ok", f"{client.url} answers")
        yield _clock(answered)
        found, logged_in = _login(client)
        yield found
        if logged_in:
            yield from _systems(client)


def _clock(server_date: str | None) -> Finding:
    if not server_date:
        return Finding("clock", "ok", "the server does not tell its time")
    try:
        apart_s = abs(time.time() - parsedate_to_datetime(server_date).timestamp())
    except ValueError:
        return Finding("clock", "ok", f"the server's time cannot be read: {server_date}")
    if apart_s <= CLOCK_TOLERANCE_S:
        return Finding("clock", "ok", f"within {CLOCK_TOLERANCE_S:.0f}s of the server's")
    fix = "set the clocks of this machine and of the server by NTP: tokens end at the wrong time"
    return Finding("clock", "wrong", f"{duration(apart_s)} away from the server's", fix)


def _login(client: Client) -> tuple[Finding, bool]:
    fix = f"berth login {client.url} --user NAME"
    try:
        name = client.username
        client.users.get(name)
    except Unauthenticated as error:
        return Finding("login", "wrong", error.message, fix), False
    except ApiError as error:
        return Finding("login", "wrong", error.message, "see the server's log"), False
    except BerthError as error:
        return Finding("login", "wrong", error.message, error.fix or fix), False
    ends_at_s = client.token_expires_at_s
    left = f", token good for {duration(ends_at_s - time.time())}" if ends_at_s else ""
    return Finding("login", "ok", f"{name}{left}"), True


def _systems(client: Client) -> Iterator[Finding]:
    systems = [raw for raw in client.systems.list(whole=True) if raw.get("canExec")]
    if not systems:
        yield Finding(
            "systems", "wrong", "there is no system to run jobs on", "berth systems probe HOST --user NAME --register"
        )
    for raw in systems:
        name = f"system {raw['id']}"
        if raw.get("enabled") is False:
            yield Finding(name, "wrong", "is disabled", f"berth systems enable {raw['id']}")
        elif is_local(raw):
            yield Finding(name, "ok", "runs jobs on the server's own machine")
        else:
            yield _credential(client, name, raw["id"])


def _credential(client: Client, name: str, system_id: str) -> Finding:
    store = f"berth systems credential {system_id} --identity KEYFILE"
    fixes: dict[int, str] = {404: store, 400: f"store one that works: {store}", 503: "see whether its login node is up"}

    try:
        client.systems.check_credential(system_id, client.username)
    except ApiError as error:
        return Finding(name, "wrong", error.message, fixes.get(error.status, store))
    return Finding(name, "ok", "your credential works")
