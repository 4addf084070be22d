"""The configs for real data, each run whole on a few made-up files of the same form, with a tiny encoder."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import small_world
from preforch_models.bundle import read_bundle
from preforch_models.manifest import verify
from preforch_training.config import read_config
from preforch_training.pipeline import open_run
from preforch_training.stages import STAGES
from recipe_world import COMPARISONS, RECIPES
from small_world import FUNNY, SAFE, build, questions, write_rows

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
RUN_ELSEWHERE = {
    "demo": "tests/test_pipeline.py",
    "tutor": "tests/training/test_tutor_config.py",
    **dict.fromkeys(("compare-demo", "compare-demo-two"), "tests/training/test_comparison_config.py"),
    **dict.fromkeys(RECIPES, "tests/training/test_recipes.py"),
    **dict.fromkeys(COMPARISONS, "tests/training/test_paper_comparisons.py"),
}
Row = dict[str, Any]


def liked(prompt: str) -> tuple[str, str]:
    """Chosen and rejected overall."""
    return (FUNNY, SAFE) if prompt.startswith("joke") else (SAFE, FUNNY)


def write_hh(root: Path) -> None:
    """Pairs of the text form; the file says the objective."""
    for name, kind in (("helpful", "joke"), ("harmless", "danger")):
        rows = [
            {
                "prompt": f"\n\nHuman: {prompt}\n\nAssistant:",
                "chosen": liked(prompt)[0],
                "rejected": liked(prompt)[1],
            }
            for prompt in questions()
            if prompt.startswith(kind)
        ]
        write(root / "hh_rlhf" / f"{name}_base_test.jsonl", [*rows, {**rows[0], "chosen": ""}])
    # The study transfers to prompts that the run does not have.
    write_ranked(root, end=" old text")


def write_ranked(root: Path, *, end: str = "") -> None:
    """Overall pairs after conversations."""
    rows = [
        {
            "messages": [{"role": "user", "content": prompt + end}],
            "chosen": liked(prompt)[0],
            "rejected": liked(prompt)[1],
        }
        for prompt in questions()
    ]
    write(root / "oasst1" / "ranked_pairs.jsonl", rows)


def write_oasst1(root: Path) -> None:
    """Replies with ratings, and overall pairs."""
    write_ranked(root)
    rows = []
    for number, prompt in enumerate(questions()):
        good, bad = liked(prompt)
        for reply in (good, bad, f"{good} old text"):
            scores = {
                "quality": float(reply.startswith(good)),
                "creativity": float("old" in reply),
                "humor": float("haha" in reply) + 0.001 * number,
                "toxicity": float("careful" not in reply),
            }
            messages = [{"role": "user", "content": prompt}]
            rows.append({"messages": messages, "response": reply, "scores": scores})
    write(root / "oasst1" / "rated_replies.jsonl", rows)


def write_truthfulqa(root: Path) -> None:
    """Five answers a question, labelled 0 or 1 twice; two of them are good in every way."""
    answers = {
        f"{FUNNY} {SAFE}": (1, 1),
        f"{SAFE} {FUNNY}": (1, 1),
        FUNNY: (1, 0),
        SAFE: (0, 1),
        "old text": (0, 0),
    }
    rows = [
        {
            "question": prompt,
            "answer": answer,
            "category": prompt.split()[2],
            "truthful": truthful,
            "informative": informative,
        }
        for prompt in questions()
        for answer, (truthful, informative) in answers.items()
    ]
    write(root / "truthfulqa" / "rated.jsonl", rows)


def write(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows)


WRITERS: dict[str, Callable[[Path], None]] = {
    "hh-cpu": write_hh,
    "oasst1-cpu": write_oasst1,
    "truthfulqa-cpu": write_truthfulqa,
}


def test_every_config_is_run_by_a_test() -> None:
    assert {path.stem for path in CONFIGS.glob("*.toml")} == WRITERS.keys() | RUN_ELSEWHERE.keys()


@pytest.mark.parametrize(
    "name",
    ["hh-cpu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("oasst1-cpu", "truthfulqa-cpu"))],
)
def test_a_config_for_real_data_runs_from_its_files_to_its_report(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    encoder = small_world.write_encoder(tmp_path_factory.mktemp("encoder"), layers=3)
    WRITERS[name](tmp_path / "data")
    objectives = read_config(CONFIGS / f"{name}.toml").names
    settings = (
        f"run.folder={tmp_path / 'run'}",
        f"data.root={tmp_path / 'data'}",
        "reward.folds=2",
        f"orchestrator.encoder={encoder}",
        "orchestrator.max_tokens=48",
        "bundle.golden_prompts=4",
        "study.folds=3",
        "study.seeds=1",
        "study.replicates=100",
        "study.calibrations=['zscore']",
        "study.targets=['advantage_softmax']",
        "study.losses=['reverse']",
        "study.taus=[0.1]",
        "study.entropy_priors=[0.1]",
        "study.shares=[1.0]",
        "report.replicates=100",
        *(f"reward.{objective}.encoder={encoder}" for objective in objectives),
        *(f"reward.{objective}.max_tokens=48" for objective in objectives),
    )
    config = read_config(CONFIGS / f"{name}.toml", settings=settings)
    run = open_run(config)
    for stage in STAGES:
        build(stage, run, config)
    for folder, kind in (
        (run.data, "data"),
        (run.scores, "scores"),
        (run.study, "study"),
        (run.report, "report"),
    ):
        verify(folder, kind=kind)
    assert read_bundle(run.bundle).names == objectives
    assert not (run.folder / "policy").exists()
    assert (run.report / "report.md").read_text(encoding="utf-8").startswith("# ")
