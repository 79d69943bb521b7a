"""What real clusters answered, by version and command (``tests/data/slurm``)."""

from pathlib import Path

DATA = Path(__file__).parents[1] / "data" / "slurm"
VERSIONS = ("bookworm-22.05.8", "trixie-24.11.5", "sid-26.05.5")


def recorded(version: str, name: str) -> str:
    """The answer alone, without the line that says what was asked."""
    return (DATA / version / f"{name}.out").read_text().partition("\n")[2]


def asked(version: str, name: str) -> str:
    """The command that was recorded."""
    return (DATA / version / f"{name}.out").read_text().partition("\n")[0].removeprefix("# ")
