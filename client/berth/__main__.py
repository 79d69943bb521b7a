"""The `berth` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line; ends the process with one of the documented exit codes."""
    from berth.cli.root import app

    app(prog_name="berth")


if __name__ == "__main__":
    main()
