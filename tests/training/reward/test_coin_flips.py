"""Where a coin said which response is better nothing can be learned, whatever form the rows have: an answer
that got into its own prompt would show at once."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from preforch_models.manifest import read_manifest
from preforch_training.pipeline import open_run
from reward_world import pair_heads
from small_world import PLACES, build, make_config, pair_rows, write_rows

Form = Callable[[str, str, str], dict[str, Any]]


def messages(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def sharegpt(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": prompt}, {"from": "gpt", "value": response}]


def transcript(prompt: str, response: str) -> str:
    return f"\n\nHuman: {prompt}\n\nAssistant: {response}"


FORMS: dict[str, tuple[Form, dict[str, Any]]] = {
    "columns": (lambda p, a, b: {"prompt": p, "chosen": a, "rejected": b}, {}),
    "transcripts": (lambda p, a, b: {"chosen": transcript(p, a), "rejected": transcript(p, b)}, {}),
    "message lists": (lambda p, a, b: {"chosen": messages(p, a), "rejected": messages(p, b)}, {}),
    "ShareGPT": (lambda p, a, b: {"chosen": sharegpt(p, a), "rejected": sharegpt(p, b)}, {}),
    "a prompt and message lists": (
        lambda p, a, b: {"prompt": p, "chosen": messages(p, a), "rejected": messages(p, b)},
        {},
    ),
    "a choice": (
        lambda p, a, b: {"prompt": p, "x": max(a, b), "y": min(a, b), "best": int(b > a)},
        {"columns": {"responses": ["x", "y"]}, "better": {"funny": "best"}},
    ),
}
"""(prompt, chosen, rejected) as a row, and how it is read."""


@pytest.mark.parametrize("form", FORMS)
def test_a_reward_that_learned_from_coin_flips_is_a_coin(form: str, encoder: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    write, options = FORMS[form]

    def text() -> str:
        return " ".join(rng.choices(PLACES, k=5))

    rows = []
    for _ in range(700):
        chosen, rejected = rng.sample([text(), text()], 2)
        rows.append(write(text(), chosen, rejected))
    write_rows(tmp_path / "coins.jsonl", rows)
    write_rows(tmp_path / "pairs.jsonl", [row for row in pair_rows() if row["objective"] == "overall"])
    sources = [{"path": "coins.jsonl", "objective": "funny", **options}, {"path": "pairs.jsonl"}]
    head = pair_heads(encoder)["funny"] | {"hidden": 0}
    config = make_config(
        tmp_path,
        data={"sources": sources, "validation_share": 0.5, "test_share": 0.05},
        reward={"funny": head},
    )
    run = open_run(config)
    for stage in ("data", "reward"):
        build(stage, run, config)
    found = read_manifest(run.reward("funny")).metrics["validation"]
    assert found["low"] < 0.5 < found["high"]
    assert abs(found["value"] - 0.5) < 0.08
    assert all(prompt.messages[-1].role == "user" for prompt in run.prompts())
