"""What the data stage says of the data: everything that was read is counted, and what only all rows show."""

from pathlib import Path
from typing import Any

import pytest
from preforch_models.manifest import read_manifest
from preforch_training.data.report import DataReport, report_lines
from preforch_training.inspection import describe
from preforch_training.pipeline import open_run
from preforch_training.run import Run
from small_world import build, make_config, pair_rows, write_qwen_classifier, write_rows

OVERALL = [row for row in pair_rows() if row["objective"] == "overall"]
GOOD: dict[str, Any] = {"prompt": "joke about bear one", "chosen": "a", "rejected": "b"}


def build_data(folder: Path, *sources: list[Any], options: dict[str, Any] | None = None, **data: Any) -> Run:
    """The stage on overall pairs of everything, and further sources."""
    given = []
    for number, rows in enumerate((OVERALL, *sources)):
        write_rows(folder / f"{number}.jsonl", rows)
        given.append({"path": f"{number}.jsonl", **((options or {}) if number else {})})
    config = make_config(folder, data={"sources": given, **data})
    build("data", open_run(config), config)
    return open_run(config)


def report_of(run: Run) -> DataReport:
    return DataReport.model_validate(read_manifest(run.data).metrics["report"])


def test_every_row_is_counted_with_what_became_of_it(tmp_path: Path) -> None:
    bad = [{**GOOD, "chosen": ""}, {**GOOD, "chosen": None}, {**GOOD, "rejected": "a"}]
    run = build_data(tmp_path, [*bad, *OVERALL], on_bad_record="skip")
    first, second = report_of(run).sources
    assert (first.rows, first.skipped, first.pairs) == (len(OVERALL), 0, {"overall": len(OVERALL)})
    assert (second.rows, second.skipped, second.pairs) == (
        len(OVERALL) + 3,
        3,
        {"overall": len(OVERALL)},
    )
    assert [(entry.reason, entry.rows) for entry in second.reasons] == [
        ("column 'chosen' must be a non-empty response", 2),
        ("chosen and rejected are the same response", 1),
    ]


def test_a_reason_counts_whatever_the_turn(tmp_path: Path) -> None:
    def row(turns: int) -> dict[str, Any]:
        history = [{"role": "user", "content": "q"}] * turns
        return {**GOOD, "prompt": [*history, {"role": "user", "content": 7}]}

    run = build_data(tmp_path, [*OVERALL, row(0), row(1), row(2)], on_bad_record="skip")
    [reason] = report_of(run).sources[1].reasons
    assert reason.rows == 3
    assert "a message" in reason.reason
    rejected = (run.data / "rejected.jsonl").read_text(encoding="utf-8")
    assert "message 3" in rejected


def test_pairs_that_were_there_before_and_pairs_the_other_way_round_are_counted(tmp_path: Path) -> None:
    swapped = {**GOOD, "chosen": "b", "rejected": "a"}
    rows = [GOOD, {**GOOD, "prompt": "joke about dog one"}, GOOD, GOOD, swapped]
    run = build_data(tmp_path, rows, [swapped, {**GOOD, "chosen": "c"}])
    found = [(source.duplicates, source.contradictions) for source in report_of(run).sources]
    assert found == [(0, 0), (2, 4), (1, 1)]


def test_lengths_are_in_characters(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p" * length, "chosen": "a" * length, "rejected": "b" * length} for length in range(1, 101)
    ]
    run = build_data(tmp_path, rows)
    source = report_of(run).sources[1]
    assert source.prompt_lengths is not None
    assert source.prompt_lengths.model_dump() == {"median": 50, "most": 95, "longest": 100}
    assert source.response_lengths == source.prompt_lengths


def test_held_out_prompts_that_are_like_a_training_prompt_are_counted(tmp_path: Path) -> None:
    none = report_of(build_data(tmp_path, [GOOD]))
    assert none.leaks == 0
    (tmp_path / "more").mkdir()
    rows = [{**row, "prompt": f"{row['prompt'].replace(' ', '-').upper()}!"} for row in OVERALL]
    run = build_data(tmp_path / "more", rows)
    found = report_of(run)
    train = {
        "".join(filter(str.isalnum, prompt.text.lower()))
        for prompt in run.prompts()
        if prompt.split == "train"
    }
    held_out = [prompt for prompt in run.prompts() if prompt.split != "train"]
    leaks = sum("".join(filter(str.isalnum, prompt.text.lower())) in train for prompt in held_out)
    assert (found.held_out_prompts, found.leaks) == (len(held_out), leaks)
    assert leaks > 10


def test_what_a_reader_cuts_and_pairs_that_become_equal_are_counted(tmp_path: Path, encoder: Path) -> None:
    long = " ".join(["joke"] * 30)
    rows = [
        {"prompt": "joke about bear one", "chosen": f"{long} fun", "rejected": f"{long} slow"},
        {"prompt": long, "chosen": "fun", "rejected": "slow"},
    ]
    write_rows(tmp_path / "0.jsonl", [*OVERALL, *rows])
    head = {"kind": "pair_head", "encoder": str(encoder), "max_tokens": 24}
    config = make_config(
        tmp_path,
        data={"sources": [{"path": "0.jsonl"}]},
        reward={"funny": head, "safe": {"kind": "function", "function": "small_world:safe"}},
        orchestrator={"encoder": str(encoder), "max_tokens": 24},
    )
    from preforch_training.data.stage import build as build_stage
    from preforch_training.readers import readers_of

    run = open_run(config)
    build_stage(run, config.data, learned=(), readers=readers_of(config))
    prompts, pairs = len(run.prompts()), len(OVERALL) + 2
    found = {entry.reader: entry for entry in report_of(run).truncations}
    assert found.keys() == {"reward.funny", "orchestrator"}
    assert found["reward.funny"].model_dump() == {
        "reader": "reward.funny",
        "max_tokens": 24,
        "texts": prompts + 2 * pairs,
        "truncated": 3,
        "pairs": pairs,
        "identical": 1,
    }
    assert (found["orchestrator"].texts, found["orchestrator"].truncated) == (prompts, 1)


def test_what_a_classifier_cuts_is_measured_as_it_cuts(tmp_path: Path) -> None:
    """At the left: what two responses differ in at their beginning is lost, what they end with is read."""
    classifier = write_qwen_classifier(tmp_path / "classifier")
    long = "joke about bear " * 20
    sides = [(f"one {long}", f"two {long}"), (f"{long} one", f"{long} two"), ("one", "two")]
    rows = [{"prompt": f"q{k}", "chosen": a, "rejected": b} for k, (a, b) in enumerate(sides)]
    write_rows(tmp_path / "0.jsonl", [*OVERALL, *rows])
    reward = {"funny": {"kind": "classifier", "model": str(classifier), "max_tokens": 32, "text": "response"}}
    config = make_config(tmp_path, data={"sources": [{"path": "0.jsonl"}]}, reward=reward)
    build("data", open_run(config), config)
    (found,) = report_of(open_run(config)).truncations
    assert (found.reader, found.max_tokens, found.pairs) == ("reward.funny", 32, len(OVERALL) + 3)
    assert (found.truncated, found.identical) == (4, 1)


def test_a_tenth_skipped_is_not_yet_worth_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {**GOOD, "chosen": ""}
    build_data(tmp_path, [bad, *OVERALL[:9]], [bad, *OVERALL[:8]], on_bad_record="skip")
    said = capsys.readouterr().err
    assert "warning: 1 of 9 rows of 2.jsonl were skipped (11%)" in said
    assert "rows of 1.jsonl were skipped" not in said


def test_responses_without_a_rating_do_not_make_an_objective_missing(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "x": "a", "y": "b", "z": "c", "w": "d", "r": [1, 2, None, None]}]
    names = {"x": "r.0", "y": "r.1", "z": "r.2", "w": "r.3"}
    options = {"columns": {"responses": [*names]}, "ratings": {"funny": [*names.values()]}}
    source = report_of(build_data(tmp_path, rows, options=options)).sources[1]
    assert (source.pairs, source.left_out) == ({"funny": 1}, {"funny: missing": 5})


def test_a_model_that_is_not_there_is_said_to_be_unknown_and_the_data_are_made(tmp_path: Path) -> None:
    unknown = report_of(build_data(tmp_path, [GOOD])).unknown_readers
    assert unknown.keys() == {"orchestrator"}
    assert "none" in unknown["orchestrator"]


def test_the_report_is_printed_and_inspect_says_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build_data(tmp_path, [{**GOOD, "chosen": ""}, GOOD], on_bad_record="skip")
    printed = capsys.readouterr().err
    shown = describe(run.data)
    for line in report_lines(report_of(run)):
        assert line in printed
        assert line in shown
    assert "1.jsonl: 2 rows, 1 skipped; pairs: overall 1" in shown
    assert "skipped 1: column 'chosen' must be a non-empty response" in shown
    assert "warning: 1 of 2 rows of 1.jsonl were skipped (50%)" in printed


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "1.jsonl: no pair in 0 rows"),
        ([{**GOOD, "chosen": ""}], {}, "1.jsonl: no pair in 1 rows; 1 skipped: column 'chosen' must be"),
        (
            [{"prompt": "q", "response": "a", "funny": "N/A"}],
            {"ratings": {"funny": "funny"}},
            "1.jsonl: 'funny' is missing in every row of 1 rows; 1 funny: missing",
        ),
        ([{"prompt": ""}], {"pairs": "off"}, "1.jsonl: no prompt in 1 rows"),
    ],
)
def test_a_source_that_gives_nothing_is_an_error(
    tmp_path: Path, rows: list[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_data(tmp_path, rows, options=options, on_bad_record="skip")


def test_a_source_of_prompts_alone_adds_prompts_and_no_pairs(tmp_path: Path) -> None:
    run = build_data(tmp_path, [{"prompt": "one more"}, {"prompt": "another"}], options={"pairs": "off"})
    assert {"one more", "another"} <= {prompt.text for prompt in run.prompts()}
    assert len(run.pairs()) == len(OVERALL)


def test_shares_that_leave_an_objective_without_pairs_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"objective 'overall' has no validation pairs \(\d+ for train, 0 for validation, \d+ for test\)"
        r".*There are 120 prompts, validation_share is 1e-09 and test_share 0.2",
    ):
        build_data(tmp_path, [GOOD], validation_share=1e-9)
    with pytest.raises(
        ValueError, match=r"validation_share 0\.5 and test_share 0\.5 leave no prompt to train on"
    ):
        build_data(tmp_path, [GOOD], validation_share=0.5, test_share=0.5)
