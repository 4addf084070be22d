"""Rows of several responses: a choice, a strength, or scores, and what makes no pair."""

from typing import Any

import pytest
from preforch_training.data.config import Source
from preforch_training.data.rows.choices import read_choices
from preforch_training.data.rows.record import BadRow
from pydantic import ValidationError

ROW: dict[str, Any] = {"prompt": "q", "x": "a", "y": "b"}
TWO = {"responses": ["x", "y"]}


def read(row: dict[str, Any], **options: Any) -> tuple[set[tuple[str, str, str]], dict[str, int]]:
    """(objective, chosen, rejected), and what was left out."""
    source = Source.model_validate({"path": "x.jsonl", "columns": TWO, **options})
    found = read_choices({**ROW, **row}, source)
    return {(pair.objective, pair.chosen, pair.rejected) for pair in found.pairs}, dict(+found.left_out)


@pytest.mark.parametrize(
    ("value", "chosen"), [(0, "a"), (1, "b"), ("1", "b"), (1.0, "b"), ("1.0", "b"), ("0", "a")]
)
def test_a_choice_is_the_number_of_a_response(value: object, chosen: str) -> None:
    rejected = {"a": "b", "b": "a"}[chosen]
    assert read({"best": value}, better={"funny": "best"}) == ({("funny", chosen, rejected)}, {})


def test_a_choice_may_have_labels_and_ties() -> None:
    options = {"better": {"funny": "best"}, "labels": ["model_a", "model_b"], "ties": ["tie"]}
    assert read({"best": "model_b"}, **options) == ({("funny", "b", "a")}, {})
    assert read({"best": "tie"}, **options) == (set(), {"funny: ties": 1})
    for missing in (None, float("nan"), "N/A"):
        assert read({"best": missing}, **options) == (set(), {"funny: missing": 1})
    with pytest.raises(BadRow, match="column 'best' is missing"):
        read({}, **options)
    with pytest.raises(BadRow, match=r"'best' must name.*\['model_a', 'model_b', 'tie'\], got 'model_c'"):
        read({"best": "model_c"}, **options)


@pytest.mark.parametrize("value", [True, "true", "True"])
def test_true_and_false_need_labels_that_say_which_response_is_meant(value: object) -> None:
    options = {"better": {"funny": "first_is_better"}, "labels": ["true", "false"]}
    if value == "True":
        options["labels"] = ["True", "False"]
    assert read({"first_is_better": value}, **options) == ({("funny", "a", "b")}, {})


def test_a_list_that_has_more_responses_than_are_named_is_refused() -> None:
    options = {"columns": {"responses": ["rs.0", "rs.1"]}, "better": "best"}
    assert read({"rs": ["a", "b"], "best": 0}, **options)[0] == {("overall", "a", "b")}
    with pytest.raises(
        BadRow, match=r"column 'rs' is a list of which the source names \[0, 1\].*'3 entries'"
    ):
        read({"rs": ["a", "b", "c"], "best": 0}, **options)


@pytest.mark.parametrize("value", [2, -1, 0.5, float("inf"), "x", [0], {}, True, False])
def test_another_choice_is_refused(value: object) -> None:
    with pytest.raises(
        BadRow, match=r"column 'best' must name the better response: allowed are \['0', '1'\]"
    ):
        read({"best": value}, better={"funny": "best"})


def test_the_best_of_several_beats_each_other_one() -> None:
    columns = {"responses": ["x", "y", "z.0"]}
    found = read({"z": ["c"], "best": 2}, columns=columns, better={"funny": "best"})
    assert found == ({("funny", "c", "a"), ("funny", "c", "b")}, {})


@pytest.mark.parametrize(
    ("value", "column", "expected"),
    [
        (-2, "by", ("a", "b")),
        (2, "by", ("b", "a")),
        (2, "-by", ("a", "b")),
        ("-2", "by", ("a", "b")),
        (0, "by", "ties"),
        (1, "by", "ties"),
        (None, "by", "missing"),
        ("N/A", "by", "missing"),
    ],
)
def test_a_strength_says_by_its_sign_which_is_better(value: object, column: str, expected: Any) -> None:
    found = read({"by": value}, strength={"funny": column}, min_gap=2)
    if isinstance(expected, str):
        assert found == (set(), {f"funny: {expected}": 1})
    else:
        assert found == ({("funny", *expected)}, {})


@pytest.mark.parametrize("value", [True, False, "true", "False"])
def test_true_and_false_are_no_strength(value: object) -> None:
    with pytest.raises(BadRow, match="column 'by' must be a signed number"):
        read({"by": value}, strength={"funny": "by"})


def test_scores_of_the_responses_of_a_row_are_compared_with_each_other() -> None:
    ratings = {"funny": ["score_x", "score_y"], "safe": ["-score_x", "-score_y"]}
    pairs = {("funny", "a", "b"), ("safe", "b", "a")}
    assert read({"score_x": 5, "score_y": 3}, ratings=ratings, min_gap=2) == (pairs, {})
    assert read({"score_x": 4, "score_y": 3}, ratings=ratings, min_gap=2) == (
        set(),
        {"funny: ties": 1, "safe: ties": 1},
    )
    assert read({"score_x": 4, "score_y": None}, ratings=ratings) == (
        set(),
        {"funny: missing": 1, "safe: missing": 1},
    )


def test_a_column_alone_compares_by_the_objective_of_the_source() -> None:
    assert read({"best": 1}, better="best", objective="funny") == ({("funny", "b", "a")}, {})
    assert read({"by": -1}, strength="by") == ({("overall", "a", "b")}, {})


def test_objectives_of_one_row_may_disagree() -> None:
    found = read({"best": 1, "safer": 0}, better={"helpful": "best", "harmless": "safer"})
    assert found == ({("helpful", "b", "a"), ("harmless", "a", "b")}, {})


def test_equal_responses_are_refused_or_left_out() -> None:
    with pytest.raises(BadRow, match="the responses are all the same"):
        read({"y": "a ", "best": 0}, better={"funny": "best"})
    found = read({"z": "a", "best": 0}, columns={"responses": ["x", "y", "z"]}, better={"funny": "best"})
    assert found == ({("funny", "a", "b")}, {"equal responses": 1})


def test_responses_that_are_whole_conversations_have_their_prompt_in_common() -> None:
    asked = [{"role": "user", "content": "q"}]
    sides = {key: [*asked, {"role": "assistant", "content": text}] for key, text in (("x", "a"), ("y", "b"))}
    source = Source.model_validate(
        {"path": "x", "columns": {**TWO, "prompt": "off"}, "better": {"overall": "best"}}
    )
    found = read_choices({**sides, "best": 0}, source)
    assert [turn.content for turn in found.prompt.messages] == ["q"]
    assert found.pairs == (("overall", "a", "b"),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {}, "better": {"a": "b"}}, "columns.responses must name them"),
        ({"columns": {}, "strength": {"a": "b"}}, "columns.responses must name them"),
        ({"columns": {}, "ratings": {"a": ["b", "c"]}}, "columns.responses must name them"),
        ({"columns": {"responses": ["x"]}, "better": {"a": "b"}}, "must name 2 or more columns"),
        ({"columns": {"responses": ["x", "y", "x"]}, "better": {"a": "b"}}, "all different"),
        ({"better": {"a": "b"}, "labels": ["x", "x"]}, "must all differ"),
        ({"better": {"a": "b"}, "labels": ["x", "y"], "ties": ["x"]}, "must all differ"),
        ({"better": {"a": "b"}, "ties": ["0"]}, "must all differ"),
        ({"better": {"a": "b"}, "labels": ["N/A", "y"]}, "must all differ"),
        ({"better": "b", "objective": ["x"]}, "objective"),
        ({"better": {"a": "b"}, "min_gap": 1.0}, "min_gap does nothing without ratings or strength"),
        ({"better": {"a": "b"}, "pairs_per_prompt": 3}, "pairs_per_prompt does nothing without ratings of"),
        ({"better": {"a": "b"}, "data_dir": "x"}, "data_dir does nothing without a dataset"),
        ({"strength": {"a": "b"}, "ties": ["x"]}, "ties does nothing without better"),
        ({"columns": {}, "missing": ["x"]}, "missing does nothing without better, strength or ratings"),
        (
            {"columns": {**TWO, "objective": "o"}, "better": {"a": "b"}},
            "columns.objective does nothing",
        ),
        ({"dataset": "a/b", "columns": {}}, "exactly one of path and dataset"),
        ({}, "columns.responses needs better, strength or ratings"),
        (
            {"columns": {"responses": ["x", "y", "z"]}, "strength": {"a": "b"}},
            "strength compares 2 responses",
        ),
        ({"ratings": {"a": "b"}}, "ratings.a must name a column for each of the 2 responses"),
        ({"ratings": {"a": ["b"]}}, "ratings.a must name a column for each of the 2 responses"),
        ({"better": {"a": "b"}, "labels": ["x"]}, "must name each of the 2 columns.responses"),
        ({"better": {"a": "b"}, "strength": {"a": "c"}}, "compared in one way only"),
        ({"ratings": {"a": ["b", "c"]}, "overall": "min"}, "rows with one response"),
        ({"columns": {}, "pairs": "off", "ratings": {"a": "b"}}, "pairs = 'off' reads prompts alone"),
        (
            {"columns": {"system": "chosen"}},
            "columns.chosen is 'chosen', and so is columns.system",
        ),
        ({"columns": {"rejected": "chosen"}}, "columns.rejected is 'chosen', and so is columns.chosen"),
        (
            {"columns": {**TWO, "system": TWO["responses"][0]}, "better": {"a": "b"}},
            "columns.system .* so is columns.responses",
        ),
        ({"columns": {"objective": "prompt"}}, "columns.prompt is 'prompt', and so is columns.objective"),
        (
            {"columns": {"system": "response"}, "ratings": {"a": "b"}},
            "columns.response is 'response', and so is columns.system",
        ),
        ({"columns": {}, "each": ""}, "each"),
        ({"columns": {}, "transcript": {"user": "U:", "assistant": " U:"}}, "marks must differ"),
        ({"columns": {}, "transcript": {"user": "U:", "assistant": "A:", "end": "A:"}}, "marks must differ"),
        ({"columns": {}, "transcript": {"user": " ", "assistant": "A:"}}, "be more than white space"),
    ],
)
def test_settings_that_do_not_go_together_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Source.model_validate({"path": "x.jsonl", "columns": TWO, **options})
