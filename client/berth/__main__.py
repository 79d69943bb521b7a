"""The `berth` command."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line; ends the process with one of the documented exit codes."""
    from berth.cli.root import app

    if "_BERTH_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    app(prog_name="berth")


if __name__ == "__main__":
    main()
