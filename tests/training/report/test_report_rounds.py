"""What the report says about online rounds is what their manifests say."""

from pathlib import Path

import pytest
from preforch_models.files import write_text
from preforch_models.manifest import Manifest, write_manifest
from preforch_training.policy.checkpoint import POLICY_FILE, PolicyInfo
from preforch_training.report.policies.rounds import report_rounds, round_tables
from preforch_training.statistics.markdown import write_markdown

SAMPLED = {
    "loss": 0.5,
    "kept_prompts": 0.75,
    "below_best_known": 0.25,
    "gain_over_known": 0.5,
    "utility": 1.0,
    "utility_kept": 1.5,
}
FOLDS = {"own_fold.kept_changes": 0.125, "own_fold.a.mean": -0.5, "own_fold.a.sd": 0.25}


def write_round(folder: Path, number: int, *, counts: dict[str, int], metrics: dict[str, float]) -> Path:
    folder.mkdir()
    write_text(folder / POLICY_FILE, PolicyInfo(name="p", kind="wic", round=number).model_dump_json())
    write_manifest(folder, Manifest(kind="policy", counts=counts, metrics=metrics))
    return folder


@pytest.fixture
def rounds(tmp_path: Path) -> dict[str, list[Path]]:
    """One policy of an offline and two online rounds, of which one compared folds; another without any."""
    offline = write_round(tmp_path / "0", 0, counts={"rows": 9}, metrics={"loss": 0.5})
    first = write_round(tmp_path / "1", 1, counts={"samples": 16}, metrics=SAMPLED | FOLDS)
    second = write_round(tmp_path / "2", 2, counts={"samples": 8}, metrics=SAMPLED)
    return {"p": [offline, first, second], "sft": [offline]}


def test_every_round_that_sampled_is_reported(rounds: dict[str, list[Path]]) -> None:
    first, second = report_rounds(rounds, ["a"])
    assert (first.policy, first.round, first.samples, second.round, second.samples) == ("p", 1, 16, 2, 8)
    assert (first.kept_prompts, first.below_best_known, first.gain_over_known) == (0.75, 0.25, 0.5)
    assert (first.kept_changes, first.own_fold_mean, first.own_fold_sd) == (0.125, {"a": -0.5}, {"a": 0.25})
    assert (second.kept_changes, second.own_fold_mean) == (None, {})


def test_the_table_of_folds_is_of_rounds_that_compared_them(rounds: dict[str, list[Path]]) -> None:
    found = report_rounds(rounds, ["a"])
    assert "| p | 1 | a -0.50 (0.25) | 0.125 |" in write_markdown(round_tables(found))
    assert "own-fold" not in write_markdown(round_tables(found[1:]))
    assert "| p | 2 | 8 | 0.75 | 0.25 | 1 | 1.5 | 0.5 |" in write_markdown(round_tables(found[1:]))
