"""`run.json`: which layouts of a run are read, and that what another version made is never taken for ours."""

import json
from pathlib import Path

import pytest
from preforch_models.manifest import MANIFEST, ArtifactError
from preforch_models.run_folder import _ARTIFACTS, RUN_FILE, RunInfo, read_run_info, write_run_info
from preforch_training.stages import STAGES


def refusal(run: Path) -> str:
    """What is said of a run that is not read, which names its folder; without that name."""
    with pytest.raises(ArtifactError) as refused:
        read_run_info(run)
    message = str(refused.value)
    assert str(run) in message
    return message.replace(str(run), "")


def add_artifact(run: Path, place: str) -> None:
    folder = run / place
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}", encoding="utf-8")


@pytest.mark.parametrize("serve", ["wic", None])
def test_what_was_written_is_read(tmp_path: Path, serve: str | None) -> None:
    write_run_info(tmp_path, RunInfo(serve=serve))
    add_artifact(tmp_path, "bundle")
    assert read_run_info(tmp_path) == RunInfo(serve=serve)


def test_every_stage_has_a_place() -> None:
    assert {place.partition("/")[0] for place in _ARTIFACTS} == set(STAGES)


@pytest.mark.parametrize("place", [*_ARTIFACTS, "reward/helpful", "policy/base", "policy/wic/round-0"])
def test_an_artifact_without_a_run_file_is_of_an_old_run(tmp_path: Path, place: str) -> None:
    add_artifact(tmp_path, place.replace("*", "some"))
    assert "format" in refusal(tmp_path)


@pytest.mark.parametrize("place", ["notes", "data/raw", "."])
def test_a_folder_without_artifacts_of_a_run_says_nothing(tmp_path: Path, place: str) -> None:
    run = tmp_path / "run"
    assert read_run_info(run) is None
    for folder in ("data", "policy/wic/round-0"):
        (run / folder).mkdir(parents=True)
    (run / place).mkdir(exist_ok=True)
    (run / place / MANIFEST).write_text("{}", encoding="utf-8")
    assert read_run_info(run) is None


@pytest.mark.parametrize("version", [1, 3])
def test_the_version_is_read_before_the_keys_of_another_one(tmp_path: Path, version: int) -> None:
    text = json.dumps({"format_version": version, "leader": "wic", "serve": 0})
    (tmp_path / RUN_FILE).write_text(text, encoding="utf-8")
    message = refusal(tmp_path)
    assert "format" in message
    assert "leader" not in message


@pytest.mark.parametrize("text", ["{}", '{"serve": "wic"}', '{"format_version": null}'])
def test_a_run_file_says_its_version(tmp_path: Path, text: str) -> None:
    (tmp_path / RUN_FILE).write_text(text, encoding="utf-8")
    assert "format" in refusal(tmp_path)


def test_a_key_that_no_run_file_has_is_refused_with_its_name(tmp_path: Path) -> None:
    write_run_info(tmp_path, RunInfo())
    known = json.loads((tmp_path / RUN_FILE).read_bytes())
    (tmp_path / RUN_FILE).write_text(json.dumps(known | {"served": "wic"}), encoding="utf-8")
    assert "served" in refusal(tmp_path)
