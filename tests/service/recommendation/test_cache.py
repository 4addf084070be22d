"""The cache is bounded, forgets what was used least recently, tells bundles, precisions and texts apart."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from preforch_service.recommendation.cache import Cache, text_key


def test_the_least_recently_used_answer_goes_first() -> None:
    cache: Cache[int] = Cache(2)
    cache.put(b"a", 1)
    cache.put(b"b", 2)
    assert cache.get(b"a") == 1
    cache.put(b"c", 3)
    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")) == (1, None, 3)


def test_no_entries_keep_nothing() -> None:
    cache: Cache[int] = Cache(0)
    cache.put(b"a", 1)
    assert cache.get(b"a") is None


@given(entries=st.integers(0, 5), puts=st.lists(st.integers(0, 9)))
def test_it_holds_the_last_distinct_ones_and_never_more_than_its_bound(entries: int, puts: list[int]) -> None:
    cache: Cache[int] = Cache(entries)
    for number in puts:
        cache.put(bytes([number]), number)
        assert len(cache) <= entries
    newest = list(dict.fromkeys(reversed(puts)))[:entries]
    assert [number for number in range(10) if cache.get(bytes([number])) is not None] == sorted(newest)


def test_keys_are_short_and_differ_by_bundle_precision_and_text() -> None:
    combinations = product(("r1", "r2"), ("fp32", "int8"), ("", "hello", "hello ", "word " * 10_000))
    keys = {text_key(revision, precision)(text) for revision, precision, text in combinations}
    assert len(keys) == 16
    assert {len(key) for key in keys} == {16}
    assert text_key("r1", "fp32")("hello") == text_key("r1", "fp32")("hello")
