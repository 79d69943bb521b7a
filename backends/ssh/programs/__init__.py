"""Programs that travel to a host that is logged in to; self-contained, for Python 3.6 and later."""
