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


def rate(recipe: Recipe, peak: float, epoch: int, step: int, steps: int) -> float:
    """Learning rate of a step: up along a line, down along a cosine; under SWAD down to its own rate, and constant."""
    at = epoch if recipe.schedule == "epoch" else epoch + step / steps
    if at < recipe.warmup_epochs:
        return recipe.warmup_from + (peak - recipe.warmup_from) * at / recipe.warmup_epochs
    end, last = recipe.learning_rate_end, float(recipe.epochs)
    if recipe.swad_from is not None:
        end, last = recipe.swad_learning_rate or peak / 2, max(recipe.swad_from, recipe.warmup_epochs)
    share = 1.0 if at >= last else (at - recipe.warmup_epochs) / (last - recipe.warmup_epochs)
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * share))


def parameter_groups(objective: Objective, recipe: Recipe) -> list[dict[str, Any]]:
    """Sort the parameters by their highest learning rate and weight decay; leave out those that are frozen."""
    groups: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    names = [name for name, _ in objective.named_parameters()]
    for pattern in recipe.frozen:
        if not any(fnmatch(name, pattern) for name in names):
            raise RecipeError(f"frozen: no parameter has a name like '{pattern}'; there are {first_of(names)}.")
    for name, parameter in objective.named_parameters():
        if any(fnmatch(name, pattern) for pattern in recipe.frozen):
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
