"""Records on disk: read back equal, whole or not there, and a bad line named."""

from pathlib import Path

import pytest
from preforch_training.records import Prompt, RecordError, read_records, unique_responses, write_records
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
