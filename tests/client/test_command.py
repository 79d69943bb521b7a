"""The command as a process: what it loads, how it ends, and that it never waits for an answer nobody can give."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from berth.cli.root import COMMANDS, SECTIONS, app
from berth.cli.topics import SCRIPTS
from berth.errors import EXIT_MEANINGS, ExitCode
from typer.main import get_command
from typer.testing import CliRunner

from tests.client.fake_berth import FakeBerth

ROOT = Path(__file__).parents[2]
HEAVY = ("httpx", "rich", "pydantic", "yaml", "httpcore", "asyncio", "ssl", "sqlalchemy", "fastapi")


def berth(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own, without a terminal."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client"), **options.pop("env", {})}  # type: ignore[dict-item]
    command = [sys.executable, "-m", "berth", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, **options)  # type: ignore[call-overload,no-any-return]


def loaded_by(code: str) -> set[str]:
    """The heavy modules that are loaded after running ``code`` in a new interpreter."""
    ask = f"{code}\nimport sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client")}
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, env=environment, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_nothing_heavy_and_no_command() -> None:
    run = "from typer.testing import CliRunner; from berth.cli.root import app; CliRunner().invoke(app, ['--help'])"
    commands = "print(*(name for name in sys.modules if name.startswith('berth.cli.')))"
    assert loaded_by(run) == set()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "client")}
    shown = subprocess.run(
        [sys.executable, "-c", f"import sys; {run}; {commands}"],
        capture_output=True, text=True, timeout=60, env=environment, check=True,
    )  # fmt: skip
    assert shown.stdout.split() == ["berth.cli.root"]


def test_importing_every_command_loads_nothing_heavy() -> None:
    modules = sorted({entry.module for entry in COMMANDS.values()})
    assert loaded_by(";".join(f"import berth.cli.{name}" for name in modules)) == set()


def test_importing_the_package_loads_nothing_heavy_and_offers_its_names() -> None:
    assert loaded_by("import berth") == set()
    assert "httpx" in loaded_by("from berth import Client, ApiError, BerthError, Job, request_from_job")


def every_command() -> list[tuple[str, ...]]:
    root = get_command(app)
    return [words for name in COMMANDS for words in commands_in(root.commands[name], name)]  # type: ignore[attr-defined]


def commands_in(command: Any, *words: str) -> list[tuple[str, ...]]:
    below = getattr(command, "commands", None)
    if not below:
        return [words]
    return [found for sub in below for found in commands_in(below[sub], *words, sub)]


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_help_with_examples(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0
    assert "Examples:\n" in done.stdout
    assert f"berth {' '.join(words)}" in done.stdout.partition("Examples:")[2]


def test_the_first_page_says_what_each_commands_own_page_says() -> None:
    root = get_command(app)
    for name, entry in COMMANDS.items():
        own = (root.commands[name].help or "").strip().splitlines()[0]  # type: ignore[attr-defined]
        assert own == entry.help
    page = CliRunner().invoke(app, ["--help"]).stdout
    for title in SECTIONS:
        assert f"{title}:" in page


def test_every_exit_code_is_explained(home: Path) -> None:
    assert set(EXIT_MEANINGS) == set(ExitCode)
    page = CliRunner().invoke(app, ["help", "exit-codes"]).stdout
    docs = (ROOT / "docs/cli.md").read_text()
    for code, meaning in EXIT_MEANINGS.items():
        assert f"{int(code):>3}  {meaning}" in page
        assert f"| {int(code)} | {meaning} |" in docs


def test_every_command_and_sbatch_option_is_in_the_documentation() -> None:
    from berth.sbatch.options import OPTIONS

    docs = (ROOT / "docs/cli.md").read_text()
    for words in every_command():
        assert f"`berth {' '.join(words)}" in docs
    for option in OPTIONS:
        assert f"--{option.long}" in docs


# -- how it ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--version",), 0, "berth 0.1.0"),
        (("nothing",), 2, "No such command 'nothing'"),
        (("sbmit",), 2, "submit"),
        (("run",), 2, "Missing argument 'IMAGE'"),
        (("ps", "--bogus"), 2, "No such option: --bogus"),
        (("ps",), 4, "berth: no server is named; berth login URL --user NAME, or set BERTH_URL"),
        (("submit", "missing.yaml"), 5, "berth: cannot read missing.yaml: No such file or directory"),
        (("login", "ftp://x", "--user", "a"), 5, "is not a server's URL"),
    ],
)
def test_exit_codes_are_those_of_the_table(home: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = berth(*words, cwd=home)
    assert done.returncode == code
    assert said in (done.stdout if code == 0 else done.stderr)
    assert (done.stdout == "") == (code != 0)


def test_a_server_command_without_the_server_says_how_to_install_it(home: Path) -> None:
    (home / "api.py").write_text("raise ModuleNotFoundError('no server here', name='api')\n")
    for words in (("up",), ("api",), ("reconcile",), ("db", "upgrade"), ("key", "rotate")):
        done = berth(*words, cwd=home, env={"PYTHONPATH": f"{home}:{ROOT / 'client'}"})
        assert done.returncode == 8
        assert done.stderr == (
            "berth: this command needs the server, and 'api' is not installed here; pip install berth-hpc\n"
        )


def test_up_hands_over_only_what_was_given(home: Path) -> None:
    (home / "api").mkdir()
    (home / "api/main.py").write_text("def up(**settings):\n    print(sorted(settings.items()))\n")
    done = berth("up", "--port", "9000", cwd=home, env={"PYTHONPATH": f"{ROOT / 'client'}:{home}"})
    assert done.stdout == "[('port', 9000)]\n"


def test_nothing_is_asked_where_nobody_can_answer(url: str, home: Path) -> None:
    for words in (("login", url), ("login", url, "--user", "alice"), ("systems", "probe", "h", "--user", "a")):
        done = berth(*words, cwd=home, stdin=subprocess.DEVNULL)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_leaves_the_job_running_and_ends_with_130(url: str, fake: FakeBerth, home: Path) -> None:
    import signal

    fake.life = ("QUEUED",)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "client"),
        "BERTH_URL": url,
        "BERTH_TOKEN": fake.token("alice"),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "berth", "run", "docker://x"],
        env=environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "QUEUED" in line:
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on; berth logs -f" in said
    assert [job["status"] for job in fake.jobs.values()] == ["QUEUED"]


def test_a_reader_that_stops_reading_is_no_error(url: str, fake: FakeBerth, home: Path) -> None:
    for number in range(500):
        fake.add_job({"name": f"job-{number}"})
    environment = {"BERTH_URL": url, "BERTH_TOKEN": fake.token("alice"), "PYTHONPATH": str(ROOT / "client")}
    line = f"{sys.executable} -m berth ps -n 0 | head -n 1"
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert done.stdout.startswith("JOB")
    assert "Traceback" not in done.stderr


# -- at a terminal -----------------------------------------------------------------------------------------------


def at_terminal(words: list[str], columns: int, **environment: str) -> str:
    """What a command writes to a terminal of that width."""
    leader, follower = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "berth", *words],
        stdin=follower, stdout=follower, stderr=follower, close_fds=True,
        env={**kept, "PYTHONPATH": str(ROOT / "client"), "COLUMNS": str(columns), "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(follower)
    pieces = []
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(leader)
    process.wait(20)
    return b"".join(pieces).decode()


def test_tables_fit_the_terminal_and_heed_no_color(url: str, fake: FakeBerth, home: Path) -> None:
    fake.add_job({"name": "a-job-with-a-name-that-is-much-too-long-for-any-narrow-terminal"})
    environment = {"BERTH_URL": url, "BERTH_TOKEN": fake.token("alice"), "XDG_CONFIG_HOME": str(home)}
    coloured = at_terminal(["ps"], 100, **environment)
    assert "\x1b[" in coloured
    plain = at_terminal(["ps"], 100, **environment, NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert max(map(len, plain.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())) <= 100


def test_a_password_is_asked_for_at_a_terminal_and_not_shown(url: str, home: Path) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "berth", "login", url, "--user", "alice"],
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "client"), "XDG_CONFIG_HOME": str(home / "config")},
    )  # fmt: skip
    shown = b""
    while b": " not in shown:
        shown += os.read(leader, 1024)
    os.write(leader, b"secret\n")
    assert process.wait(20) == 0
    shown += os.read(leader, 1024)
    os.close(follower)
    os.close(leader)
    assert b"secret" not in shown
    assert json.loads((home / "config/berth/config.json").read_text())["current"] == url


# -- completion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_a_completion_script_is_printed_for_every_shell(shell: str) -> None:
    assert "_BERTH_COMPLETE" in CliRunner().invoke(app, ["completion", shell]).stdout


def test_bash_completes_commands_and_options(home: Path) -> None:
    script = berth("completion", "bash").stdout
    (home / "berth").write_text(f'#!/bin/sh\nexec {sys.executable} -m berth "$@"\n')
    (home / "berth").chmod(0o755)
    for words, expected in (("berth sub", "submit"), ("berth systems pro", "probe"), ("berth run --syst", "--system")):
        line = f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; _berth_completion berth"
        ask = f"{script}\n{line}; echo ${{COMPREPLY[*]}}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "client"), "PATH": f"{home}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60, env=environment)
        assert expected in done.stdout.split(), done.stderr
