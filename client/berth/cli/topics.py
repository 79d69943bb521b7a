"""Commands that explain: help on topics, and completion scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated

import typer

from berth.errors import EXIT_MEANINGS

app = typer.Typer(rich_markup_mode=None)


class Shell(StrEnum):
    """A shell that can complete `berth`."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


class Topic(StrEnum):
    """Something that has a page of its own."""

    EXIT_CODES = "exit-codes"
    JOB_FILE = "job-file"
    SCHEMA = "schema"
    SBATCH = "sbatch"
    ENVIRONMENT = "environment"


SCRIPTS: Mapping[Shell, str] = {
    Shell.BASH: """\
_berth_completion() {
    local IFS=$'\\n'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _BERTH_COMPLETE=complete_bash $1 ) )
    return 0
}
complete -o default -F _berth_completion berth""",
    Shell.ZSH: """\
#compdef berth
_berth_completion() {
    eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _BERTH_COMPLETE=complete_zsh berth)
}
compdef _berth_completion berth""",
    Shell.FISH: """\
complete --command berth --no-files --arguments "(env _BERTH_COMPLETE=complete_fish \
_TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) berth)" \
--condition "env _BERTH_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args \
_TYPER_COMPLETE_ARGS=(commandline -cp) berth\"""",
}

JOB_FILE = """\
A job file is YAML (or JSON). Everything but the image may be left out:

  name: hello
  image: docker://python:3.12        # or app: NAME:VERSION
  args: [-c, "print('hello')"]       # for the image's entry point; command: [...] replaces it
  env: {GREETING: hello}
  resources:
    nodes: 1
    cores: 4                         # on each node
    memory: 8G                       # on each node
    time: "1:30:00"                  # or minutes, or 1h30m
    gpus: a100:2                     # on each node
  system: cluster                    # left out, Berth chooses
  queue: normal
  inputs:
    - tapis://storage/data.csv       # appears as /TapisInput/data.csv
    - {source: https://example.org/big.tar, target: data/big.tar}
  outputs: {when: always, include: ["*.csv"]}
  array: 0-99%10
  after: [3f2a..., {job: 9c1e..., condition: any}]
  options: {account: lab, qos: high} # for the system's scheduler

`berth help schema` prints the JSON Schema of these fields; an editor uses it with the first line
  # yaml-language-server: $schema=job.schema.json
A Tapis submit request, in YAML or JSON, is taken as it is."""

ENVIRONMENT = """\
BERTH_URL                the server; before the one logged in to last
BERTH_TOKEN              an access token; before the stored login
BERTH_PASSWORD           the password of berth login
BERTH_NEW_PASSWORD       the password of berth user passwd
BERTH_SYSTEM_PASSWORD    the password of an account on a system (systems probe, systems credential)
BERTH_REGISTRY_PASSWORD  the password or access token of berth images login
XDG_CONFIG_HOME          where the configuration is kept: berth/config.json below it; ~/.config by default
NO_COLOR                 when set, nothing is coloured
A server (berth up) reads more of them, each beginning with BERTH_; see the operator's guide."""


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.", show_choices=False)]) -> None:
    """Print a script that completes commands in your shell.

    \b
    Examples:
      berth completion bash > ~/.local/share/bash-completion/completions/berth
      berth completion zsh > "${fpath[1]}/_berth"
      berth completion fish > ~/.config/fish/completions/berth.fish
    """
    print(SCRIPTS[shell])


@app.command("help")
def help_(
    topic: Annotated[
        Topic | None, typer.Argument(help="exit-codes, job-file, schema, sbatch, environment.", show_choices=False)
    ] = None,
) -> None:
    """Explain a topic: exit-codes, job-file, sbatch, environment.

    \b
    Examples:
      berth help exit-codes
      berth help schema > job.schema.json
    """
    if topic is None:
        print("Topics: " + ", ".join(Topic) + "\nCommands: berth --help, berth COMMAND --help")
    else:
        print(PAGES[topic]())


def _exit_codes() -> str:
    return "\n".join(f"{code:>3}  {meaning}" for code, meaning in EXIT_MEANINGS.items())


def _schema() -> str:
    from importlib.resources import files

    return files("berth").joinpath("job.schema.json").read_text("utf-8").rstrip()


def _sbatch() -> str:
    from berth.sbatch.options import OPTIONS, How

    lines = ["Options of berth sbatch, on the command line or in #SBATCH lines; what each becomes in a job file:"]
    for how in How:
        lines.append(f"\n{how.value[0].upper()}{how.value[1:]}:")
        mine = [option for option in OPTIONS if option.how is how]
        width = max(len(option.spelled) for option in mine)
        lines.extend(f"  {option.spelled:<{width}}  {option.note}" for option in mine)
    return "\n".join(lines)


PAGES: Mapping[Topic, Callable[[], str]] = {
    Topic.EXIT_CODES: _exit_codes,
    Topic.JOB_FILE: lambda: JOB_FILE,
    Topic.SCHEMA: _schema,
    Topic.SBATCH: _sbatch,
    Topic.ENVIRONMENT: lambda: ENVIRONMENT,
}
