"""The `berth` command: each module holds a few commands and loads what is heavy only when it runs."""
