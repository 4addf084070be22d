"""Stage `data`: bad records are named or kept aside, splits are by prompt, an error leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_world
from preforch_models.manifest import read_manifest, verify
from preforch_training.config import RunConfig
from preforch_training.pipeline import open_run
from preforch_training.records import RecordError, write_records
from preforch_training.run import Run
from pydantic import ValidationError
from small_world import build, make_config, pair_rows, write_rows

GOOD = {"prompt": "joke about bear one", "chosen": "a", "rejected": "b", "objective": "funny"}


LEARNED = {name: {"kind": "pair_head", "encoder": "none"} for name in small_world.NAMES}


def build_data(folder: Path, rows: list[Any], *, reward: dict[str, Any] | None = None, **options: Any) -> Run:
    """The stage on a pairs file."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / "pairs.jsonl", rows)
    config = make_config(folder, data=options, reward=reward or {})
    build("data", open_run(config), config)
    return open_run(config)


def left_behind(folder: Path) -> list[str]:
    """What an error left in the run folder."""
    return sorted(path.name for path in (folder / "run").iterdir())


def change(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in {**GOOD, **values}.items() if value is not ...}


BAD: dict[str, tuple[object, str]] = {
    "broken JSON": ('{"prompt": "x", ', r"expected a JSON object, got '\{\"prompt\""),
    "a list": ([1, 2], "expected a JSON object"),
    "no prompt": (
        change(prompt=...),
        "there is no prompt: neither a column 'prompt' nor a whole conversation",
    ),
    "no rejected": (change(rejected=...), "column 'rejected' is missing"),
    "no objective": (change(objective=...), "column 'objective' is missing"),
    "an empty response": (change(chosen=" \n"), "column 'chosen' must be a non-empty response"),
    "a response that is a number": (
        change(rejected=3),
        "column 'rejected' must be a non-empty response, got 3",
    ),
    "a response that is null": (
        change(rejected=None),
        "column 'rejected' must be a non-empty response, got None",
    ),
    "an empty prompt": (change(prompt="  "), "column 'prompt' is empty"),
    "a prompt that is a number": (
        change(prompt=3),
        "column 'prompt' must be a string or a list of messages, got 3",
    ),
    "messages without a user": (change(prompt=[{"role": "system", "content": "s"}]), "needs a user turn"),
    "messages of a wrong form": (change(prompt=[{"role": "user"}]), "content"),
    "two equal responses": (change(chosen="same ", rejected=" same"), "chosen and rejected are the same"),
    "an unknown objective": (
        change(objective="kind"),
        r"unknown objective: allowed are \['funny', 'safe', 'overall'\], got 'kind'",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_record_stops_the_stage_with_file_line_and_reason_and_leaves_nothing(
    tmp_path: Path, bad: str
) -> None:
    row, message = BAD[bad]
    with pytest.raises(RecordError, match=rf"pairs\.jsonl:3: .*{message}"):
        build_data(tmp_path, [GOOD, GOOD, row, GOOD])
    assert left_behind(tmp_path) == []


def test_a_line_that_is_no_text_is_a_bad_record_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    config = make_config(tmp_path)
    with pytest.raises(RecordError, match=r"pairs\.jsonl:2: expected a JSON object"):
        build("data", open_run(config), config)


@pytest.mark.parametrize("column", ["prompt", "chosen", "about"])
def test_text_that_no_file_can_hold_is_a_bad_record_like_any_other(tmp_path: Path, column: str) -> None:
    row = change(**{"about": "jokes", column: "half \ud83d"})
    lines = [json.dumps(row), *map(json.dumps, [{**row, "about": "jokes"} for row in pair_rows()])]
    source = {"path": "pairs.jsonl", "columns": {"objective": "objective", "category": "about"}}
    with pytest.raises(
        RecordError, match=rf"pairs\.jsonl:1: column '{column}' is not valid Unicode \(.*\), got '\\ud83d'"
    ):
        build_data(tmp_path, lines, sources=[source])
    run = build_data(tmp_path, lines, sources=[source], on_bad_record="skip")
    rejected = [
        json.loads(line) for line in (run.data / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [entry["row"] for entry in rejected] == [row]


def test_bad_records_are_skipped_counted_and_written_down_when_asked(tmp_path: Path) -> None:
    bad = [row for row, _ in BAD.values()]
    run = build_data(tmp_path, [*bad, *pair_rows()], on_bad_record="skip")
    rejected = [
        json.loads(line) for line in (run.data / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [entry["row"] for entry in rejected] == bad
    assert [entry["where"].rpartition(":")[2] for entry in rejected] == [str(i + 1) for i in range(len(bad))]
    assert all(entry["reason"] for entry in rejected)
    assert read_manifest(run.data).counts["rejected"] == len(bad)
    assert len(run.pairs()) == len(pair_rows())


def test_without_skipping_there_is_no_file_of_rejected_records(tmp_path: Path) -> None:
    run = build_data(tmp_path, pair_rows())
    assert sorted(verify(run.data).files) == ["pairs.jsonl", "prompts.jsonl"]


@pytest.mark.parametrize("missing", ["funny", "safe", "overall"])
def test_an_objective_without_pairs_is_named_and_nothing_is_left(tmp_path: Path, missing: str) -> None:
    rows = [row for row in pair_rows() if row["objective"] != missing]
    with pytest.raises(ValueError, match=f"objective '{missing}' has no train pairs"):
        build_data(tmp_path, rows, reward=LEARNED)
    assert left_behind(tmp_path) == []


def test_an_objective_without_validation_pairs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="objective 'funny' has no validation pairs"):
        build_data(tmp_path, pair_rows(), validation_share=1e-9, reward=LEARNED)


def test_an_objective_whose_reward_is_given_needs_no_pairs(tmp_path: Path) -> None:
    overall = [row for row in pair_rows() if row["objective"] == "overall"]
    run = build_data(tmp_path, overall)
    assert {pair.objective for pair in run.pairs()} == {"overall"}
    with pytest.raises(ValueError, match="objective 'overall' has no train pairs"):
        build_data(tmp_path / "none", [row for row in pair_rows() if row["objective"] != "overall"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": [{"path": "none.jsonl"}]}, r"none\.jsonl: no such file"),
        ({"sources": []}, "needs at least one entry in sources"),
    ],
)
@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_a_wrong_source_is_an_error_in_either_mode(
    tmp_path: Path, options: dict[str, Any], message: str, mode: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_data(tmp_path, pair_rows(), on_bad_record=mode, **options)
    assert left_behind(tmp_path) == []


# What is written.


def test_every_pair_is_written_with_its_prompt_split_and_source(tmp_path: Path) -> None:
    run = build_data(tmp_path, pair_rows())
    prompts = {prompt.id: prompt for prompt in run.prompts()}
    pairs = run.pairs()
    found = [
        {
            "prompt": prompts[p.prompt_id].text,
            "chosen": p.chosen,
            "rejected": p.rejected,
            "objective": p.objective,
        }
        for p in pairs
    ]
    assert found == pair_rows()
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert all(pair.split == prompts[pair.prompt_id].split and pair.source == "pairs.jsonl" for pair in pairs)
    assert len(prompts) == len(small_world.questions())


@pytest.mark.parametrize("text", ['quotes " and \\', "two\nlines\t", "ü 😀 \u2028", "\x7f\x01"])
def test_files_hold_what_records_would_be_written_as(tmp_path: Path, text: str) -> None:
    row = {**GOOD, "prompt": f"joke {text}", "chosen": f"a {text} a", "objective": "overall"}
    run = build_data(tmp_path, [*pair_rows(), row])
    for name, records in (("prompts.jsonl", run.prompts()), ("pairs.jsonl", run.pairs())):
        write_records(tmp_path / name, records)
        assert (run.data / name).read_bytes() == (tmp_path / name).read_bytes()
    assert any(pair.chosen == row["chosen"] for pair in run.pairs())


def test_counts_tell_prompts_and_pairs_by_split(tmp_path: Path) -> None:
    run = build_data(tmp_path, pair_rows())
    counts = read_manifest(run.data).counts
    assert sum(value for key, value in counts.items() if key.startswith("prompts/")) == len(
        small_world.questions()
    )
    assert sum(value for key, value in counts.items() if key.startswith("pairs/")) == len(pair_rows())
    assert {"prompts/train", "prompts/validation", "prompts/test", "pairs/overall/train"} <= counts.keys()


def test_pairs_of_several_sources_share_their_prompts(tmp_path: Path) -> None:
    by_objective = {
        name: [row for row in pair_rows() if row["objective"] == name] for name in ("funny", "safe")
    }
    for name, rows in by_objective.items():
        write_rows(
            tmp_path / f"{name}.jsonl", [{k: v for k, v in row.items() if k != "objective"} for row in rows]
        )
    sources = [{"path": "pairs.jsonl"}] + [
        {"path": f"{name}.jsonl", "objective": name} for name in by_objective
    ]
    overall = [row for row in pair_rows() if row["objective"] == "overall"]
    run = build_data(tmp_path, overall, sources=sources)
    pairs = run.pairs()
    assert len(pairs) == len({pair.id for pair in pairs}) == len(pair_rows())
    assert len(run.prompts()) == len(small_world.questions())


def test_a_changed_file_builds_the_data_again(tmp_path: Path) -> None:
    run = build_data(tmp_path, pair_rows())
    before = verify(run.data)
    assert verify(build_data(tmp_path, pair_rows()).data) == before
    after = verify(build_data(tmp_path, [*pair_rows(), {**GOOD, "prompt": "one more"}]).data)
    assert after.counts != before.counts


# Categories.


def categories(run: Run) -> dict[str, str]:
    """Category by the text of the prompt."""
    return {prompt.text: prompt.category for prompt in run.prompts()}


def test_without_a_category_prompts_have_none(tmp_path: Path) -> None:
    assert set(categories(build_data(tmp_path, pair_rows())).values()) == {""}


def test_a_category_comes_from_its_column(tmp_path: Path) -> None:
    rows = [{**row, "about": {"kind": row["prompt"].split()[0]}} for row in pair_rows()]
    columns = {"objective": "objective", "category": "about.kind"}
    found = categories(build_data(tmp_path, rows, sources=[{"path": "pairs.jsonl", "columns": columns}]))
    assert found == {prompt: prompt.split()[0] for prompt in small_world.questions()}


def test_the_first_source_that_brings_a_prompt_names_its_category(tmp_path: Path) -> None:
    jokes = [row for row in pair_rows() if row["prompt"].startswith("joke")]
    write_rows(tmp_path / "jokes.jsonl", jokes)
    columns = {"objective": "objective"}
    sources = [
        {"path": "jokes.jsonl", "category": "first", "columns": columns},
        {"path": "pairs.jsonl", "category": "second", "columns": columns},
    ]
    found = categories(build_data(tmp_path, pair_rows(), sources=sources))
    assert found == {
        text: "first" if text.startswith("joke") else "second" for text in small_world.questions()
    }


def test_a_row_without_its_category_is_a_bad_record(tmp_path: Path) -> None:
    source = {"path": "pairs.jsonl", "columns": {"objective": "objective", "category": "about"}}
    with pytest.raises(RecordError, match=r"pairs\.jsonl:2: column 'about' is missing"):
        build_data(tmp_path, [{**GOOD, "about": "jokes"}, GOOD], sources=[source])


def test_a_category_that_is_no_text_is_written_as_one_and_null_is_none(tmp_path: Path) -> None:
    rows = [{**row, "about": 3} for row in pair_rows()]
    rows.append({**GOOD, "prompt": "without", "about": None})
    source = {"path": "pairs.jsonl", "columns": {"objective": "objective", "category": "about"}}
    found = categories(build_data(tmp_path, rows, sources=[source]))
    assert found.pop("without") == ""
    assert set(found.values()) == {"3"}


def test_a_source_has_one_category_or_a_column_of_them_but_not_both(tmp_path: Path) -> None:
    source = {"path": "pairs.jsonl", "category": "a", "columns": {"category": "b"}}
    with pytest.raises(ValidationError, match=r"category 'a' and columns\.category 'b': give only one"):
        build_data(tmp_path, pair_rows(), sources=[source])


# Splits.


def test_splits_have_about_the_asked_size_and_are_disjoint_by_normalised_prompt(tmp_path: Path) -> None:
    prompts = [f"{kind} question {i}" for i in range(300) for kind in ("A", "a ", " a")]
    objectives = ("funny", "safe", "overall")
    rows = [{**GOOD, "prompt": prompt, "objective": name} for prompt in prompts for name in objectives]
    run = build_data(tmp_path, rows)
    splits: dict[str, set[str]] = {}
    for prompt in run.prompts():
        splits.setdefault(prompt.split, set()).add(" ".join(prompt.text.lower().split()))
    assert not splits["train"] & splits["validation"]
    assert not splits["train"] & splits["test"]
    assert not splits["validation"] & splits["test"]
    assert {name: len(found) for name, found in splits.items()} == pytest.approx(
        {"train": 180, "validation": 60, "test": 60}, abs=25
    )


# Datasets.


def write_jsonl_dataset(folder: Path, rows: list[dict[str, str]]) -> None:
    write_rows(folder / "train.jsonl", rows)


def write_parquet_dataset(folder: Path, rows: list[dict[str, str]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")


@pytest.mark.parametrize("write", [write_jsonl_dataset, write_parquet_dataset])
def test_a_hugging_face_dataset_in_a_local_folder_is_read_and_noticed_when_it_changes(
    tmp_path: Path, write: Callable[[Path, list[dict[str, str]]], None]
) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    renamed = [{"question": row.pop("prompt"), **row} for row in pair_rows()]
    sources = [{"dataset": str(folder), "columns": {"prompt": "question", "objective": "objective"}}]
    write(folder, renamed)
    run = build_data(tmp_path, [], sources=sources)
    pairs = run.pairs()
    assert [pair.chosen for pair in pairs] == [row["chosen"] for row in pair_rows()]
    assert {pair.source for pair in pairs} == {str(folder)}
    write(folder, [*renamed, {"question": "new", "chosen": "a", "rejected": "b", "objective": "funny"}])
    build_data(tmp_path, [], sources=sources)
    assert len(run.pairs()) == len(pairs) + 1


def test_a_bad_row_of_a_dataset_is_named_by_its_number(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    write_jsonl_dataset(folder, [GOOD, {**GOOD, "chosen": ""}])
    source = {"dataset": str(folder), "columns": {"objective": "objective"}}
    with pytest.raises(RecordError, match=r"dataset\[train\]:1: column 'chosen' must be"):
        build_data(tmp_path, [], sources=[source])


# The demo world.


def test_the_demo_world_gives_data_of_the_asked_sizes(tmp_path: Path) -> None:
    objectives = [{"name": name} for name in ("helpful", "harmless", "humor")]
    reward = {o["name"]: {"kind": "function", "function": "small_world:funny"} for o in objectives}
    sizes = {"train_prompts": 30, "validation_prompts": 8, "test_prompts": 6}
    raw = small_world.raw_config(
        tmp_path, objectives=objectives, data={"source": "demo", "sources": [], **sizes}
    )
    config = RunConfig.model_validate(raw | {"reward": reward})
    build("data", open_run(config), config)
    counts = read_manifest(open_run(config).data).counts
    assert (counts["prompts/train"], counts["prompts/validation"]) == (30, 8)
    tests = {key: value for key, value in counts.items() if key.startswith("prompts/test")}
    assert list(tests.values()) == [6, 6, 6]
