"""How often a process of ours looks for garbage: it holds much that lives for long, and makes much at a time."""

from __future__ import annotations

import gc

OBJECTS_BETWEEN_COLLECTIONS = 20_000
"""How many more containers are made than freed before young ones are collected; a batch of jobs makes many."""


def spare_the_collector() -> None:
    """Leave what the start has built out of all later garbage collections.

    It lives as long as the process, and walking through it stopped every request for some 0.3 s at a time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
