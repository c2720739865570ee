"""The channel grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi_fast.chammi import DATA_SETS
from chammi_fast.channels import resolve_channels
from chammi_fast.errors import ChannelError
from chammi_fast.spec import Spec, Token, with_averages

REAL = tuple(
    Token(name, mean, std)
    for data_set in DATA_SETS.values()
    for name, mean, std in zip(data_set.tokens, data_set.mean, data_set.std, strict=True)
)
SPEC = Spec(
    strategy="hypernet",
    backbone="any",
    tokens=with_averages(REAL),
    configurations={data_set.name: data_set.tokens for data_set in DATA_SETS.values()},
    embedding_size=8,
)


def names(text: str) -> list[str]:
    return [channel.token for channel in resolve_channels(text, SPEC)]


def test_a_configuration_alone_is_its_channels_in_tape_order() -> None:
    assert names("CP") == ["CP/nucleus", "CP/er", "CP/rna", "CP/golgi", "CP/mito"]


def test_names_sources_and_qualified_names() -> None:
    channels = resolve_channels("DNA=CP/nucleus, AGP = golgi,mito", SPEC)
    assert [(c.source, c.token) for c in channels] == [("DNA", "CP/nucleus"), ("AGP", "CP/golgi"), ("mito", "CP/mito")]
    assert [SPEC.tokens[c.token_id].name for c in channels] == [c.token for c in channels]
    assert channels[0].mean == pytest.approx(0.09957533)


def test_a_shared_bare_name_averages_statistics() -> None:
    (nucleus,) = resolve_channels("nucleus", SPEC)
    assert nucleus.token == "nucleus"
    assert nucleus.mean == pytest.approx((0.17299604 + 0.064044476 + 0.09957533) / 3)
    assert nucleus.std == pytest.approx((0.1803914 + 0.0885671 + 0.077283904) / 3)


def test_unknown_names_are_errors_with_near_misses_or_the_mean() -> None:
    with pytest.raises(
        ChannelError, match=r"no channel 'nuclei'.*did you mean .*nucleus.*configurations: Allen, HPA, CP"
    ):
        names("nuclei")
    (channel,) = resolve_channels("tubulin", SPEC, unknown="mean")
    assert channel.token == "*"
    assert channel.mean == pytest.approx(sum(t.mean for t in REAL) / 12)


def test_near_misses_are_names_that_work() -> None:
    with pytest.raises(ChannelError, match=r"did you mean CP/nucleus"):
        names("cp/nucleus")
    with pytest.raises(ChannelError, match=r"did you mean CP\?"):
        names("cp")


@pytest.mark.parametrize("text", ["", "er,,rna", "DNA=", "=er", "er,er", "DNA=er,DNA=rna", "a=CP/er,b=CP/er"])
def test_malformed_lists_are_refused(text: str) -> None:
    with pytest.raises(ChannelError, match="channels: '"):
        names(text)


@given(st.permutations([token.name for token in REAL]))
def test_order_is_kept(order: list[str]) -> None:
    assert names(",".join(order)) == order
