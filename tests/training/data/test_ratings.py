"""Rated responses: which two of a prompt are a pair, which is chosen, and what is said of a bad rating."""

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from preforch_models.manifest import read_manifest
from preforch_training.config import RunConfig
from preforch_training.data.config import Source
from preforch_training.data.rows.ratings import Rated, mean_ratings, rated_pairs, read_rated
from preforch_training.pipeline import open_run
from preforch_training.records import PreferencePair, Prompt, RecordError, by_id
from pydantic import ValidationError
from small_world import build, make_config, pair_rows, questions, write_rows

RATINGS = {"funny": "funny", "safe": "-scores.danger"}


def rated(response: str, funny: float, safe: float) -> Rated:
    return Rated(response=response, ratings={"funny": funny, "safe": safe})


def read(row: dict[str, Any], **options: Any) -> Rated:
    """The rated response of a row."""
    source = Source.model_validate({"path": "rated.jsonl", "ratings": RATINGS, **options})
    return read_rated({"prompt": "q", **row}, source)[1]


def pairs_of(
    pool: list[Rated],
    *,
    overall: Literal["off", "min"] = "off",
    min_gap: float = 1e-6,
    limit: int = 100,
    seed: int = 1,
    prompt_id: str = "p",
) -> set[tuple[str, str, str]]:
    """(objective, chosen, rejected) of a pool."""
    found, _ = rated_pairs(
        pool, prompt_id=prompt_id, overall=overall, min_gap=min_gap, limit=limit, seed=seed
    )
    return {(pair.objective, pair.chosen, pair.rejected) for pair in found.values()}


def test_every_two_responses_that_were_rated_apart_are_a_pair_and_ties_are_none() -> None:
    pool = [rated("a", 1, 0), rated("b", 0.5, 0), rated("c", 0, 1)]
    assert pairs_of(pool) == {
        ("funny", "a", "b"),
        ("funny", "a", "c"),
        ("funny", "b", "c"),
        ("safe", "c", "a"),
        ("safe", "c", "b"),
    }


def test_as_many_pairs_as_asked_come_of_a_thousand_responses() -> None:
    pool = [rated(f"r{i}", i, 0) for i in range(300)]
    assert len(pairs_of(pool, limit=5)) == 5


def test_one_response_is_no_pair() -> None:
    assert pairs_of([rated("a", 1, 0)], overall="min") == set()


@pytest.mark.parametrize(
    ("low", "high", "min_gap", "expected"),
    [(0.65, 0.75, 0.1, True), (0.65, 0.75, 0.11, False), (0.0, 1.0, 1.0, True), (0.5, 1.0, 1.0, False)],
)
def test_a_pair_needs_a_gap_at_least_as_large_as_asked(
    low: float, high: float, min_gap: float, expected: bool
) -> None:
    assert bool(pairs_of([rated("a", low, 0), rated("b", high, 0)], min_gap=min_gap)) is expected


def test_overall_compares_the_lowest_ratings_so_that_all_labels_beat_the_rest() -> None:
    pool = [rated("both", 1, 1), rated("funny only", 1, 0), rated("safe only", 0, 1), rated("neither", 0, 0)]
    overall = {pair for pair in pairs_of(pool, overall="min") if pair[0] == "overall"}
    assert overall == {("overall", "both", other) for other in ("funny only", "safe only", "neither")}
    assert pairs_of(pool) == pairs_of(pool, overall="min") - overall


def test_a_response_that_stands_twice_counts_once_with_the_mean_of_its_ratings() -> None:
    pool = [rated("a", 1, 1), rated("a", 0, 1), rated("b", 1, 1), rated("c", 0, 1)]
    assert mean_ratings(pool)["a"] == {"funny": 0.5, "safe": 1.0}
    assert pairs_of(pool) == {("funny", "b", "a"), ("funny", "b", "c"), ("funny", "a", "c")}
    assert pairs_of(pool, min_gap=1.0) == {("funny", "b", "c")}


def test_no_more_pairs_than_asked_are_drawn_for_each_objective_and_the_seed_draws_them() -> None:
    pool = [rated(f"r{i}", i, -i) for i in range(8)]
    drawn = pairs_of(pool, limit=5, overall="min")
    assert {name: sum(pair[0] == name for pair in drawn) for name in ("funny", "safe", "overall")} == {
        "funny": 5,
        "safe": 5,
        "overall": 5,
    }
    assert drawn == pairs_of(pool, limit=5, overall="min") < pairs_of(pool, overall="min")
    assert drawn != pairs_of(pool, limit=5, overall="min", seed=2)
    assert drawn != pairs_of(pool, limit=5, overall="min", prompt_id="q")


def test_the_draw_does_not_depend_on_the_order_of_the_rows() -> None:
    pool = [rated(f"r{i % 7}", i % 3, i % 4) for i in range(12)]
    shuffled = random.Random(0).sample(pool, len(pool))
    assert [row.response for row in shuffled] != [row.response for row in pool]
    draws = [
        rated_pairs(rows, prompt_id="p", overall="min", min_gap=1e-6, limit=4, seed=1)
        for rows in (pool, shuffled)
    ]
    assert draws[0] == draws[1]


def test_a_leading_minus_turns_a_rating_round_and_dots_reach_into_objects() -> None:
    row = {"response": " a ", "funny": True, "scores": {"danger": 0.25}}
    assert read(row) == rated("a", 1.0, -0.25)


@pytest.mark.parametrize(("funny", "danger"), [("4", "1"), (Decimal(4), 1), ("4.0", True), ("4", "True")])
def test_a_number_of_any_form_is_a_rating(funny: object, danger: object) -> None:
    row = {"response": "a", "funny": funny, "scores": {"danger": danger}}
    assert read(row) == rated("a", 4.0, -1.0)


def test_a_rating_inside_of_null_is_missing() -> None:
    assert read({"response": "a", "funny": 2, "scores": None}).ratings == {"funny": 2.0, "safe": None}


@pytest.mark.parametrize(
    ("value", "options"),
    [(None, {}), ("N/A", {}), ("", {}), (float("nan"), {}), ("-", {"missing": ["-"]})],
)
def test_a_missing_rating_is_missing_for_its_objective_alone(value: object, options: dict[str, Any]) -> None:
    row = {"response": "a", "funny": value, "scores": {"danger": 1}}
    assert read(row, **options) == Rated(response="a", ratings={"funny": None, "safe": -1.0})


def test_a_response_without_a_rating_is_in_no_pair_of_it_and_has_no_lowest_one() -> None:
    lacking = Rated(response="a", ratings={"funny": None, "safe": 3.0})
    pool = [lacking, rated("b", 1, 1), rated("c", 0, 0)]
    assert pairs_of(pool, overall="min") == {
        ("funny", "b", "c"),
        ("safe", "a", "b"),
        ("safe", "a", "c"),
        ("safe", "b", "c"),
        ("overall", "b", "c"),
    }
    again = Rated(response="a", ratings={"funny": 2.0, "safe": 1.0})
    assert mean_ratings([lacking, again]) == {"a": {"funny": 2.0, "safe": 2.0}}


def test_what_makes_no_pair_is_counted() -> None:
    pool = [rated("a", 2, 0), rated("b", 1, 0), rated("c", 0, 0), rated("c", 0, 0)]
    pairs, left_out = rated_pairs(pool, prompt_id="p", overall="off", min_gap=1, limit=2, seed=1)
    assert len(pairs) == 2
    assert +left_out == {
        "responses rated again": 1,
        "funny: pairs beyond pairs_per_prompt": 1,
        "safe: ties": 3,
    }


def test_a_row_that_lists_its_responses_is_a_row_for_each(tmp_path: Path) -> None:
    """UltraFeedback's form: `instruction`, and `completions` with `response` and ratings in quotes."""
    rows: list[dict[str, Any]] = [
        {
            "question": row["prompt"],
            "replies": [
                {"response": row["chosen"], "scores": {"funny": "5"}},
                {"response": row["rejected"], "scores": {"funny": "1"}},
                {"response": "odd", "scores": {"funny": "odd"}},
            ],
        }
        for row in pair_rows()
        if row["objective"] == "overall"
    ]
    write_rows(tmp_path / "rated.jsonl", [*rows, {**rows[0], "replies": None}])
    write_rows(tmp_path / "pairs.jsonl", [row for row in pair_rows() if row["objective"] == "overall"])
    source = {"path": "rated.jsonl", "each": "replies", "columns": {"prompt": "question"}}
    sources = [source | {"ratings": {"funny": "scores.funny"}}, {"path": "pairs.jsonl"}]
    config = make_config(tmp_path, data={"sources": sources, "on_bad_record": "skip"})
    prompts, pairs = build_data(config)
    funny = {
        (prompts[pair.prompt_id].text, pair.chosen, pair.rejected)
        for pair in pairs
        if pair.objective == "funny"
    }
    assert funny == {(r["question"], *(reply["response"] for reply in r["replies"][:2])) for r in rows}
    rejected = (open_run(config).data / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    reasons = [json.loads(line)["where"].rpartition(":")[2] for line in rejected]
    assert reasons == [*(f"{number}.2" for number in range(1, len(rows) + 1)), str(len(rows) + 1)]


def test_a_column_with_a_dot_in_its_name_is_taken_by_its_name() -> None:
    row = {"response": "a", "scores.danger": 1, "scores": {"danger": 2}, "funny": 0}
    assert read(row) == rated("a", 0.0, -1.0)


# Through the stage.

GOOD: dict[str, Any] = {"prompt": "joke about bear one", "response": "a", "funny": 1, "scores": {"danger": 0}}


def rated_rows() -> list[dict[str, Any]]:
    """Three rated responses of every prompt. Danger turned round goes from 0 to 1, as fun does."""
    kinds = {"both": (1, -1), "funny only": (1, 0), "safe only": (0, -1)}
    return [
        {
            "prompt": prompt,
            "response": text,
            "funny": funny,
            "scores": {"danger": danger},
            "kind": prompt.split()[0],
        }
        for prompt in questions()
        for text, (funny, danger) in kinds.items()
    ]


def config_of(folder: Path, rows: list[Any], *, on_bad_record: str = "stop", **options: Any) -> RunConfig:
    write_rows(folder / "rated.jsonl", rows)
    source = {"path": "rated.jsonl", "ratings": RATINGS, "overall": "min", **options}
    return make_config(folder, data={"sources": [source], "on_bad_record": on_bad_record})


def build_data(config: RunConfig) -> tuple[dict[str, Prompt], list[PreferencePair]]:
    run = open_run(config)
    build("data", run, config)
    return by_id(run.prompts()), run.pairs()


def test_a_source_with_ratings_gives_pairs_of_every_objective_and_overall(tmp_path: Path) -> None:
    prompts, pairs = build_data(config_of(tmp_path, rated_rows()))
    assert len(prompts) == len(questions())
    found = sorted((prompts[p.prompt_id].text, p.objective, p.chosen, p.rejected) for p in pairs)
    assert found == sorted(
        (prompt, *pair)
        for prompt in questions()
        for pair in (
            ("funny", "both", "safe only"),
            ("funny", "funny only", "safe only"),
            ("safe", "both", "funny only"),
            ("safe", "safe only", "funny only"),
            ("overall", "both", "funny only"),
            ("overall", "both", "safe only"),
        )
    )
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert all(pair.split == prompts[pair.prompt_id].split and pair.source == "rated.jsonl" for pair in pairs)


def test_the_same_pairs_come_of_a_file_in_another_order(tmp_path: Path) -> None:
    rows = rated_rows()
    draws = []
    for name, ordered in (("one", rows), ("other", rows[::-1])):
        (tmp_path / name).mkdir()
        pairs = build_data(config_of(tmp_path / name, ordered, pairs_per_prompt=1))[1]
        draws.append({pair.id: pair for pair in pairs})
    assert draws[0] == draws[1]
    assert len(draws[0]) == 3 * len(questions())


def test_a_rating_may_be_the_overall_one(tmp_path: Path) -> None:
    rows = [{**row, "stars": len(row["response"])} for row in rated_rows()]
    _, pairs = build_data(config_of(tmp_path, rows, overall="off", ratings={**RATINGS, "overall": "stars"}))
    chosen = {pair.chosen for pair in pairs if pair.objective == "overall"}
    assert chosen == {"funny only", "safe only"}


def test_rated_responses_and_pairs_of_one_prompt_share_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", [row for row in pair_rows() if row["objective"] == "overall"])
    write_rows(tmp_path / "rated.jsonl", rated_rows())
    sources = [{"path": "rated.jsonl", "ratings": RATINGS}, {"path": "pairs.jsonl"}]
    prompts, pairs = build_data(make_config(tmp_path, data={"sources": sources}))
    assert len(prompts) == len(questions())
    assert {pair.source for pair in pairs if pair.objective == "overall"} == {"pairs.jsonl"}


BAD: dict[str, tuple[object, str]] = {
    "no object": ([1], "expected a JSON object"),
    "no response": ({**GOOD, "response": None}, "column 'response' must be a non-empty response, got None"),
    "no rating": (
        {k: v for k, v in GOOD.items() if k != "funny"},
        "column 'funny' is missing; the row has .*'prompt'",
    ),
    "no inner rating": (
        {**GOOD, "scores": {"rude": 1}},
        r"'scores.danger' is missing; 'scores' has \['rude'\]",
    ),
    "no inner object": ({**GOOD, "scores": 3}, "column 'scores.danger': 'scores' must be an object, got 3"),
    "text": (
        {**GOOD, "funny": "none"},
        r"column 'funny' must be a finite number, true or false, or one of \['N/A', ''\], got 'none'",
    ),
    "a list": ({**GOOD, "funny": [1]}, "column 'funny' must be a finite number.* got \\[1\\]"),
    "a number too large": ({**GOOD, "funny": 10**400}, "column 'funny' must be a finite number"),
    "infinite": ({**GOOD, "funny": float("inf")}, "column 'funny' must be a finite number.* got inf"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_rating_stops_the_stage_with_file_line_and_reason(tmp_path: Path, bad: str) -> None:
    row, message = BAD[bad]
    config = config_of(tmp_path, [GOOD, row])
    with pytest.raises(RecordError, match=rf"rated\.jsonl:2: .*{message}"):
        build("data", open_run(config), config)
    assert list(config.run.folder.iterdir()) == []


def test_bad_ratings_are_kept_aside_and_counted_when_asked(tmp_path: Path) -> None:
    bad = [row for row, _ in BAD.values()]
    config = config_of(tmp_path, [*bad, *rated_rows()], on_bad_record="skip")
    _, pairs = build_data(config)
    assert read_manifest(open_run(config).data).counts["rejected"] == len(bad)
    assert len((open_run(config).data / "rejected.jsonl").read_text(encoding="utf-8").splitlines()) == len(
        bad
    )
    assert len(pairs) == 6 * len(questions())


def test_ratings_of_an_unknown_objective_are_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    config = config_of(tmp_path, rated_rows(), ratings={"kind": "funny"})
    with pytest.raises(
        ValueError, match=r"unknown objective: allowed are \['funny', 'safe', 'overall'\], got 'kind'"
    ):
        build("data", open_run(config), config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratings": {}}, "overall = 'min' needs ratings"),
        ({"ratings": {"overall": "stars"}}, "overall = 'min' needs ratings, none of them 'overall'"),
        ({"min_gap": 0}, "min_gap"),
        ({"pairs_per_prompt": 0}, "pairs_per_prompt"),
        ({"overall": "mean"}, "overall"),
    ],
)
def test_a_wrong_setting_of_ratings_is_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config_of(tmp_path, [], **options)


def test_a_list_of_responses_may_be_nested_or_written_as_json(tmp_path: Path) -> None:
    replies = [{"response": "a", "funny": 2}, {"response": "b", "funny": 1}, None]
    nested = [{"info": {"post": row["prompt"], "replies": replies}} for row in pair_rows()]
    written = [{"prompt": json.dumps(row["prompt"]), "replies": json.dumps(replies)} for row in pair_rows()]
    write_rows(tmp_path / "pairs.jsonl", [row for row in pair_rows() if row["objective"] == "overall"])
    for rows, options in (
        (nested, {"each": "info.replies", "columns": {"prompt": "info.post"}}),
        (written, {"each": "replies", "json_columns": ["replies", "prompt"]}),
    ):
        write_rows(tmp_path / "rated.jsonl", rows)
        source = {"path": "rated.jsonl", "ratings": {"funny": "funny"}, **options}
        config = make_config(
            tmp_path, data={"sources": [source, {"path": "pairs.jsonl"}], "on_bad_record": "skip"}
        )
        prompts, pairs = build_data(config)
        found = {(prompts[p.prompt_id].text, p.chosen) for p in pairs if p.objective == "funny"}
        assert found == {(prompt, "a") for prompt in questions()}
        assert read_manifest(open_run(config).data).counts["rejected"] == len(rows)


def test_a_row_without_the_list_that_each_names_is_named(tmp_path: Path) -> None:
    config = config_of(tmp_path, [{"prompt": "q", "replies": []}], each="replies")
    with pytest.raises(
        RecordError, match=r"rated\.jsonl:1: column 'replies' \(each\) must be a list of objects"
    ):
        build_data(config)
