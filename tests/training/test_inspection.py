"""`preforch inspect`: what a run and an artifact hold, in words."""

import shutil
from pathlib import Path

import pytest
from preforch_models.bundle import ONNX_FILE, read_bundle
from preforch_models.manifest import ArtifactError
from preforch_models.run_folder import RunInfo, write_run_info
from preforch_training.config import RunConfig
from preforch_training.inspection import describe
from preforch_training.run import Run


def test_a_run_is_a_table_of_its_artifacts_in_the_order_they_were_made(
    toy_run: tuple[Run, RunConfig],
) -> None:
    run, _ = toy_run
    lines = describe(run.folder).splitlines()
    names = [line.split()[0] for line in lines[3:-2]]
    assert lines[0] == f"run {run.folder}, no policy to serve"
    assert names == ["data", "reward/funny", "reward/safe", "scores", "orchestrator", "bundle"]
    assert lines[-1] == "no report yet"
    assert "train_rows" in next(line for line in lines if line.startswith("orchestrator"))


def test_a_bundle_is_verified_and_described(toy_run: tuple[Run, RunConfig]) -> None:
    run, _ = toy_run
    text = describe(run.bundle)
    assert "all hashes right" in text
    assert read_bundle(run.bundle).revision in text
    assert "funny: (no description), weight 0.0 to 1.0" in text
    assert "golden prompts" in text


def test_a_policy_is_described_by_its_card(run_folder: Path) -> None:
    text = describe(run_folder / "policy" / "wic" / "round-0")
    assert "policy tiny, revision " in text
    assert "objectives helpful, harmless, humor" in text
    assert 'conditioning {"kind":"context","encoding":"digits"}' in text


def test_a_policy_without_a_manifest_is_no_artifact(run_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run_folder / "policy" / "wic" / "round-0", tmp_path / "round-0"))
    (copy / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(ArtifactError, match=r"no manifest\.json in it or below"):
        describe(copy)


def test_every_other_artifact_is_described(toy_run: tuple[Run, RunConfig]) -> None:
    run, _ = toy_run
    text = describe(run.scores)
    assert text.startswith("scores ")
    assert "inputs: data" in text
    assert '"calibration": "zscore"' in text


def test_hidden_work_is_no_artifact(toy_run: tuple[Run, RunConfig], tmp_path: Path) -> None:
    run, _ = toy_run
    write_run_info(tmp_path, RunInfo())
    shutil.copytree(run.scores, tmp_path / "scores")
    shutil.copytree(run.scores, tmp_path / ".scores.partial")
    assert describe(tmp_path).count("\nscores") == 1
    assert "partial" not in describe(tmp_path).replace(str(tmp_path), "")


def test_a_damaged_artifact_is_named(toy_run: tuple[Run, RunConfig], tmp_path: Path) -> None:
    run, _ = toy_run
    copy = Path(shutil.copytree(run.bundle, tmp_path / "bundle"))
    with (copy / ONNX_FILE).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError, match=f"{ONNX_FILE}: sha256 is"):
        describe(copy)


def test_a_run_of_an_earlier_version_is_refused(toy_run: tuple[Run, RunConfig], tmp_path: Path) -> None:
    run, _ = toy_run
    shutil.copytree(run.scores, tmp_path / "scores")
    with pytest.raises(ArtifactError, match=r"this run has format 1, .*train again"):
        describe(tmp_path)


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_what_is_neither_run_nor_artifact_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="neither a run nor an artifact"):
        describe(tmp_path / name)
