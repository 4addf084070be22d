"""A run's configuration: one TOML file, complete, every section beside the stage that reads it.

In:  a TOML file, and `section.key=value` settings from the command line.
Out: a validated `RunConfig`. An unknown key is an error that names it. Nothing here loads a model library.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from preforch_models.conditioning.members import engine_rank
from preforch_models.context import ContextFormat, Encoding
from preforch_models.files import write_text
from preforch_models.objectives import Objectives, Record, explain, names_of
from preforch_models.weights import round_within, uniform
from pydantic import Field, ValidationError, model_validator

from preforch_training.bundle.config import Config as BundleConfig
from preforch_training.data.config import Config as DataConfig
from preforch_training.distributed.config import Config as DistributedConfig
from preforch_training.orchestrator.config import Config as OrchestratorConfig
from preforch_training.paths import ConfigPath
from preforch_training.policy.config import NEW_FORM, RESERVED_NAMES, Policy
from preforch_training.policy.config import Config as PolicyConfig
from preforch_training.policy.settings.fine_tuning import BASE
from preforch_training.presets import POLICY_PRESETS, PRESETS, overrides
from preforch_training.publishing.config import Config as CardConfig
from preforch_training.records import OVERALL
from preforch_training.report.config import Config as ReportConfig
from preforch_training.reward.config import Config as RewardConfig
from preforch_training.scores.config import Config as ScoresConfig
from preforch_training.study.config import Config as StudyConfig
from preforch_training.tuning.tracking import Tracker


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names file and key."""


class RunSection(Record):
    """`folder` is relative to the working directory; everything random derives from `seed`."""

    folder: ConfigPath
    seed: int = Field(ge=0)
    report_to: tuple[Tracker, ...] = ("tensorboard",)
    """Who hears of the trainings by Hugging Face trainers, besides `metrics.jsonl`."""


class ContextSection(Record):
    """`digits` for pretrained policies, `levels` for policies too small to read numbers."""

    encoding: Encoding = "digits"


class RunConfig(Record):
    """One run. `preset` fills the method choices that the file leaves open; what the file says wins."""

    preset: Literal["paper", "recommended"]
    run: RunSection
    distributed: DistributedConfig = DistributedConfig()
    card: CardConfig = CardConfig()
    objectives: Objectives
    context: ContextSection = ContextSection()
    serve: str | None = None
    """Name of the policy that `preforch serve RUN` serves; needed where there are several."""
    data: DataConfig
    reward: RewardConfig
    scores: ScoresConfig
    orchestrator: OrchestratorConfig
    policy: PolicyConfig | None = None
    """What all policies share; a run without policies has none."""
    policies: dict[str, Policy] = Field(default={})
    bundle: BundleConfig = BundleConfig()
    study: StudyConfig | Literal["off"] = "off"
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        if OVERALL in self.names:
            raise ValueError(
                f"objective {OVERALL!r}: that is what the preference over all objectives is called; "
                "choose another name"
            )
        rewards = self.reward.objectives
        if set(rewards) != set(self.names):
            raise ValueError(
                f"[reward.*] sections {sorted(rewards)} must be exactly the objectives {list(self.names)}"
            )
        alone = sorted(name for name, reward in rewards.items() if not reward.cross_fitted)
        if alone and self.study != "off":
            raise ValueError(
                "[study] needs rewards that can be cross-fitted, such as 'pair_head'; "
                f"[reward.{alone[0]}] is {rewards[alone[0]].kind!r}; allowed is study = 'off'"
            )
        self._check_policies()
        self._check_overall_reward()
        self._check_sharding()
        # Raises where no weights on the grid of the context satisfy the bounds.
        round_within(uniform(self.names), self.objectives, self.context_format.units)
        return self

    def _check_policies(self) -> None:
        if bool(self.policies) != (self.policy is not None):
            raise ValueError(f"[policy] and [policies.NAME] go together: {NEW_FORM}")
        for name in self.policies:
            if name in RESERVED_NAMES or not re.fullmatch("[a-z][a-z0-9_-]*", name):
                raise ValueError(
                    f"[policies.{name}]: the name is a folder; allowed are lower-case letters, digits, '_' "
                    f"and '-', first a letter, but not {', '.join(RESERVED_NAMES)}"
                )
        self._check_starts()
        self._check_report()
        if self.serve is not None and self.serve not in self.policies:
            raise ValueError(f"serve is {self.serve!r}, the policies are {sorted(self.policies)}")
        servable = sorted(name for name, policy in self.policies.items() if policy.can_be_served)
        if self.serve is None and len(self.policies) > 1:
            raise ValueError(f'serve = "NAME" must say which policy is served: one of {servable}')
        if self.served is not None and self.served not in servable:
            raise ValueError(
                f"serve is {self.served!r}, of kind {self.policies[self.served].kind!r}, which no engine can "
                f"serve and only the report draws from; allowed are {servable}"
            )

    def _check_report(self) -> None:
        """What the report is to compare is there."""
        without, report = without_weights(self.policies), self.report
        named = {
            "reference": report.reference,
            "best_of.policy": None if report.best_of is None else report.best_of.policy,
        }
        for key, name in named.items():
            if name is not None and name not in without:
                raise ValueError(
                    f"report.{key} is {name!r}; allowed are policies that read no weights: {without}"
                )
        if report.pairs and self.data.world is None:
            raise ValueError(
                f"report.pairs compares true utilities, which data.source = {self.data.source!r} does not "
                'know; leave it out, or take a generated world such as "demo"'
            )
        if unknown := {name for pair in report.pairs for name in pair} - set(self.policies):
            raise ValueError(f"report.pairs names {min(unknown)!r}, the policies are {sorted(self.policies)}")

    def _check_overall_reward(self) -> None:
        """The one overall reward is there if, and only if, a policy is trained by it."""
        users = [name for name, policy in self.policies.items() if policy.by_overall]
        if users and self.reward.overall is None:
            raise ValueError(
                f'policies.{users[0]}.weights is "overall", the one overall reward, and there is no '
                "[reward.overall]; add it, or give weights of the objectives"
            )
        if self.reward.overall is not None and not users:
            raise ValueError(
                "[reward.overall] has no use: no policy is of kind 'rl' with weights = \"overall\"; "
                "remove it, or add such a policy"
            )

    def _check_starts(self) -> None:
        """A policy starts from the base or from one further up whose prompts are written as its own."""
        above: dict[str, list[str]] = {}
        for name, policy in self.policies.items():
            known = [BASE, *above.get(policy.reads, [])]
            if policy.start not in known:
                reads = "no weights" if policy.reads == "fixed" else f"weights by {policy.reads!r}"
                raise ValueError(
                    f"policies.{name}.start is {policy.start!r}; allowed are {known}: the base, and policies "
                    f"further up that read {reads}, as it does itself"
                )
            self._check_merged(name, policy.merges)
            self._check_members(name, policy.mixes, without_weights(self.policies), "that read no weights")
            rounds = [f"{name}/round-{number}" for number in range(policy.rounds)]
            above.setdefault(policy.reads, []).extend([name, *rounds])
            if unknown := set(policy.names_objectives) - set(self.names):
                raise ValueError(
                    f"policies.{name} names the objective {min(unknown)!r}; allowed are {list(self.names)}"
                )

    def _check_members(
        self, name: str, members: Mapping[str, str], fitting: Sequence[str], which: str
    ) -> None:
        """There is one for each objective, all of them further up and among the fitting policies."""
        if not members:
            return
        if set(members) != set(self.names):
            raise ValueError(
                f"policies.{name}.members names {sorted(members)}; one is needed for each of "
                f"{list(self.names)}"
            )
        above = list(self.policies)[: list(self.policies).index(name)]
        allowed = [policy for policy in above if policy in fitting]
        for objective, member in members.items():
            if member not in allowed:
                raise ValueError(
                    f"policies.{name}.members.{objective} is {member!r}; allowed are policies {which}, "
                    f"further up: {allowed}"
                )

    def _check_merged(self, name: str, members: Mapping[str, str]) -> None:
        """What is merged is LoRA from one start, of a rank that can be served."""
        fitting = [policy for policy, settings in self.policies.items() if settings.is_one_adapter]
        which = "of kind 'rl', trained in one run with lora_rank"
        self._check_members(name, members, fitting, which)
        starts = {self.policies[member].start for member in members.values()}
        if len(starts) > 1:
            raise ValueError(f"policies.{name}.members start from {sorted(starts)}; one start is needed")
        try:
            engine_rank(
                sum(self.policies[member].trainings["training"].lora_rank for member in members.values())
            )
        except ValueError as error:
            raise ValueError(f"policies.{name}: its members together are {error}") from error

    def _check_sharding(self) -> None:
        if self.distributed.sharding != "fsdp2":
            return
        for name, policy in self.policies.items():
            if not policy.can_be_sharded:
                raise ValueError(
                    f"policies.{name} is of kind {policy.kind!r} and distributed.sharding 'fsdp2', which was "
                    "never tried with that kind: allowed is 'ddp'"
                )
            for part, training in policy.trainings.items():
                if training.lora_rank:
                    raise ValueError(
                        f"policies.{name}.{part}.lora_rank is {training.lora_rank} and distributed.sharding "
                        "'fsdp2', which cannot shard what LoRA trains of the embeddings: allowed are 'ddp' "
                        "or lora_rank = 0"
                    )

    @property
    def names(self) -> tuple[str, ...]:
        """Objective names, in order."""
        return names_of(self.objectives)

    @property
    def context_format(self) -> ContextFormat:
        """How this run writes weights into prompts."""
        return ContextFormat(objectives=self.names, encoding=self.context.encoding)

    @property
    def shared_batches(self) -> dict[str, int]:
        """Batch sizes that the ranks of a run share, by their keys."""
        rewards = {f"reward.{name}": reward.shared_batch for name, reward in self.reward.rewards.items()}
        policies = {
            f"policies.{name}.{part}": training.batch_size
            for name, policy in self.policies.items()
            for part, training in policy.trainings.items()
        }
        found = rewards | {"orchestrator": self.orchestrator.shared_batch} | policies
        return {f"{key}.batch_size": value for key, value in found.items() if value is not None}

    @property
    def models(self) -> dict[str, str]:
        """Models that the run starts from, by the keys that name them."""
        rewards = self.reward.rewards.items()
        found = {f"reward.{name}.{reward.names_model}": reward.base_model for name, reward in rewards}
        found["orchestrator.encoder"] = self.orchestrator.encoder
        if self.policy is not None:
            found["policy.base"] = self.policy.base
        return {key: model for key, model in found.items() if model}

    @property
    def overrides(self) -> tuple[str, ...]:
        """What this run has otherwise than its preset, a line each."""
        return overrides(self.preset, self.model_dump(mode="json"))

    @property
    def served(self) -> str | None:
        """Name of the policy to serve; None where there is none."""
        return self.serve or next(iter(self.policies), None)


def without_weights(policies: Mapping[str, Policy]) -> list[str]:
    """Those that answer alike whatever the weights are."""
    return [name for name, policy in policies.items() if not policy.reads_weights]


def read_config(path: Path, *, settings: tuple[str, ...] = ()) -> RunConfig:
    """Read a TOML file, apply `section.key=value` settings and the preset. Raises ConfigError."""
    try:
        # Editors on Windows put a byte-order mark before the text.
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for setting in settings:
        _apply_setting(raw, setting)
    _refuse_format_1(raw, where=str(path))
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


def _refuse_format_1(raw: dict[str, Any], *, where: str) -> None:
    """Files written before policies had kinds: one `[policy]`, and `folds` among the scores."""
    policy = raw.get("policy")
    if policy is not None and (not isinstance(policy, dict) or "policies" not in raw):
        raise ConfigError(f"{where}: [policy] has the form of an earlier version; {NEW_FORM}")
    if isinstance(scores := raw.get("scores"), dict) and "folds" in scores:
        raise ConfigError(
            f"{where}: scores.folds belongs to the rewards now: write [reward] folds = {scores['folds']}"
        )


def _apply_preset(raw: dict[str, Any], *, where: str) -> None:
    """Fill in the preset's method choices where the file is silent."""
    preset = raw.get("preset")
    if preset not in PRESETS:
        raise ConfigError(f"{where}: preset is {preset!r}; allowed are {sorted(PRESETS)}")
    for section, choices in PRESETS[preset].items():
        table = raw.get(section, {})
        if isinstance(table, dict):
            raw[section] = _filled(table, choices)
    policies = raw.get("policies", {})
    for name, table in policies.items() if isinstance(policies, dict) else ():
        if isinstance(table, dict):
            policies[name] = _filled(table, POLICY_PRESETS[preset].get(str(table.get("kind")), {}))


def _filled(table: dict[str, Any], choices: dict[str, Any]) -> dict[str, Any]:
    """The table, with choices where it is silent. A table inside it is filled where it exists, never made."""
    filled = {**{key: value for key, value in choices.items() if not isinstance(value, dict)}, **table}
    for key, value in choices.items():
        if isinstance(value, dict) and isinstance(inner := filled.get(key), dict):
            filled[key] = _filled(inner, value)
    return filled


def write_resolved(config: RunConfig, path: Path) -> None:
    """Write the configuration with every default filled in, as TOML that `read_config` reads back."""
    # TOML has no null: what is None is left out, and means the same when it is read back.
    values = config.model_dump(mode="json", exclude_none=True)
    comment = "# The complete configuration of this run, every default filled in.\n"
    write_text(path, comment + tomli_w.dumps(values))
