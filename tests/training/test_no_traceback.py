"""What a user meets is one line, whatever goes wrong in data, rewards and scores."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from preforch_cli.main import main
from reward_world import pair_heads
from small_world import CHAT_TEMPLATE, pair_rows, raw_config, write_qwen_classifier, write_rows


@pytest.fixture
def config_file(tmp_path: Path, encoder: Path) -> Path:
    """Rewards of which one is trained."""
    write_rows(tmp_path / "pairs.jsonl", pair_rows())
    return write_config(tmp_path, reward={"funny": pair_heads(encoder)["funny"], "folds": 2})


def write_config(folder: Path, **sections: Any) -> Path:
    raw = raw_config(folder)
    for name, section in sections.items():
        raw[name] |= section
    (folder / "config.toml").write_text(tomli_w.dumps(raw), encoding="utf-8")
    return folder / "config.toml"


def train(stage: str, config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code, and the last line of what is said."""
    capsys.readouterr()
    code = main(["train", stage, str(config)])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return code, said.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("stage", "needs"), [("reward", "data"), ("scores", "data"), ("orchestrator", "data")]
)
def test_a_stage_before_its_time_says_which_comes_first(
    config_file: Path, capsys: pytest.CaptureFixture[str], stage: str, needs: str
) -> None:
    code, said = train(stage, config_file, capsys)
    assert code == 2
    assert said.endswith(
        f"no manifest.json, so this is not a finished artifact; `preforch train {needs} CONFIG` makes it"
    )


MODELS = {
    "pair_head": "encoder",
    "bradley_terry": "base",
    "classifier": "model",
}


@pytest.mark.parametrize("model", ["/no/such/folder", "no-such-model"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_is_not_there_is_named_by_its_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, model: str
) -> None:
    write_rows(tmp_path / "pairs.jsonl", pair_rows())
    config = write_config(tmp_path, reward={"funny": {"kind": kind, MODELS[kind]: model}})
    if model.startswith("/"):
        code, said = train("data", config, capsys)
    else:
        assert train("data", config, capsys)[0] == 0
        code, said = train("reward", config, capsys)
    assert code == 2
    assert said.startswith(f"preforch: error: reward.funny.{MODELS[kind]} = '{model}': ")


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "pairs are gone": ("data/pairs.jsonl", Path.unlink),
    "pairs are cut": ("data/pairs.jsonl", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "prompts are garbage": ("data/prompts.jsonl", lambda path: path.write_bytes(b"\xff\xfe")),
    "a head is gone": ("reward/funny/model.safetensors", Path.unlink),
    "a head is garbage": ("reward/funny/folds/0/model.safetensors", lambda path: path.write_bytes(b"x" * 99)),
    "a reward's description is gone": ("reward/funny/reward.json", Path.unlink),
    "its config is garbage": ("reward/funny/config.json", lambda path: path.write_bytes(b"{")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_artifact_that_somebody_damaged_is_named(
    config_file: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    for stage in ("data", "reward"):
        assert train(stage, config_file, capsys)[0] == 0
    name, change = DAMAGE[damage]
    change(config_file.parent / "run" / name)
    code, said = train("scores", config_file, capsys)
    assert code == 2
    assert said.startswith("preforch: error: ")
    assert name in said


@pytest.mark.parametrize("file", ["scores.parquet", "calibration.json"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"PAR1{")])
def test_scores_that_somebody_damaged_are_named(
    config_file: Path, capsys: pytest.CaptureFixture[str], file: str, change: Callable[[Path], object]
) -> None:
    for stage in ("data", "reward", "scores"):
        assert train(stage, config_file, capsys)[0] == 0
    change(config_file.parent / "run" / "scores" / file)
    code, said = train("orchestrator", config_file, capsys)
    assert code == 2
    assert f"scores/{file}" in said


@pytest.mark.parametrize(("stage", "kilobytes"), [("data", 8), ("reward", 4), ("scores", 4)])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    config_file: Path, capsys: pytest.CaptureFixture[str], stage: str, kilobytes: int
) -> None:
    """A limit on the size of files stands in for the disk: the system says no in the same place."""
    for before in ("data", "reward", "scores"):
        if before == stage:
            break
        assert train(before, config_file, capsys)[0] == 0
    limit = kilobytes * 1024

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-m", "preforch_cli", "train", stage, str(config_file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("preforch: error: ")
    names = {path.name for path in (config_file.parent / "run").iterdir()}
    assert stage not in names or not (config_file.parent / "run" / stage / "manifest.json").exists()
    assert not any(name.endswith(".partial") for name in names)


def test_a_template_that_refuses_a_conversation_names_the_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_qwen_classifier(tmp_path / "classifier")
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(refuses + CHAT_TEMPLATE, encoding="utf-8")
    rows = [{**row, "system": "Be terse."} for row in pair_rows()]
    write_rows(tmp_path / "pairs.jsonl", rows)
    source = {"path": "pairs.jsonl", "columns": {"objective": "objective", "system": "system"}}
    reward = {"funny": {"kind": "classifier", "model": str(folder)}}
    config = write_config(tmp_path, reward=reward, data={"sources": [source]})
    # Already here, where somebody counts what the classifier will cut.
    code, said = train("data", config, capsys)
    assert code == 2
    assert said.startswith("preforch: error: reward.funny: the chat template of ")
    assert "refuses a conversation of the turns system, user, assistant: no system turn" in said
    assert "its first user turn is 'joke about bear " in said
