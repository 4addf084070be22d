"""The mutants that `make mutants` judges tests by: what is changed, what is left alone, and who notices."""

from collections.abc import Mapping

import pytest
from mutants import ROOT, TESTS
from mutations import Mutant, mutants

SOURCE = '''
"""A text."""

def clip(value: int | float, low=0.0, *, most: float = 2.5) -> float:
    """Another text."""
    if value < low and not most:
        raise ValueError(f"value {value} + 1")
    kept = max(value, low)
    return kept * 2
'''


def values(mutant: Mutant) -> Mapping[str, object]:
    """What the changed module defines."""
    names: dict[str, object] = {}
    exec(mutant.code, names)
    return names


@pytest.fixture(scope="module")
def made() -> dict[str, Mutant]:
    return {mutant.change: mutant for mutant in mutants(SOURCE, "clip.py")}


@pytest.mark.parametrize(
    "change",
    [
        "value < low  ->  value <= low",
        "value < low and (not most)  ->  value < low or not most",
        "value < low and (not most)  ->  value < low",
        "not most  ->  most",
        "max  ->  min",
        "kept * 2  ->  kept / 2",
        "2  ->  3",
        "0.0  ->  1.0",
        "2.5  ->  5.0",
        "return kept * 2  ->  return None",
        "raise ValueError(f'value {value} + 1')  ->  pass",
    ],
)
def test_a_mutant_is_the_module_with_one_thing_wrong(made: dict[str, Mutant], change: str) -> None:
    assert change in made


def test_a_mutant_does_what_it_says(made: dict[str, Mutant]) -> None:
    for change, expected in {"max  ->  min": 0, "kept * 2  ->  kept / 2": 1.5, "2  ->  3": 9}.items():
        clip = values(made[change])["clip"]
        assert callable(clip)
        assert clip(3) == expected


def test_texts_types_and_messages_are_left_alone(made: dict[str, Mutant]) -> None:
    assert not [change for change in made if "text" in change or "int" in change]
    assert not [change for change in made if change.startswith(("f'", "value  ", "1  "))]


@pytest.mark.parametrize("module", TESTS)
def test_every_module_that_is_mutated_and_its_tests_are_there(module: str) -> None:
    assert (ROOT / module).is_file()
    for tests in TESTS[module]:
        file, _, name = tests.partition("::")
        assert f"def {name}" in (ROOT / "tests" / file).read_text(encoding="utf-8")
