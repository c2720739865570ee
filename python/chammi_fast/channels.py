"""The channel grammar, the same everywhere a user names channels.

An ordered, comma-separated list of ``NAME`` or ``SOURCE=NAME``, where SOURCE is the user's own name for a channel (a
LoadData column, say) and NAME one of the model's; or the name of one configuration alone. ``CP/nucleus`` is exactly
one token; a bare ``nucleus`` that several configurations have is the average of their tokens.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chammi_fast.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.spec import Spec

UnknownPolicy = Literal["error", "mean"]


@dataclass(frozen=True)
class Channel:
    """One channel of the input, in input order.

    Attributes
    ----------
    source : the user's name for it
    token : the name of the model's token
    token_id : its place in the model's vocabulary
    mean, std : of the token's pixels scaled to [0, 1]
    """

    source: str
    token: str
    token_id: int
    mean: float
    std: float


def resolve_channels(text: str | Sequence[str], spec: Spec, *, unknown: UnknownPolicy = "error") -> tuple[Channel, ...]:
    """Turn a list in the channel grammar into the model's tokens.

    Parameters
    ----------
    text : "nucleus,er", "DNA=nucleus,ER=er", "CP", or a sequence of the list's items
    unknown : what an unknown name means: an error, or the mean of all known tokens

    Raises
    ------
    ChannelError
        If the list is empty, repeats a source or a token, names a channel that the model lacks, or is not the whole of
        one configuration where the model takes nothing else.
    """
    items = [item.strip() for item in (text.split(",") if isinstance(text, str) else text)]
    if len(items) == 1 and items[0] in spec.configurations:
        items = list(spec.configurations[items[0]])
    pairs = [_split_item(item) for item in items]
    _check_unique([source for source, _ in pairs])
    channels = tuple(_channel(source, name, spec, unknown) for source, name in pairs)
    tokens = [channel.token for channel in channels]
    _check_unique([token for token in tokens if token != "*"])
    if spec.accepts == "configurations" and set(tokens) not in [set(names) for names in spec.configurations.values()]:
        raise ChannelError(
            f"channels: a {spec.strategy} model takes all channels of one configuration ("
            f"{', '.join(spec.configurations)}), not {', '.join(tokens)}."
        )
    return channels


def _split_item(item: str) -> tuple[str, str]:
    source, equals, name = (part.strip() for part in item.partition("="))
    name = name if equals else source
    if not source or not name:
        raise ChannelError(f"channels: '{item}' is empty or incomplete: write NAME or SOURCE=NAME.")
    return source, name


def _check_unique(sources: list[str]) -> None:
    repeated = sorted({source for source in sources if sources.count(source) > 1})
    if repeated:
        raise ChannelError(f"channels: '{repeated[0]}' is named more than once.")


def _channel(source: str, name: str, spec: Spec, unknown: UnknownPolicy) -> Channel:
    token_name = _find(name, spec)
    if token_name is None:
        if (unknown == "error" and spec.accepts != "any") or "*" not in spec.token_ids:
            raise ChannelError(_unknown_message(name, spec))
        token_name = "*"
    token_id = spec.token_ids[token_name]
    token = spec.tokens[token_id]
    return Channel(source=source, token=token_name, token_id=token_id, mean=token.mean, std=token.std)


def _find(name: str, spec: Spec) -> str | None:
    if name in spec.token_ids:
        return name
    qualified = [known for known in spec.token_ids if known.rpartition("/")[2] == name]
    return qualified[0] if len(qualified) == 1 else None


def _unknown_message(name: str, spec: Spec) -> str:
    vocabulary = [known for known in spec.token_ids if known != "*"]
    written = {known.rpartition("/")[2].lower(): known for known in vocabulary}
    written |= {known.lower(): known for known in (*vocabulary, *spec.configurations)}
    near = [written[match] for match in difflib.get_close_matches(name.lower(), written, n=3)]
    hint = f" (did you mean {' or '.join(dict.fromkeys(near))}?)" if near else ""
    configurations = f"; configurations: {', '.join(spec.configurations)}" if spec.configurations else ""
    return f"channels: the model has no channel '{name}'{hint}; it knows {', '.join(vocabulary)}{configurations}."
