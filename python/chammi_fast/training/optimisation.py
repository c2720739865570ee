"""Learning rates: which parameters have which, and how they rise and fall."""

from __future__ import annotations

import math
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from chammi_fast.errors import RecipeError
from chammi_fast.training.strategies import strategy_class
from chammi_fast.training.tensors import first_of

if TYPE_CHECKING:
    from torch import nn

    from chammi_fast.spec import Spec
    from chammi_fast.training.objective import Objective
    from chammi_fast.training.recipe import Recipe


SWALR_STEPS = 10  # torch's default for the length of the way to SWA's rate, taken one step at a time


def rate(recipe: Recipe, peak: float, epoch: int, step: int, steps: int) -> float:
    """Learning rate of a step: up along a line, down along a cosine; under SWAD down to its own rate, and constant."""
    if recipe.schedule == "published":
        return published_rate(recipe, peak, epoch, step, steps)
    at = epoch if recipe.schedule == "epoch" else epoch + step / steps
    if at < recipe.warmup_epochs:
        return recipe.warmup_from + (peak - recipe.warmup_from) * at / recipe.warmup_epochs
    end, last = recipe.learning_rate_end, float(recipe.epochs)
    if recipe.swad_from is not None:
        end, last = _swad_rate(recipe, peak), max(recipe.swad_from, recipe.warmup_epochs)
    share = 1.0 if at >= last else (at - recipe.warmup_epochs) / (last - recipe.warmup_epochs)
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * share))


def published_rate(recipe: Recipe, peak: float, epoch: int, step: int, steps: int) -> float:
    """Learning rate of a step of the published runs.

    They set it by timm's ``CosineLRScheduler`` before each epoch, to which they gave the epoch's number from 1 on and
    the number of all epochs, those of warm-up among them: the cosine begins at 0, not where warm-up ends. Under SWAD
    torch's ``SWALR`` took over from there, called after every step.
    """
    start = recipe.swad_from
    later = 0.0 if start is None else (epoch - start) * steps + step
    if start is None or later < 0:
        return _timm_cosine(recipe, peak, epoch + 1)
    before = _timm_cosine(recipe, peak, math.ceil(start))
    share = (1 - math.cos(math.pi * min(1.0, later / SWALR_STEPS))) / 2
    return before + (_swad_rate(recipe, peak) - before) * share


def _timm_cosine(recipe: Recipe, peak: float, at: int) -> float:
    """Return the rate of timm's ``CosineLRScheduler`` with ``warmup_prefix=False`` and one cycle of all epochs."""
    if at < recipe.warmup_epochs:
        return recipe.warmup_from + (peak - recipe.warmup_from) * at / recipe.warmup_epochs
    share = min(1.0, at / recipe.epochs)
    return recipe.learning_rate_end + (peak - recipe.learning_rate_end) * 0.5 * (1 + math.cos(math.pi * share))


def _swad_rate(recipe: Recipe, peak: float) -> float:
    return recipe.swad_learning_rate or peak / 2


def parameter_groups(objective: Objective, recipe: Recipe) -> list[dict[str, Any]]:
    """Sort the parameters by their highest learning rate and weight decay; leave out those that are frozen."""
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    names = [name for name, _ in objective.named_parameters()]
    for pattern in recipe.frozen:
        if not any(fnmatch(name, pattern) for name in names):
            raise RecipeError(f"frozen: no parameter has a name like '{pattern}'; there are {first_of(names)}.")
    for name, parameter in objective.named_parameters():
        if any(fnmatch(name, pattern) for pattern in (*recipe.frozen, *recipe.frozen_where_there)):
            parameter.requires_grad = False
        if parameter.requires_grad:
            # A temperature and a variance are no weights: 0 is not where they ought to go.
            scalar = name.endswith("log_temperature") or name.startswith("miro.")
            key = (_peak(name, recipe, objective), _factor(name, recipe), 0.0 if scalar else recipe.weight_decay)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise RecipeError("frozen: nothing is left to train.")
    return [
        {"params": parameters, "lr": peak * factor, "peak": peak, "factor": factor, "weight_decay": decay}
        for (peak, factor, decay), parameters in groups.items()
    ]


def _peak(name: str, recipe: Recipe, objective: Objective) -> float:
    rates = recipe.learning_rate
    if not isinstance(rates, dict):
        return rates
    owners = {
        one: (f"network.body.bodies.{place}.", f"losses.{objective.loss_place.get(one)}.")
        for place, one in enumerate(objective.tokens)
    }
    return next((rates[one] for one, starts in owners.items() if name.startswith(starts)), min(rates.values()))


def _factor(name: str, recipe: Recipe) -> float:
    if name.startswith("losses.") and not name.endswith("log_temperature"):
        return recipe.proxy_rate
    return recipe.miro_rate if name.startswith("miro.") else 1.0


def check_rates(recipe: Recipe, spec: Spec) -> None:
    """Make sure that a table of learning rates is one of the network's configurations, each with a body of its own."""
    rates = recipe.learning_rate
    if isinstance(rates, dict) and recipe.epochs:
        if strategy_class(recipe.strategy).shares_body:
            raise RecipeError(f"learning_rate: {recipe.strategy} has one body for all configurations: give one number.")
        missing = sorted(spec.configurations.keys() - rates.keys())
        if missing:
            raise RecipeError(f"learning_rate: has none for {', '.join(missing)}.")
