"""Lines that load the modules which a scheduler profile names, before the runtime is looked for."""

from __future__ import annotations

from collections.abc import Sequence

from backends.launchers.words import quote, quoted
from scheduler.model.scheduler_profiles import SchedulerProfile


def lines(profile: SchedulerProfile | None) -> str:
    """Empty where nothing is to be loaded. What cannot be loaded ends the run, in words that name the profile."""
    calls = [call for load in profile.module_loads for call in load.calls] if profile is not None else []
    if profile is None or not calls:
        return ""
    known = " && ".join(f"command -v {quote(command)}" for command in dict.fromkeys(call[0] for call in calls))
    return _KNOW_MODULES.format(known=known) + "".join(_load(call, profile.name) for call in calls) + "set -u\n"


def _load(words: Sequence[str], profile: str) -> str:
    why = f"'{' '.join(words)}' failed, which the scheduler profile '{profile}' asks for"
    return f"{' '.join(quoted(words))} >&2 || refuse {quote(why)}\n"


_KNOW_MODULES = """\
# Modules of the site; a shell that runs a script has read no start-up file, so it may not know how to load them.
set +u
if ! {{ {known}; }} > /dev/null && [ -r /etc/profile ]; then
    found=$PATH
    . /etc/profile >&2
    PATH=$PATH:$found
fi
"""
