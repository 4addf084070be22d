"""The commands of training: arguments in, exit code and artifacts out."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
from preforch_models.manifest import ArtifactError, verify
from preforch_training import cli
from preforch_training.config import ConfigError, read_config, write_resolved
from preforch_training.run import Run
from preforch_training.stages import STAGES
from small_world import make_config, pair_rows, write_rows


def parse(add: Callable[[argparse.ArgumentParser], None], *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args(words)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A config whose data is there."""
    write_rows(tmp_path / "pairs.jsonl", pair_rows())
    write_resolved(make_config(tmp_path), tmp_path / "config.toml")
    return tmp_path / "config.toml"


def test_one_stage_is_built_with_the_settings_and_the_resolved_config_lies_in_the_run(
    config_file: Path,
) -> None:
    args = parse(
        cli.add_train_arguments, "data", str(config_file), "--set", "run.seed=5", "--set", "reward.folds=3"
    )
    assert cli.run_train(args) == 0
    run = config_file.parent / "run"
    assert sorted(path.name for path in run.iterdir()) == ["config.toml", "data", "run.json"]
    assert verify(run / "data").config["seed"] == 5
    resolved = read_config(run / "config.toml")
    assert (resolved.run.seed, resolved.reward.folds) == (5, 3)


def test_the_demo_is_shown_of_its_own_world_alone(config_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shows what a policy answers, and there is none"):
        cli.run_demo(parse(cli.add_demo_arguments, "--config", str(config_file)))
    tutor = Path(__file__).parents[2] / "training" / "configs" / "tutor.toml"
    setting = f"run.folder={tmp_path / 'tutor'}"
    with pytest.raises(ValueError, match=r"prompts of the demo world, and data\.source is 'tutor'"):
        cli.run_demo(parse(cli.add_demo_arguments, "--config", str(tutor), "--set", setting))
    assert not (tmp_path / "tutor").exists()


def test_stages_build_on_each_other(config_file: Path) -> None:
    for stage in ("data", "reward", "scores"):
        assert cli.run_train(parse(cli.add_train_arguments, stage, str(config_file))) == 0
    assert verify(config_file.parent / "run" / "scores").inputs.keys() == {
        "data",
        "reward/funny",
        "reward/safe",
    }


def test_a_stage_whose_input_is_missing_says_so(config_file: Path) -> None:
    with pytest.raises(ArtifactError, match=r"data: no manifest\.json"):
        cli.run_train(parse(cli.add_train_arguments, "scores", str(config_file)))
    assert not (config_file.parent / "run").exists()


def test_every_stage_is_a_word_of_the_command_line(config_file: Path) -> None:
    for stage in ("all", *STAGES):
        assert parse(cli.add_train_arguments, stage, str(config_file)).stage == stage


def test_an_unknown_stage_ends_with_the_allowed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(cli.add_train_arguments, "training", "x.toml")
    assert "orchestrator" in capsys.readouterr().err


def test_a_wrong_setting_is_an_error_before_anything_is_made(config_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"orchestrator\.taw: Extra inputs"):
        cli.run_train(parse(cli.add_train_arguments, "data", str(config_file), "--set", "orchestrator.taw=1"))
    assert not (config_file.parent / "run").exists()


def test_demo_arguments_have_defaults() -> None:
    args = parse(cli.add_demo_arguments)
    assert (args.config, args.port, args.no_serve, args.settings) == (cli.DEMO_CONFIG, 8000, False, [])


def test_inspect_prints_what_there_is(
    toy_run: tuple[Run, object], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = toy_run
    assert cli.run_inspect(parse(cli.add_inspect_arguments, str(run.folder))) == 0
    assert capsys.readouterr().out.startswith(f"run {run.folder}, no policy to serve\n")
