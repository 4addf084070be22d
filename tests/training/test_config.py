"""The configuration: complete, strict, filled by presets, and read back as it was written."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from preforch_training.config import ConfigError, RunConfig, read_config, write_resolved
from preforch_training.pipeline import open_run
from preforch_training.presets import PRESETS
from pydantic import ValidationError
from small_world import make_config, raw_config

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.toml"))
BASE = """
preset = "recommended"
scores = {}
objectives = [{name = "funny"}, {name = "safe", low = 0.1}]
[run]
folder = "runs/x"
seed = 3
[data]
source = "files"
sources = [{path = "a.jsonl", columns = {objective = "o"}}]
[reward.funny]
kind = "function"
function = "a.b:c"
[reward.safe]
kind = "endpoint"
url = "http://localhost:1"
[orchestrator]
epochs = 2
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, *settings: str, text: str = BASE) -> RunConfig:
    return read_config(write(folder, text), settings=settings)


# Presets.


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_every_choice_that_the_file_leaves_open(tmp_path: Path, preset: str) -> None:
    values = read(tmp_path, text=BASE.replace("recommended", preset)).model_dump(mode="json")
    for section, choices in PRESETS[preset].items():
        assert {key: values[section][key] for key in choices} == choices


def test_the_paper_preset_is_equations_7_and_8(tmp_path: Path) -> None:
    settings = read(tmp_path, text=BASE.replace("recommended", "paper")).orchestrator
    assert (settings.target, settings.tau, settings.loss) == ("chosen_softmax", 0.1, "reverse")
    assert (settings.learning_rate, settings.batch_size) == (1e-5, 32)


def test_the_paper_preset_switches_off_what_the_paper_does_not_do(tmp_path: Path) -> None:
    paper = read(tmp_path, text=BASE.replace("recommended", "paper"))
    assert (paper.reward.folds, paper.orchestrator.patience) == ("off", "off")
    assert paper.orchestrator.confidence == "off"
    assert paper.scores.calibration == "zscore"
    ours = read(tmp_path)
    assert (ours.reward.folds, ours.orchestrator.patience) == (5, 2)
    assert read(tmp_path, "reward.folds=3", text=BASE.replace("recommended", "paper")).reward.folds == 3


def test_what_the_file_says_wins_over_the_preset(tmp_path: Path) -> None:
    config = read(tmp_path, text=BASE + 'tau = 0.3\nloss = "reverse"\n')
    assert (config.orchestrator.tau, config.orchestrator.loss) == (0.3, "reverse")
    assert config.orchestrator.target == PRESETS["recommended"]["orchestrator"]["target"]


@pytest.mark.parametrize(
    "text", [BASE.replace("recommended", "best"), BASE.replace('preset = "recommended"', "")]
)
def test_an_unknown_or_missing_preset_names_the_allowed_ones(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"preset is .*; allowed are \['paper', 'recommended'\]"):
        read(tmp_path, text=text)


# Wrong files.


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert read_config(tmp_path / "config.toml") == read(tmp_path)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("colour=1", "colour"),
        ("run.colour=1", r"run\.colour"),
        ("orchestrator.learning_rat=1", r"orchestrator\.learning_rat"),
        ("reward.funny.max_tokens=1", r"reward\.funny\.function\.max_tokens"),
        ("data.sources=[{path='a', columns={colour='x'}}]", r"data\.sources\.0\.columns\.colour"),
        ("objectives=[{name='funny', colour=1}, {name='safe'}]", r"objectives\.0\.colour"),
    ],
)
def test_an_unknown_key_is_named_with_its_section(tmp_path: Path, setting: str, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"config\.toml: .*{named}: Extra inputs are not permitted"):
        read(tmp_path, setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("orchestrator.tau=0", r"orchestrator\.tau.*greater than 0"),
        ("orchestrator.tau=nan", r"orchestrator\.tau"),
        ("orchestrator.target=best", r"orchestrator\.target: .*'chosen_softmax'"),
        ("run.seed=-1", r"run\.seed: .*greater than or equal to 0"),
        ("run.seed=1979-05-27", r"run\.seed: .*integer"),
        ("reward.folds=1", r"reward\.folds.*: .*greater than or equal to 2"),
        ("reward.folds=none", r"reward\.folds.*: .*'off'"),
        ("orchestrator.patience=0", r"orchestrator\.patience.*: .*greater than or equal to 1"),
        ("reward.funny.kind=guess", r"reward\.funny: .*'pair_head'"),
        ("reward.funny.function=nocolon", r"reward\.funny\.function\.function: .*pattern"),
        ("reward.third.kind=function", r"third"),
        ("objectives=[{name='funny'}]", r"objectives: .*2 to 16 objectives"),
        (
            "objectives=[{name='funny'}, {name='overall'}]",
            r"objective 'overall': that is what the preference",
        ),
        (
            "run.folder=$NO_SUCH_VARIABLE/x",
            r"run\.folder: .*environment variable \$NO_SUCH_VARIABLE is not set",
        ),
        (
            "objectives=[{name='funny'}, {name='kind'}]",
            r"\[reward\.\*\] sections .* must be exactly the objectives",
        ),
        (
            "objectives=[{name='funny', low=0.511, high=0.512}, {name='safe'}]",
            r"no weights in steps of 0\.01",
        ),
        ("policy=3", "policy"),
        ("study=3", "study"),
        ("study.folds=2", r"study\..*folds: .*greater than or equal to 3"),
        ("study.features=[{pooling='max'}]", r"study\..*pooling: .*'mean'"),
        ("reward.funny={kind='pair_head', encoder='e', penalties=[]}", r"penalties: .*at least 1 item"),
        ("reward.funny={kind='pair_head', encoder='e', penalties=[0]}", r"penalties\.0: .*greater than 0"),
        ("orchestrator.layers=['last']", r"orchestrator\.layers\.0: .*integer"),
        ("data.validation_share=1", r"data\.validation_share: .*less than 1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, setting)


@pytest.mark.parametrize("section", ["run", "data", "orchestrator"])
def test_a_missing_section_is_named(tmp_path: Path, section: str) -> None:
    raw = raw_config(tmp_path)
    del raw[section]
    with pytest.raises(ValidationError, match=section):
        RunConfig.model_validate(raw)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize("data", [b"preset = ", b"[run\n", b"a = 1\na = 2\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.toml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"config\.toml: not valid TOML"):
        read_config(tmp_path / "config.toml")


# Settings of the command line.


def test_a_setting_wins_over_file_and_preset_and_the_last_one_wins(tmp_path: Path) -> None:
    config = read(tmp_path, "orchestrator.epochs=7", "orchestrator.tau=0.5", "run.seed=4", "run.seed=5")
    assert (config.orchestrator.epochs, config.orchestrator.tau, config.run.seed) == (7, 0.5, 5)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("run.folder=runs/y", "runs/y"),
        ('run.folder="runs/y"', "runs/y"),
        ("run.folder=runs/a=b", "runs/a=b"),
        (" run.folder =runs/y", "runs/y"),
    ],
)
def test_a_value_is_toml_and_where_it_is_not_a_plain_string(
    tmp_path: Path, setting: str, expected: str
) -> None:
    assert str(read(tmp_path, setting).run.folder) == expected


def test_a_setting_may_make_a_section_and_hold_a_list(tmp_path: Path) -> None:
    config = read(tmp_path, "bundle.golden_prompts=4", "objectives=[{name='safe'}, {name='funny'}]")
    assert config.bundle.golden_prompts == 4
    assert config.names == ("safe", "funny")


@pytest.mark.parametrize("setting", ["run.seed", "=3", "run.=3", ".seed=3", ""])
def test_a_setting_without_key_and_value_says_what_is_expected(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        read(tmp_path, setting)


@pytest.mark.parametrize("setting", ["run.seed.deep=3", "objectives.name=3", "preset.x=1"])
def test_a_setting_below_a_value_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match="is a value, not a section"):
        read(tmp_path, setting)


# What is written beside the run.


def resolved(config: RunConfig, folder: Path) -> RunConfig:
    (folder / "sub").mkdir()
    write_resolved(config, folder / "sub" / "resolved.toml")
    assert [path.name for path in (folder / "sub").iterdir()] == ["resolved.toml"]
    return read_config(folder / "sub" / "resolved.toml")


@pytest.mark.parametrize(
    "description", ["", 'say "hi" \\ there', "two\nlines\t\x7f", "Grüße 🙂 [x] = {y}", "a#b'c"]
)
def test_the_resolved_file_reads_back_equal(tmp_path: Path, description: str) -> None:
    raw = raw_config(tmp_path, orchestrator={"learning_rate": 1e-5})
    raw["objectives"] = [{"name": "funny", "description": description, "low": 0.05}, {"name": "safe"}]
    config = RunConfig.model_validate(raw)
    assert resolved(config, tmp_path) == config


def test_the_resolved_file_holds_every_default(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    write_resolved(config, tmp_path / "resolved.toml")
    written = tomllib.loads((tmp_path / "resolved.toml").read_text(encoding="utf-8"))

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(entry) for key, entry in value.items() if entry is not None}
        return [without_none(entry) for entry in value] if isinstance(value, list) else value

    assert written == without_none(json.loads(config.model_dump_json()))


def test_there_are_configs_to_load() -> None:
    assert {path.name for path in CONFIGS} >= {"demo.toml", "hh-assistant.toml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_of_the_repository_loads_and_reads_back_equal(tmp_path: Path, path: Path) -> None:
    config = read_config(path)
    assert resolved(config, tmp_path) == config


def test_a_run_knows_its_objectives_and_how_weights_are_written(tmp_path: Path) -> None:
    config = read(tmp_path, "context.encoding=levels")
    assert config.context_format.objectives == config.names == ("funny", "safe")
    assert config.context_format.units == 20
    assert open_run(config).folder == Path("runs/x")


def test_a_study_is_off_unless_the_file_has_its_section(tmp_path: Path) -> None:
    assert read(tmp_path).study == "off"
    heads = [f"reward.{name}={{kind='pair_head', encoder='e'}}" for name in ("funny", "safe")]
    config = read(
        tmp_path,
        *heads,
        "study.folds=4",
        "study.transfers=[{path='b.jsonl'}]",
        "study.features=[{pooling='cls'}]",
    )
    assert not isinstance(config.study, str)
    assert config.study.folds == 4
    assert str(config.study.features[0]) == "cls of layers -1"
    assert resolved(config, tmp_path) == config


HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "onnx",
    "onnxruntime",
    "sklearn",
    "scipy",
    "matplotlib",
    "vllm",
)


def test_reading_a_config_loads_no_model_library() -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom preforch_training.config import read_config\n"
        "read_config(Path(sys.argv[1]))\nprint(*sys.modules)"
    )
    for path in CONFIGS:
        command = [sys.executable, "-c", program, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        loaded = {name.partition(".")[0] for name in done.stdout.split()}
        assert "preforch_training" in loaded
        assert not loaded & set(HEAVY)
