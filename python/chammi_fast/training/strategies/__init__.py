"""The seven ways to feed images of any channels to one network.

A strategy is one class: tokens in, stem out. To add one, subclass `Strategy`, keep whatever belongs to a token in a
`TokenTable` (which supplies the average tokens), return the stem's weights, and enter the class in `STRATEGIES`.
Formulas and starts: Chen et al., "CHAMMI", NeurIPS 2023, and its published training code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chammi_fast.errors import ExportError
from chammi_fast.training.strategies.base import Stem, Strategy
from chammi_fast.training.strategies.depthwise import Depthwise
from chammi_fast.training.strategies.generated import HyperNet, SliceParam, TemplateMixing
from chammi_fast.training.strategies.own_heads import ChannelReplication, FixedChannels, TargetParam
from chammi_fast.training.strategies.tokens import TokenTable, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STRATEGIES", "Stem", "Strategy", "TokenTable", "Vocabulary", "create_strategy", "strategy_class"]

STRATEGIES: dict[str, type[Strategy]] = {
    "fixedchannels": FixedChannels,
    "channelreplication": ChannelReplication,
    "depthwise": Depthwise,
    "targetparam": TargetParam,
    "sliceparam": SliceParam,
    "templatemixing": TemplateMixing,
    "hypernet": HyperNet,
}


def create_strategy(name: str, stem: Stem, vocabulary: Vocabulary, options: Mapping[str, Any]) -> Strategy:
    """Create a strategy with its start weights.

    Parameters
    ----------
    name : a key of `STRATEGIES`
    options : keywords of the strategy, where the published settings are not wanted

    Raises
    ------
    ExportError
        If there is no such strategy, or it has no such option.
    """
    kind = strategy_class(name)
    for key, value in options.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ExportError(f"strategy '{name}': {key} must be at least 1, not {value}.")
    try:
        return kind(stem, vocabulary, **options)
    except (TypeError, ValueError) as error:
        raise ExportError(f"strategy '{name}': {error}.") from None


def strategy_class(name: str) -> type[Strategy]:
    """Return the class of a strategy.

    Raises
    ------
    ExportError
        If there is no such strategy.
    """
    if name not in STRATEGIES:
        raise ExportError(f"there is no strategy '{name}': choose from {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]
