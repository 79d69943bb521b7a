"""The waits of the jobs that found the queue most alike: a predictor that needs nothing but numpy and few jobs."""

from __future__ import annotations

import numpy as np

from placement.features import FEATURES
from placement.lessons import QUANTILES, Past, Predict, Rows
from placement.queue_state import Floats

NEIGHBOURS = 31
"""Enough for a 90th percentile with three above it."""

LATEST_JOBS = 8000
"""Older ones are not asked: queues change, and the search takes time with their number."""

FEWEST_JOBS = 100
"""Below this many, the neighbours are far away."""

BATCH_ROWS = 256
"""Rows searched at once; bounds the memory of the distances to about 16 MB."""

_NAMES = (
    "size walltime run free room start_alone start_behind_all waiting_work work_not_longer easier_oldest easier_middle"
    " own_waiting own_last own_mean alike_now alike_long alike_with_waiting alike_last last_5 last_20"
)

COLUMNS = [FEATURES.index(name) for name in str.split(_NAMES)]
"""The features whose distance says most; all of them would drown these."""


def fit_neighbours(past: Past) -> Predict | None:
    """Quantiles over the nearest of the latest jobs, every feature in units of its spread."""
    if len(past.rows) < FEWEST_JOBS:
        return None
    known = past.rows[-LATEST_JOBS:][:, COLUMNS]
    waits_s = past.waits_s[-LATEST_JOBS:]
    spread = np.maximum(known.std(axis=0), 1e-6)
    known = known / spread
    squares = (known**2).sum(axis=1)

    def predict(rows: Rows) -> Floats:
        parts = [rows[at : at + BATCH_ROWS, COLUMNS] / spread for at in range(0, len(rows), BATCH_ROWS)]
        return np.concatenate([_of_nearest(squares - 2 * part @ known.T, waits_s) for part in parts])

    return predict


def _of_nearest(distances: Rows, waits_s: Floats) -> Floats:
    nearest = np.argpartition(distances, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    columns = [np.quantile(waits_s[nearest, column], q, axis=1) for column, q in enumerate(QUANTILES)]
    return np.stack(columns, axis=1)
