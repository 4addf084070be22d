"""A run's configuration: one TOML file, complete, every section beside the stage that reads it.

In:  a TOML file, and `section.key=value` settings from the command line.
Out: a validated `RunConfig`. An unknown key is an error that names it.
"""

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from preforch_models.context import ContextFormat, Encoding
from preforch_models.objectives import Objectives, Record, explain, names_of
from preforch_models.weights import round_within, uniform
from pydantic import Field, ValidationError, model_validator

from preforch_training.bundle.stage import Config as BundleConfig
from preforch_training.data.stage import Config as DataConfig
from preforch_training.orchestrator.stage import Config as OrchestratorConfig
from preforch_training.policy.stage import Config as PolicyConfig
from preforch_training.presets import PRESETS
from preforch_training.report.stage import Config as ReportConfig
from preforch_training.reward.scoring import Config as RewardConfig
from preforch_training.run import Run
from preforch_training.scores.stage import Config as ScoresConfig
from preforch_training.study.stage import Config as StudyConfig


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names file and key."""


class RunSection(Record):
    """`folder` is relative to the working directory; everything random derives from `seed`."""

    folder: Path
    seed: int = Field(ge=0)


class ContextSection(Record):
    """`digits` for pretrained policies, `levels` for policies too small to read numbers."""

    encoding: Encoding = "digits"


class RunConfig(Record):
    """One run. `preset` fills the method choices that the file leaves open; what the file says wins."""

    preset: Literal["paper", "recommended"]
    run: RunSection
    objectives: Objectives
    context: ContextSection = ContextSection()
    data: DataConfig
    reward: dict[str, RewardConfig]
    scores: ScoresConfig
    orchestrator: OrchestratorConfig
    policy: PolicyConfig | Literal["off"]
    bundle: BundleConfig = BundleConfig()
    study: StudyConfig | Literal["off"] = "off"
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if set(self.reward) != set(self.names):
            raise ValueError(
                f"[reward.*] sections {sorted(self.reward)} must be exactly the objectives {self.names}"
            )
        others = sorted(name for name, reward in self.reward.items() if reward.kind != "pair_head")
        if others and not isinstance(self.study, str):
            raise ValueError(
                f"[study] needs 'pair_head' rewards, {others[0]!r} is none; allowed is study = 'off'"
            )
        # Raises where no weights on the grid of the context satisfy the bounds.
        round_within(uniform(self.names), self.objectives, self.context_format.units)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Objective names, in order."""
        return names_of(self.objectives)

    @property
    def context_format(self) -> ContextFormat:
        """How this run writes weights into prompts."""
        return ContextFormat(objectives=self.names, encoding=self.context.encoding)

    def open_run(self) -> Run:
        """The run's paths and seed."""
        return Run(folder=self.run.folder, seed=self.run.seed)


def read_config(path: Path, *, settings: tuple[str, ...] = ()) -> RunConfig:
    """Read a TOML file, apply `section.key=value` settings and the preset. Raises ConfigError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for setting in settings:
        _apply_setting(raw, setting)
    _apply_preset(raw, where=str(path))
    try:
        return RunConfig.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from error


def _apply_setting(raw: dict[str, Any], setting: str) -> None:
    """`a.b=value`: the value is read as TOML, and as a plain string where that fails."""
    key, separator, text = setting.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {setting!r}: expected section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = raw
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {setting!r}: {part!r} is a value, not a section")
    table[parts[-1]] = value


def _apply_preset(raw: dict[str, Any], *, where: str) -> None:
    """Fill in the preset's method choices where the file is silent."""
    preset = raw.get("preset")
    if preset not in PRESETS:
        raise ConfigError(f"{where}: preset is {preset!r}; allowed are {sorted(PRESETS)}")
    for section, choices in PRESETS[preset].items():
        table = raw.get(section, {})
        if isinstance(table, dict):
            raw[section] = {**choices, **table}


def write_resolved(config: RunConfig, path: Path) -> None:
    """Write the configuration with every default filled in, as TOML that `read_config` reads back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = config.model_dump(mode="json")
    lines = ["# The complete configuration of this run, every default filled in."]
    lines += _toml_lines(values, ())
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(path)


def _toml_lines(table: dict[str, Any], prefix: tuple[str, ...]) -> list[str]:
    """TOML of a table: plain values first, then tables. JSON's strings, numbers and lists are TOML's."""
    lines = []
    # TOML has no null: what is None is left out, and means the same when it is read back.
    table = {key: value for key, value in table.items() if value is not None}
    for key, value in table.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inline = ", ".join(_inline_table(item) for item in value)
            lines.append(f"{key} = [{inline}]")
        elif not isinstance(value, dict):
            lines.append(f"{key} = {_toml_value(value)}")
    for key, value in table.items():
        if isinstance(value, dict):
            name = (*prefix, json.dumps(key) if not key.replace("_", "").replace("-", "").isalnum() else key)
            lines += ["", f"[{'.'.join(name)}]", *_toml_lines(value, name)]
    return lines


def _toml_value(value: Any) -> str:
    """A value that is no table. JSON leaves the delete character as it is, TOML wants it escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline_table(item: dict[str, Any]) -> str:
    """A table inside a list, on one line."""
    pairs = []
    for key, value in item.items():
        if value is not None:
            text = _inline_table(value) if isinstance(value, dict) else _toml_value(value)
            pairs.append(f"{key} = {text}")
    return "{" + ", ".join(pairs) + "}"
