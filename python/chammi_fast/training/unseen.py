"""Give a trained network a configuration that it was not trained on (section 4.3 of the CHAMMI paper)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from chammi_fast.errors import TrainingError
from chammi_fast.spec import Token
from chammi_fast.training.strategies import TokenTable, strategy_class

if TYPE_CHECKING:
    from chammi_fast.spec import Spec
    from chammi_fast.training.create import Configuration
    from chammi_fast.training.network import ChannelAdaptiveNetwork


def add_configuration(network: ChannelAdaptiveNetwork, spec: Spec, configuration: Configuration) -> Spec:
    """Add a configuration's tokens to a network, in place, and return its new description.

    A channel whose name the network knows from other configurations stands for their mean. Any other one stands for
    what the strategy makes of it: the mean of all channels, or, where filters are replicated or dropped (Depthwise),
    the known channels that the configuration does not name, one after the other and over again.

    Raises
    ------
    TrainingError
        If what the network learned belongs to its configurations as wholes (TargetParam, FixedChannels).
    """
    check_unseen(spec.strategy)
    own = [token.name for token in spec.tokens if not token.members]
    bare = [name.rpartition("/")[2] for name in own]
    spare = [name for name, channel in zip(own, bare, strict=True) if channel not in configuration.channels] or own
    turns = itertools.cycle(spare)
    kind = strategy_class(spec.strategy)
    tokens = []
    for name, channel, mean, std in zip(
        configuration.tokens, configuration.channels, configuration.mean, configuration.std, strict=True
    ):
        members = tuple(one for one, known in zip(own, bare, strict=True) if known == channel)
        if not members:
            members = tuple(own) if kind.unseen == "mean" else (next(turns),)
        tokens.append(Token(name, mean if kind.normalised else 0.0, std if kind.normalised else 1.0, members))
    tokens += _new_averages(spec, tokens)
    for module in network.modules():
        if isinstance(module, TokenTable):
            module.extend([[spec.token_ids[member] for member in token.members] for token in tokens])
    return msgspec.structs.replace(
        spec,
        tokens=(*spec.tokens, *tokens),
        configurations={**spec.configurations, configuration.name: configuration.tokens},
    )


def _new_averages(spec: Spec, added: list[Token]) -> list[Token]:
    """Return averages for bare names that one token had, and now two have: the name goes on to mean the same."""
    averages = []
    for token in added:
        bare = token.name.rpartition("/")[2]
        if bare not in spec.token_ids and (
            known := [one for one in spec.tokens if one.name.rpartition("/")[2] == bare]
        ):
            both = [*known, token]
            mean, std = (sum(getattr(one, name) for one in both) / len(both) for name in ("mean", "std"))
            averages.append(Token(bare, mean, std, token.members))
    return averages


def check_unseen(strategy: str) -> None:
    """Make sure that a strategy can do something with channels that it was not trained on."""
    if strategy_class(strategy).accepts == "configurations":
        raise TrainingError(f"strategy '{strategy}' has no filters for the channels of a data set that is held out.")
