"""The maximum of a function of one number by Bayesian optimisation.

::

    found = maximise(lambda p: -distance(p), 0.95, 1.0)
    found.best, found.value, found.evaluations

First random points, then points that a Gaussian process with a Matern 5/2 kernel proposes. That is Optuna's ``GPSampler``, which works in
torch; it proposes by expected improvement, the package of the authors' scripts (``bayes_opt``) by an upper confidence bound.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Found:
    """Where the largest value was seen."""

    best: float
    value: float
    evaluations: list[tuple[float, float]]  # all points with their values, in order
    seconds: float  # of the whole search


def maximise(objective: Callable[[float], float], low: float, high: float, random: int = 5, proposed: int = 30, seed: int = 1) -> Found:
    """Return the largest value of ``objective`` on ``[low, high]`` that was found in ``random`` points and so many ``proposed`` ones.

    ``objective`` runs without gradients.
    """
    import optuna

    def value(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", low, high)
        with torch.no_grad():
            return objective(x)

    began = time.perf_counter()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=random)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        with torch.enable_grad():  # the sampler follows gradients of its own
            study.optimize(value, n_trials=random + proposed)
    finally:
        optuna.logging.set_verbosity(before)
    evaluations = [(trial.params["x"], trial.value) for trial in study.trials]
    return Found(study.best_params["x"], study.best_value, evaluations, time.perf_counter() - began)
