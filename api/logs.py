"""Where log lines go and what they look like; secrets never reach them because nothing that holds one is logged."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

QUIET = ("asyncssh", "alembic", "httpx", "httpx2", "aiosqlite", "uvicorn")
"""Libraries of which only warnings are of interest."""


def configure(level: str, form: Literal["console", "json"]) -> None:
    """Every line of this process goes to standard error, in one form."""
    number = logging.getLevelNamesMapping()[level.upper()]
    render: Any = structlog.processors.JSONRenderer()
    if form == "console":
        plain = structlog.dev.plain_traceback  # the prettier ones show local variables, and with them secrets
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if form == "json" else []),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.INFO), stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
