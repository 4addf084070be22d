"""A whole small study on the toy world: through its stage and the report, killed and continued, refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preforch_models.manifest import read_manifest
from preforch_training.config import RunConfig
from preforch_training.data.reading import source_hashes
from preforch_training.pipeline import open_run, study_subject
from preforch_training.records import PreferencePair, Prompt
from preforch_training.report.records import Report
from preforch_training.reward.config import Config as RewardConfig
from preforch_training.run import Run, work_folder
from preforch_training.statistics.markdown import write_markdown
from preforch_training.study.data import gather
from preforch_training.study.findings import category_result, run_study
from preforch_training.study.records import Study, read_study
from preforch_training.study.tables import study_blocks
from pydantic import ValidationError
from small_world import FUNNY, NAMES, SAFE, build, make_config, pair_rows, questions, write_rows

SEEDS, FOLDS = 2, 3


def rows() -> list[dict[str, str]]:
    """The toy pairs with their categories. Every sixth label is wrong,
    since perfect rewards have no log-odds scale."""
    found = []
    for i, row in enumerate(pair_rows()):
        sides = {"chosen": row["rejected"], "rejected": row["chosen"]} if i % 6 == i // 6 % 6 else {}
        found.append(
            {**row, **sides, "kind": "funny jokes" if row["prompt"].startswith("joke") else "dangers"}
        )
    return found


def study_settings(**changes: Any) -> dict[str, Any]:
    """A `[study]` of seconds."""
    return {
        "folds": FOLDS,
        "seeds": SEEDS,
        "replicates": 100,
        "calibrations": ["zscore"],
        "targets": ["margin_softmax"],
        "losses": ["forward"],
        "taus": [0.5],
        "entropy_priors": [0.01],
        "shares": [0.5, 1.0],
        "features": [{"pooling": "cls", "layers": [0, -1]}],
        **changes,
    }


def config_of(folder: Path, encoder: Path, **study: Any) -> RunConfig:
    write_rows(folder / "pairs.jsonl", rows())
    head = {
        "kind": "pair_head",
        "encoder": str(encoder),
        "hidden": 0,
        "max_tokens": 24,
        "penalties": [1.0, 0.1],
    }
    return make_config(
        folder,
        data={
            "sources": [{"path": "pairs.jsonl", "columns": {"objective": "objective", "category": "kind"}}]
        },
        reward={"folds": 2, **dict.fromkeys(NAMES, head)},
        orchestrator={"encoder": str(encoder), "train_encoder": False, "penalties": [0.1]},
        study=study_settings(**study),
    )


def records(run: Run) -> tuple[Sequence[Prompt], Sequence[PreferencePair]]:
    return run.prompts(), run.pairs()


@pytest.fixture(scope="module")
def done(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    """A run with its study and its report, made after a source of other prompts was written."""
    folder = tmp_path_factory.mktemp("study")
    other = [
        {"prompt": f"old {row['prompt']}", **{k: row[k] for k in ("chosen", "rejected")}}
        for row in rows()[2::3]
    ]
    write_rows(folder / "other.jsonl", other)
    config = config_of(folder, encoder, transfers=[{"path": "other.jsonl"}])
    run = open_run(config)
    for name in ("data", "reward", "scores", "orchestrator", "bundle", "study", "report"):
        build(name, run, config)
    return run, config


def test_a_study_measures_every_part(done: tuple[Run, RunConfig]) -> None:
    run, config = done
    study = read_study(run.study)
    assert (study.prompts, study.pairs) == (len(questions()), len(questions()))
    assert (study.folds, study.seeds) == (FOLDS, SEEDS)
    features = "mean of layers -1"
    assert study.recommended == study_subject(config).own_choice
    assert study.paper == study_subject(config).paper_choice
    assert {study.recommended.features, study.paper.features} == {features}
    chosen = [result.choice for result in study.table]
    assert study.recommended in chosen
    assert study.paper in chosen
    assert any(choice.features == "cls of layers 0, -1" for choice in chosen)
    assert [entry.choice for entry in study.predictors] == [study.recommended, study.paper]
    assert {entry.objective for entry in study.rewards} == set(NAMES)
    assert all(entry.accuracy.value > 0.7 for entry in study.rewards)
    assert [point.share for point in study.sizes] == [0.5, 1.0]
    for entry in study.rewards:
        assert all(point.rewards[entry.objective].value > 0.6 for point in study.sizes)
    # All of the training prompts: what the table says.
    assert study.sizes[-1].gain == study.table[0].gain
    assert [entry.category for entry in study.categories] == ["dangers", "funny jokes"]
    assert study.limit is not None
    assert study.limit.value > 0.95
    assert {entry.objective for entry in study.single} == set(NAMES)
    assert {entry.choice.loss for entry in study.single} == {"reverse", "forward", "regress", "bt_gate"}
    assert [entry.value for entry in study.what_ifs] == [0.0, 0.5, 0.8, 0.95, 0.0]
    [transfer] = study.transfers
    assert (transfer.source, transfer.pairs) == ("other.jsonl", len(questions()))
    assert study.by_category is None


def test_the_report_holds_the_study_its_warnings_and_what_it_cost(done: tuple[Run, RunConfig]) -> None:
    run, _ = done
    study = read_study(run.study)
    found = Report.model_validate_json((run.report / "report.json").read_bytes())
    assert found.study == study
    assert set(study.warnings) <= set(found.warnings)
    assert "study" in {cost.stage for cost in found.stages}
    text = (run.report / "report.md").read_text(encoding="utf-8")
    assert "## Study" in text
    assert write_markdown(study_blocks(study), 3) in text
    assert "<h2>Study</h2>" in (run.report / "index.html").read_text(encoding="utf-8")
    for part in (
        "### Alternatives",
        "### When not to use it",
        "### Judged on other data",
        str(study.recommended),
    ):
        assert part in text


def test_a_finished_study_is_skipped_and_leaves_no_work_folder(done: tuple[Run, RunConfig]) -> None:
    run, config = done
    before = read_manifest(run.study)
    build("study", run, config)
    assert read_manifest(run.study) == before
    assert not work_folder(run.study).exists()


def test_a_study_is_made_again_when_the_pairs_of_another_source_change(
    done: tuple[Run, RunConfig], tmp_path: Path
) -> None:
    """The file is no input of the stage `data`."""
    run, config = done
    assert not isinstance(config.study, str)
    changed = write_rows(tmp_path / "other.jsonl", [{"prompt": "old", "chosen": FUNNY, "rejected": SAFE}])
    assert read_manifest(run.study).config["transfers"]["other.jsonl"]
    moved = config.model_copy(update={"data": config.data.model_copy(update={"root": tmp_path})})
    assert changed.exists()
    hashes = source_hashes(moved.data.model_copy(update={"sources": config.study.transfers}))
    assert hashes.keys() == read_manifest(run.study).config["transfers"].keys()
    assert hashes != read_manifest(run.study).config["transfers"]


def failing(folder: Path, encoder: Path) -> tuple[Run, RunConfig]:
    """A study that fails after its table: two categories cannot fill three folds."""
    config = config_of(folder, encoder, by_category=True, seeds=1)
    run = open_run(config)
    build("data", run, config)
    return run, config


def test_a_study_that_was_stopped_continues_from_the_trials_that_it_kept(
    done: tuple[Run, RunConfig], tmp_path: Path
) -> None:
    run, config = done
    settings = config.study
    assert not isinstance(settings, str)
    changed = settings.model_copy(update={"by_category": True})
    with pytest.raises(ValueError, match="2 groups of prompts leave fold"):
        run_study(run, changed, study_subject(config), *records(run), tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert len(kept) > 5
    # Some were not reached, one was being written.
    lost = sorted(path for path in kept if not path.name.startswith("rewards"))[::3]
    for path in lost:
        path.unlink()
    lost[0].with_name(f".{lost[0].stem}.partial.npz").write_bytes(b"half")
    continued = run_study(run, settings, study_subject(config), *records(run), tmp_path)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if path not in lost)
    assert all(path.exists() for path in lost)
    assert not list(tmp_path.glob("*.partial*"))
    # The study of the fixture was never stopped.
    assert continued == read_study(run.study)


def test_a_share_that_leaves_nothing_to_fit_on_is_named(done: tuple[Run, RunConfig], tmp_path: Path) -> None:
    run, config = done
    settings = config.study
    assert not isinstance(settings, str)
    changed = settings.model_copy(update={"shares": (0.001,)})
    with pytest.raises(ValueError, match=r"\[study\] shares: 0.001 of the training prompts is too little: "):
        run_study(run, changed, study_subject(config), *records(run), tmp_path)


def test_what_another_config_left_is_not_used(encoder: Path, tmp_path: Path) -> None:
    run, config = failing(tmp_path, encoder)
    with pytest.raises(ValueError, match="2 groups of prompts leave fold"):
        build("study", run, config)
    left = list(work_folder(run.study).glob("*.npz"))
    assert left
    for path in left:
        path.write_bytes(b"not for you")
    # The same trials, were it not for another number. Reading what is left would be another error.
    with pytest.raises(ValueError, match="2 groups of prompts leave fold"):
        build("study", run, config_of(tmp_path, encoder, by_category=True, seeds=1, replicates=101))
    assert all(path.read_bytes() != b"not for you" for path in work_folder(run.study).glob("*.npz"))


def test_whole_categories_are_held_out_where_there_are_enough(
    done: tuple[Run, RunConfig], tmp_path: Path
) -> None:
    run, config = done
    prompts, pairs = records(run)
    places = [prompt.model_copy(update={"category": prompt.text.rpartition(" ")[0]}) for prompt in prompts]
    data = gather(places, pairs, NAMES)
    assert not isinstance(config.study, str)
    subject = study_subject(config)
    choice = subject.own_choice
    result = category_result(run, config.study, subject, data, choice, tmp_path)
    assert result.choice == choice
    assert result.accuracy.groups == len(questions())
    # 24 categories: no two to tell apart.
    assert result.separation is None


def test_a_reward_that_cannot_be_cross_fitted_is_refused_by_name(encoder: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, encoder)
    rewards = {**config.reward.objectives, "safe": make_config(tmp_path).reward.objectives["safe"]}
    config = config.model_copy(update={"reward": RewardConfig(folds=2, **rewards)})
    with pytest.raises(ValidationError, match=r"\[study\] needs rewards .*; \[reward.safe\] is 'function'"):
        RunConfig.model_validate_json(config.model_dump_json())
    run = open_run(config)
    build("data", run, config)
    with pytest.raises(ValueError, match=r"\[reward.safe\] is 'function', which a study cannot cross-fit"):
        build("study", run, config)
    assert not run.study.exists()


def test_a_run_without_a_study_makes_none(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert config.study == "off"
    build("study", open_run(config), config)
    assert not (tmp_path / "run").exists()


def test_every_number_of_a_study_is_finite_and_reads_back(done: tuple[Run, RunConfig]) -> None:
    study = read_study(done[0].study)
    assert Study.model_validate_json(study.model_dump_json()) == study
    values = [result.accuracy.value for result in study.table] + [
        entry.correlation for entry in study.what_ifs
    ]
    assert np.isfinite(values).all()
