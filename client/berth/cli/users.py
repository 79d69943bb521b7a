"""Commands about users: user add, ls, rm, passwd."""

from __future__ import annotations

from typing import Annotated

import typer

from berth.cli.connect import connect
from berth.cli.inputs import password as read_password
from berth.cli.render import Column, Format, Output, print_list, say

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
NEW_PASSWORD_VARIABLE = "BERTH_NEW_PASSWORD"  # noqa: S105 - a variable's name
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="User name.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the new password from standard input.")]


@app.callback()
def main() -> None:
    """The users of a server, for administrators."""


@app.command()
def add(
    username: UserArgument,
    email: Annotated[str | None, typer.Option("--email", help="E-mail address.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Full name.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="An administrator.")] = False,
    password_stdin: PasswordStdin = False,
) -> None:
    """Add a user.

    Without --password-stdin the server makes a password up; it is printed on standard output this once.

    \b
    Examples:
      berth user add alice --email alice@example.org
      pass new/bob | berth user add bob --password-stdin
    """
    password = read_password(from_stdin=True, prompt="", variable=NEW_PASSWORD_VARIABLE) if password_stdin else None
    with connect() as client:
        answer = client.users.add(username, password, email=email, name=name, admin=admin)
    say(f"berth: user {username} is added")
    if answer.get("password"):
        say("berth: the password, which is shown only now:")
        print(answer["password"])


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List users.

    \b
    Examples:
      berth user ls
      berth user ls -o id
    """
    with connect() as client:
        users = list(client.users.list())
    columns = (
        Column("USER", lambda raw: raw["username"]),
        Column("NAME", lambda raw: raw.get("name") or ""),
        Column("EMAIL", lambda raw: raw.get("email") or ""),
    )
    print_list("User", users, columns, lambda raw: raw["username"], output)


@app.command()
def rm(username: UserArgument) -> None:
    """Remove a user; jobs under way go on.

    \b
    Examples:
      berth user rm alice
    """
    with connect() as client:
        client.users.remove(username)
    say(f"berth: user {username} is removed")


@app.command()
def passwd(
    username: Annotated[str | None, typer.Argument(metavar="USER", help="User; left out, yourself.")] = None,
    password_stdin: PasswordStdin = False,
) -> None:
    """Set a password: your own, or anyone's for administrators.

    The new password comes from --password-stdin, BERTH_NEW_PASSWORD, or is asked for twice at a terminal.

    \b
    Examples:
      berth user passwd
      pass new/bob | berth user passwd bob --password-stdin
    """
    with connect() as client:
        who = username or client.username
        password = read_password(
            from_stdin=password_stdin, prompt=f"New password of {who}", variable=NEW_PASSWORD_VARIABLE, confirm=True
        )
        client.users.set_password(who, password)
    say(f"berth: the password of {who} is set")
