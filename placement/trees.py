"""Boosted trees, one ensemble for each quantile: the predictor that knows most, where LightGBM is installed.

The one home of LightGBM (the extra ``learned``), imported when trees are first fitted. Without it, or without the
OpenMP library that it needs, there are no trees, and the other predictors answer.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from placement.lessons import QUANTILES, ROOT, Past, Predict, Rows
from placement.queue_state import Floats

FEWEST_JOBS = 400
"""Below this many, trees only repeat what they were shown."""

TREES = 100

PARAMETERS: Mapping[str, object] = MappingProxyType(
    {
        "objective": "quantile",
        "num_leaves": 31,
        "learning_rate": 0.08,
        "min_data_in_leaf": 20,
        "max_bin": 63,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "num_threads": 1,
        "seed": 1,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
)
"""One thread: a server has better uses for its cores. The seed makes the same past give the same trees."""


def fit_trees(past: Past) -> Predict | None:
    """Trees for the fourth root of the wait, fitted to each quantile's own loss."""
    lightgbm = library()
    if lightgbm is None or len(past.rows) < FEWEST_JOBS:
        return None
    boosters = [_fitted(lightgbm, past.rows, past.waits_s[:, column], q) for column, q in enumerate(QUANTILES)]

    def predict(rows: Rows) -> Floats:
        roots = [np.asarray(each.predict(rows, num_threads=1)) for each in boosters]
        return np.asarray(np.maximum(np.stack(roots, axis=1), 0.0) ** (1 / ROOT))

    return predict


@cache
def library() -> Any:
    """LightGBM; None where it cannot be used."""
    try:
        return importlib.import_module("lightgbm")
    except (ImportError, OSError):
        return None


def _fitted(lightgbm: Any, rows: Rows, waits_s: Floats, quantile: float) -> Any:
    parameters = {**PARAMETERS, "alpha": quantile}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, waits_s**ROOT), TREES)
