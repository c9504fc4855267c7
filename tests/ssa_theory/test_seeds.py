"""Seeds: what a seed names does not depend on what else is drawn."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa_theory import Stream, member_generator

SEEDS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**63, 2**64 - 1]))


@given(SEEDS, st.sampled_from(Stream))
def test_the_same_name_gives_the_same_bits(seed: int, stream: Stream) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (to see that nobody touches it)
    first, again = (member_generator(seed, stream).standard_normal(50) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@given(SEEDS, SEEDS)
def test_every_seed_and_stream_is_its_own(seed: int, other: int) -> None:
    names = {(s, stream) for s in (seed, other, seed ^ 1) for stream in Stream}
    draws = {tuple(member_generator(s, stream).integers(0, 2**63, 4)) for s, stream in names}
    assert len(draws) == len(names)


def test_streams_are_uncorrelated() -> None:
    draws = np.array(
        [member_generator(s, stream).standard_normal(4000) for s in range(4) for stream in Stream]
    )
    correlation = np.corrcoef(draws)[np.triu_indices(len(draws), 1)]
    assert np.abs(correlation).max() < 5.5 / np.sqrt(4000)
    assert np.abs(draws.mean(1)).max() < 5.5 / np.sqrt(4000)


def test_drawing_in_parts_gives_the_same_numbers() -> None:
    whole = member_generator(7, Stream.DATA).random(100)
    generator = member_generator(7, Stream.DATA)
    np.testing.assert_array_equal(np.concatenate([generator.random(n) for n in (1, 30, 69)]), whole)


def test_stream_numbers_are_part_of_every_stored_result() -> None:
    assert {s.name: int(s) for s in Stream}.items() >= {
        "GRAPH": 0,
        "EMBEDDING": 1,
        "PARAMETER": 2,
        "DATA": 3,
        "EVALUATION": 4,
    }.items()
    assert len({int(s) for s in Stream}) == len(Stream)
    pinned = [int(member_generator(s, Stream.DATA).integers(0, 1000)) for s in (0, 1, 2**64 - 1)]
    raw = [np.random.Philox(key=s + (3 << 64)).random_raw() for s in (0, 1, 2**64 - 1)]
    # integers(0, 1000) takes the lower half of a raw word first, and Lemire's method scales it
    assert pinned == [((r & 0xFFFFFFFF) * 1000) >> 32 for r in raw]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_bad_seeds(seed: int) -> None:
    for stream in itertools.islice(Stream, 2):
        with pytest.raises(
            ValueError, match=rf"a seed must lie in \[0, 2\^64\), got {seed}: choose a non-negative"
        ):
            member_generator(seed, stream)


@pytest.mark.parametrize("seed", [0, 3, 2**64 - 1])
@pytest.mark.parametrize("stream", list(Stream))
def test_the_key_of_the_generator_is_the_seed_and_the_stream(seed: int, stream: Stream) -> None:
    plain = np.random.Generator(
        np.random.Philox(key=np.array([seed, int(stream)], dtype=np.uint64))
    )
    drawn = member_generator(seed, stream)
    assert drawn.standard_normal(5).tolist() == plain.standard_normal(5).tolist()
    assert drawn.integers(0, 2**63, 5).tolist() == plain.integers(0, 2**63, 5).tolist()
