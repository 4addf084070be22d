"""The files of AlpacaEval, Arena-Hard and MT-Bench: which questions are read, what exactly is written."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from answers_world import QUESTIONS, write_questions
from preforch_training.answers.formats import FORMATS
from preforch_training.answers.formats.arena_hard import markdown_counts
from preforch_training.answers.questions import Answer, Question, Turn
from preforch_training.records import RecordError

WEIGHTS = {"helpful": 0.7, "humor": 0.3}


def read(folder: Path, form: str, rows: list[Any] | None = None) -> list[Question]:
    return FORMATS[form].read(write_questions(folder, form, rows))


def answered(questions: list[Question], *, weights: dict[str, float] | None = WEIGHTS) -> list[Answer]:
    def turn(asked: str) -> Turn:
        return Turn(f"ä {asked}\u2028\n**b**", 5, weights, finished=True)

    return [Answer(question, tuple(map(turn, question.turns))) for question in questions]


def test_alpaca_eval_gets_a_list_with_an_output_for_every_instruction(tmp_path: Path) -> None:
    written = FORMATS["alpaca_eval"].render(answered(read(tmp_path, "alpaca_eval")), "m", time.time())
    outputs = json.loads(written)
    assert outputs[0] == {
        "dataset": "helpful_base",
        "datasplit": "eval",
        "instruction": "How do I clean the old kettle?",
        "output": "ä How do I clean the old kettle?\u2028\n**b**",
        "generator": "m",
        "weights": "helpful=0.70,humor=0.30",
    }
    assert [row["instruction"] for row in outputs] == [row["instruction"] for row in QUESTIONS["alpaca_eval"]]
    # AlpacaEval drops double rows, for which every value must have a hash.
    assert all(isinstance(value, str) for row in outputs for value in row.values())


def test_arena_hard_gets_a_conversation_a_line(tmp_path: Path) -> None:
    now = time.time()
    written = FORMATS["arena_hard"].render(answered(read(tmp_path, "arena_hard")), "m", now)
    # By line ends alone, as their loader reads: other separators of lines are escaped.
    lines = [json.loads(line) for line in written.splitlines()]
    first = lines[0]
    assert len(first.pop("ans_id")) == 22
    assert first == {
        "uid": "2edbb5f36f5b42be",
        "model": "m",
        "messages": [
            {"role": "user", "content": "Write it."},
            {"role": "assistant", "content": {"answer": "ä Write it.\u2028\n**b**"}},
        ],
        "tstamp": now,
        "metadata": {
            "token_len": 5,
            "header_count": {f"h{level}": 0 for level in range(1, 7)},
            "list_count": {"ordered": 0, "unordered": 0},
            "bold_count": {"**": 1, "__": 0},
        },
        "weights": "helpful=0.70,humor=0.30",
    }
    assert [line["uid"] for line in lines] == ["2edbb5f36f5b42be", "328c149ed45a41c0", 7]
    assert len({line["messages"][1]["content"]["answer"] for line in lines}) == 3


def test_markdown_is_counted_outside_of_code() -> None:
    text = "# a\n## b\n##c\n1. x\n - y\n* z\n**b** __i__\n```\n# no\n- no\n**no**\n```\n### d"
    assert markdown_counts(text) == {
        "header_count": {"h1": 1, "h2": 1, "h3": 1, "h4": 0, "h5": 0, "h6": 0},
        "list_count": {"ordered": 1, "unordered": 2},
        "bold_count": {"**": 1, "__": 1},
    }


def test_mt_bench_gets_one_choice_with_an_answer_for_every_turn(tmp_path: Path) -> None:
    now = time.time()
    written = FORMATS["mt_bench"].render(answered(read(tmp_path, "mt_bench")), "m", now)
    lines = [json.loads(line) for line in written.splitlines()]
    first = lines[0]
    assert len(first.pop("answer_id")) == 22
    assert first == {
        "question_id": 81,
        "model_id": "m",
        "choices": [
            {
                "index": 0,
                "turns": ["ä Write a post.\u2028\n**b**", "ä Start each sentence with A.\u2028\n**b**"],
            }
        ],
        "tstamp": now,
        "weights": ["helpful=0.70,humor=0.30"] * 2,
    }
    assert [line["question_id"] for line in lines] == [81, 111, 130, 82]
    assert [len(line["choices"][0]["turns"]) for line in lines] == [2, 2, 1, 1]


@pytest.mark.parametrize("form", FORMATS)
def test_of_a_policy_that_reads_no_weights_none_are_written(tmp_path: Path, form: str) -> None:
    written = FORMATS[form].render(answered(read(tmp_path, form), weights=None), "m", 0.0)
    row = (json.loads(written) if form == "alpaca_eval" else list(map(json.loads, written.splitlines())))[0]
    assert row["weights"] in (None, [None, None])


ALPACA, ARENA, MT = (QUESTIONS[form][0] for form in ("alpaca_eval", "arena_hard", "mt_bench"))


@pytest.mark.parametrize(
    ("form", "rows", "message"),
    [
        ("alpaca_eval", [ALPACA, {"output": "x"}], "questions, entry 2: instruction: Field"),
        ("alpaca_eval", [{"instruction": " "}], "entry 1: instruction: .*pattern"),
        ("alpaca_eval", {"instruction": "x"}, "questions: holds one dict; a list of instructions"),
        ("arena_hard", [ARENA, {"uid": "x"}], "questions:2: prompt: Field required"),
        ("arena_hard", [{"prompt": "x"}], "questions:1: uid: Field required"),
        (
            "arena_hard",
            [{"uid": "x", "turns": [{"content": "a"}, {"content": "b"}]}],
            ":1: turns.*at most 1",
        ),
        (
            "arena_hard",
            [ARENA] * 2,
            "questions:2: the id '2edbb5f36f5b42be' is that of .*:1 too",
        ),
        ("mt_bench", [MT, {**MT, "turns": []}], "questions:2: turns: .*at least 1"),
        ("mt_bench", [{**MT, "turns": ["a", "b", "c"]}], "questions:1: turns: .*at most 2"),
        ("mt_bench", [{"question_id": 1, "turns": ["a"]}], "questions:1: category: Field required"),
        ("mt_bench", [{**MT, "required_temperature": -1}], ":1: required_temperature: .*greater"),
        ("mt_bench", [MT] * 2, "questions:2: the id 81 is that of"),
    ],
)
def test_a_bad_question_is_named_by_file_line_and_field(
    tmp_path: Path, form: str, rows: Any, message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        read(tmp_path, form, rows)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b""])
def test_a_file_that_is_no_question_file_is_named(tmp_path: Path, form: str, content: bytes) -> None:
    path = tmp_path / "questions"
    path.write_bytes(content)
    if content or form == "alpaca_eval":
        with pytest.raises(RecordError, match=r"questions.*(JSON|UTF-8)"):
            FORMATS[form].read(path)
    else:
        assert FORMATS[form].read(path) == []
