"""Records on disk: read back equal, whole or not there, and a bad line or file named."""

from pathlib import Path

import numpy as np
import pytest
from preforch_models.manifest import ArtifactError
from preforch_training.records import (
    Numbers,
    Prompt,
    RecordError,
    StoredPrompts,
    first_places,
    in_batches,
    keys_of,
    read_record,
    read_records,
    unique_responses,
    write_record,
    write_records,
)
from preforch_training.statistics.bootstrap import Interval
from small_world import make_pairs, make_prompt


def test_records_are_read_back_equal_and_a_bad_line_is_named(tmp_path: Path) -> None:
    prompts = [make_prompt("Grüße\u2028\n", split="test_topic"), make_prompt("b")]
    path = tmp_path / "prompts.jsonl"
    write_records(path, prompts)
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]
    assert read_records(path, Prompt) == prompts
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "x", "messages": [], "split": "exam"}\n')
    with pytest.raises(
        RecordError, match=r"prompts\.jsonl:3: .*split 'exam': allowed are 'train', 'validation'"
    ):
        read_records(path, Prompt)


def test_an_error_while_records_are_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_records(path, [make_prompt("a")])
    with pytest.raises(AttributeError):
        write_records(path, [make_prompt("b"), None])  # type: ignore[list-item]  # fails half-way
    assert [prompt.id for prompt in read_records(path, Prompt)] == ["a"]
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_a_response_of_a_prompt_comes_once_in_order_of_first_appearance() -> None:
    _, pairs = make_pairs("funny")
    found = list(unique_responses([pairs[0], pairs[1], pairs[0]]))
    expected = [(pair.prompt_id, text) for pair in pairs[:2] for text in (pair.chosen, pair.rejected)]
    assert found == expected


FOUND = Interval(value=0.5, low=0.25, high=0.75, groups=7)


def test_a_record_reads_back_and_leaves_no_other_file(tmp_path: Path) -> None:
    write_record(tmp_path / "interval.json", FOUND)
    assert read_record(tmp_path / "interval.json", Interval) == FOUND
    assert [path.name for path in tmp_path.iterdir()] == ["interval.json"]
    assert (tmp_path / "interval.json").read_text(encoding="utf-8").endswith("}\n")


def test_a_file_that_is_not_the_record_is_named_with_the_field(tmp_path: Path) -> None:
    path = tmp_path / "interval.json"
    path.write_text('{"value": 1, "low": 0, "high": "much", "groups": 3}', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"interval\.json: .*high"):
        read_record(path, Interval)
    with pytest.raises(ArtifactError, match=r"none\.json: cannot be read"):
        read_record(tmp_path / "none.json", Interval)


def test_stored_prompts_are_read_by_id_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    prompts = [make_prompt(f"Frage {i} ü") for i in range(20)]
    path = tmp_path / "prompts.jsonl"
    write_records(path, prompts)
    stored = StoredPrompts(path)
    asked = [prompts[i] for i in (7, 0, 19, 7)]
    assert stored.of(prompt.id for prompt in asked) == asked
    texts = stored.texts(keys_of(prompt.id for prompt in asked))
    assert list(texts) == [prompt.text for prompt in asked]
    assert [len(texts), texts[1], texts[-2]] == [4, prompts[0].text, prompts[19].text]
    assert list(texts[1:3]) == [prompts[0].text, prompts[19].text]
    assert stored.of([]) == []


def test_a_stored_prompt_that_is_not_there_or_there_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    for prompts in ([], [make_prompt("a")]):
        write_records(path, prompts)
        with pytest.raises(RecordError, match=r"prompts\.jsonl: lacks the prompt of a pair"):
            StoredPrompts(path).of(["z"])
    write_records(path, [make_prompt("a")] * 2)
    with pytest.raises(RecordError, match="two prompts have the same id"):
        StoredPrompts(path)
    path.write_text('{"id": "x"}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"prompts\.jsonl:1: "):
        StoredPrompts(path)


def test_numbers_come_back_in_order_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preforch_training.records._PIECE", 4)
    whole, other = Numbers("q"), Numbers("d")
    for number in range(11):
        whole.add(number)
        other.add(number / 2, -number)
    assert whole.array().tolist() == list(range(11))
    assert whole.array().dtype == np.int64
    assert other.array().tolist() == [value for number in range(11) for value in (number / 2, -number)]
    assert Numbers("q").array().tolist() == []


def test_first_places_are_in_order_of_appearance() -> None:
    first, which = first_places(np.array([5, -1, 5, 9, -1, 9]))
    assert first.tolist() == [0, 1, 3]
    assert which.tolist() == [0, 1, 0, 2, 1, 2]


def test_batches_hold_everything_once() -> None:
    assert list(in_batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_batches([], 2)) == []
