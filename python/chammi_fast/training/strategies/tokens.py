"""Parameters that belong to channels: by token, by channel name, or by configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chammi_fast.spec import Token


@dataclass(frozen=True)
class Vocabulary:
    """The channels that a network knows.

    Attributes
    ----------
    tokens : those of the configurations' channels first, averages last, as `chammi_fast.spec.with_averages` puts them
    configurations : configuration name -> token names in tape order
    """

    tokens: tuple[Token, ...]
    configurations: Mapping[str, tuple[str, ...]]

    @property
    def own(self) -> list[str]:
        """Names of the tokens that are no averages."""
        return [token.name for token in self.tokens if not token.members]

    @property
    def names(self) -> list[str]:
        """Channel names without their configurations, sorted, each once: "nucleus" for "CP/nucleus"."""
        return sorted({_bare(name) for name in self.own})

    def each_its_own(self) -> list[int]:
        """Return a row for every token."""
        return list(range(len(self.own)))

    def by_name(self) -> list[int]:
        """Return each token's row where tokens of one channel name share a row, in the order of `names`."""
        return [self.names.index(_bare(name)) for name in self.own]

    def by_configuration(self) -> list[int]:
        """Return each token's row where the tokens of one configuration share a row."""
        channels = list(self.configurations.values())
        return [next(row for row, names in enumerate(channels) if name in names) for name in self.own]


def _bare(name: str) -> str:
    return name.rpartition("/")[2]


class TokenTable(nn.Module):
    """Rows of parameters that tokens refer to, each to one, or several to the same one.

    Average tokens have no parameters of their own: what they refer to is the mean of their members' rows.

    Parameters
    ----------
    vocabulary : the tokens
    rows : (R, width) start of the rows
    row_of : row of each token that is no average; see `Vocabulary`
    """

    assignment: Tensor

    def __init__(self, vocabulary: Vocabulary, rows: Tensor, row_of: Sequence[int]) -> None:
        super().__init__()
        own = vocabulary.own
        averages = [token.members for token in vocabulary.tokens if token.members]
        self.rows = nn.Parameter(rows)
        direct = torch.eye(len(rows))[list(row_of)]
        means = [direct[[own.index(member) for member in members]].mean(0) for members in averages]
        self.register_buffer("assignment", torch.cat([direct, *(mean[None] for mean in means)]), persistent=False)

    def table(self) -> Tensor:
        """Return (T, width): what each token refers to, in the order of the vocabulary."""
        return self.assignment @ self.rows

    def extend(self, members: Sequence[Sequence[int]]) -> None:
        """Append tokens to the vocabulary that refer to the means of what other tokens, by their ids, refer to."""
        means = [self.assignment[list(ids)].mean(0) for ids in members]
        self.assignment = torch.stack([*self.assignment, *means])

    def complete(self) -> None:
        """Give every token a row of its own, once and for all, for export; training ends here."""
        self.rows = nn.Parameter(self.table().detach(), requires_grad=False)
        self.assignment = torch.eye(len(self.rows))[:0]

    def forward(self, channels: Tensor) -> Tensor:
        """Return the rows (C, width) of int64 token ids (C,)."""
        table = self.table() if len(self.assignment) else self.rows
        return table.index_select(0, channels)
