"""A run with two tiny policies, one that reads weights and one that does not, and question files of the
benchmarks, in the form of their own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy_world import make_config, sft, wic, write_inputs
from preforch_models.run_folder import RunInfo, write_run_info
from preforch_training.config import write_resolved
from preforch_training.sampling.vllm import Generation, SampleRequest
from small_world import build

QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "alpaca_eval": [
        {
            "instruction": "How do I clean the old kettle?",
            "output": "The reference's.",
            "generator": "text_davinci_003",
            "dataset": "helpful_base",
            "datasplit": "eval",
        },
        {"instruction": "Tell me a joke — a “good” one"},
        {"instruction": "1 + 1"},
    ],
    "arena_hard": [
        {
            "uid": "2edbb5f36f5b42be",
            "category": "hard_prompt",
            "subcategory": "coding",
            "prompt": "Write it.",
        },
        {"uid": "328c149ed45a41c0", "category": "creative_writing", "prompt": "A folk tune"},
        # 0.1, as it was published first.
        {"question_id": 7, "category": "arena-hard-v0.1", "turns": [{"content": "Prove it"}]},
    ],
    "mt_bench": [
        {"question_id": 81, "category": "writing", "turns": ["Write a post.", "Start each sentence with A."]},
        {"question_id": 111, "category": "math", "turns": ["1 + 1?", "Twice that?"], "reference": ["2", "4"]},
        {"question_id": 130, "category": "other", "turns": ["Hello"]},
        {"question_id": 82, "category": "math", "turns": ["Guess"], "required_temperature": 1.0},
    ],
}
"""Rows as in the benchmarks' own files."""


def write_questions(folder: Path, form: str, rows: Sequence[Any] | None = None) -> Path:
    """A question file; AlpacaEval's is one list, the others have a row a line."""
    rows = QUESTIONS[form] if rows is None else rows
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = folder / f"{form}.questions"
    path.write_text(json.dumps(rows) if form == "alpaca_eval" else lines, encoding="utf-8")
    return path


def write_run(folder: Path) -> Path:
    """A run that serves `wic`, and has `sft` too."""
    policies = {
        "sft": sft(steps=1),
        "wic": wic(offline={"steps": 1}, online_rounds=0, online=None),
    }
    config = make_config(folder / "run", policies=policies, serve="wic")
    run, config = write_inputs(folder / "run", config)
    build("policy", run, config)
    write_resolved(config, run.config_file)
    write_run_info(run.folder, RunInfo(serve="wic"))
    return run.folder


class RecordingSampler:
    """Answers with what it was asked last, and remembers every call."""

    peak_memory_mib = 1.0

    def __init__(self) -> None:
        self.requests: list[SampleRequest] = []
        self.calls: list[tuple[Path, float, float, int]] = []

    def sample(
        self,
        policy: Path,
        requests: Sequence[SampleRequest],
        *,
        temperature: float,
        top_p: float,
        max_tokens: int,
    ) -> list[list[Generation]]:
        self.calls.append((policy, temperature, top_p, max_tokens))
        self.requests += requests
        return [
            [Generation((1, 2, 3), f" {request.messages[-1].content}: **done**\n", finished=i > 0)]
            for i, request in enumerate(requests)
        ]

    def close(self) -> None:
        """There is nothing to give back."""
