"""What an operator must mend before the gateway can stand in front of pods."""

from __future__ import annotations

from scheduler.model.errors import BerthError


class GatewayRefused(BerthError):
    """A setting, file or address with which the gateway cannot start; the text names it and the fix."""
