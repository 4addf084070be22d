"""A run: one folder, all its paths, what every stage knows of it, and the rule by which a stage is built,
skipped or continued.

A stage's artifact is written whole (`preforch_models.manifest.writing`). What a killed stage needs to
continue lies in a work folder beside it, bound to the stage's config and inputs, and goes when the stage is
done.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from preforch_models.context import ContextFormat
from preforch_models.manifest import (
    MANIFEST,
    ArtifactError,
    Manifest,
    digest,
    read_manifest,
    sha256_of,
    verify,
    write_manifest,
    writing,
)
from preforch_models.objectives import Objective, Objectives, names_of

from preforch_training.distributed.config import Scorer
from preforch_training.records import (
    OVERALL,
    PreferencePair,
    Prompt,
    StoredPrompts,
    each_record,
    read_records,
)
from preforch_training.tuning.tracking import Tracker, Tracking

PROMPTS_FILE = "prompts.jsonl"
PAIRS_FILE = "pairs.jsonl"


@dataclass(frozen=True)
class Outcome:
    """What a build tells its manifest. `peak_memory_mib` covers child processes that the build ran."""

    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    peak_memory_mib: float = 0.0


Build = Callable[[Path, Path], Outcome]
"""build(folder to fill, work folder that survives a kill)."""


@dataclass(frozen=True)
class Run:
    """Paths of a run, and what all its stages share. Nobody else joins paths."""

    folder: Path
    seed: int
    objectives: Objectives
    context_format: ContextFormat
    preset: str
    scoring: Scorer = field(default=Scorer())
    """What scores many responses."""
    report_to: tuple[Tracker, ...] = ("tensorboard",)
    scores_folder: str = "scores"

    @property
    def overall(self) -> "Run":
        """The same run as if the overall preference were its only objective: with that one reward, its scores
        and its calibration. For what reads rewards; policies and bundles are made for the objectives."""
        return replace(self, objectives=(Objective(name=OVERALL),), scores_folder=f"scores-{OVERALL}")

    @property
    def names(self) -> tuple[str, ...]:
        """Objective names, in order."""
        return names_of(self.objectives)

    @property
    def config_file(self) -> Path:
        """The configuration, every default filled in."""
        return self.folder / "config.toml"

    @property
    def logs(self) -> Path:
        """What third parties print."""
        return self.folder / "logs"

    def tracking(self, *parts: str) -> Tracking:
        """Who hears of a training, which is named by its place in the run, stage first.

        No part of a recipe: another tracker trains nothing again.
        """
        return Tracking(self.report_to, "/".join((self.folder.name, *parts)), self.folder / "tracking")

    @property
    def data(self) -> Path:
        """Artifact of stage `data`."""
        return self.folder / "data"

    def prompts(self, split: str | None = None) -> list[Prompt]:
        """Prompts of one split, or all."""
        found = read_records(self.data / PROMPTS_FILE, Prompt)
        return [prompt for prompt in found if split in (None, prompt.split)]

    def stored_prompts(self) -> StoredPrompts:
        """All prompts by id, left on the disk."""
        return StoredPrompts(self.data / PROMPTS_FILE)

    def each_pair(self, objective: str | None = None, split: str | None = None) -> Iterator[PreferencePair]:
        """Preference pairs of one objective (or `overall`) and one split; all where neither is given."""
        for pair in each_record(self.data / PAIRS_FILE, PreferencePair):
            if objective in (None, pair.objective) and split in (None, pair.split):
                yield pair

    def pairs(self, objective: str | None = None, split: str | None = None) -> list[PreferencePair]:
        """The same, all in memory."""
        return list(self.each_pair(objective, split))

    @property
    def encoder_cache(self) -> Path:
        """Vectors of texts by frozen encoders."""
        return self.folder / "encoder_cache"

    def reward(self, objective: str) -> Path:
        """Artifact of stage `reward` for one objective."""
        return self.folder / "reward" / objective

    @property
    def rewards(self) -> dict[str, Path]:
        """All reward artifacts, by the name that they have as inputs of later stages."""
        return {f"reward/{name}": self.reward(name) for name in self.names}

    @property
    def scores(self) -> Path:
        """Artifact of stage `scores`."""
        return self.folder / self.scores_folder

    @property
    def orchestrator(self) -> Path:
        """Artifact of stage `orchestrator`."""
        return self.folder / "orchestrator"

    @property
    def policy_base(self) -> Path:
        """The model that every policy starts from."""
        return self.folder / "policy" / "base"

    def policy_round(self, name: str, number: int) -> Path:
        """Round `number` of a policy, 0 the offline one."""
        return self.folder / "policy" / name / f"round-{number}"

    def policy_run(self, name: str, number: int) -> Path:
        """Training `number`, from 1, of a policy that several make."""
        return self.folder / "policy" / name / f"run-{number}"

    @property
    def bundle(self) -> Path:
        """Artifact of stage `bundle`."""
        return self.folder / "bundle"

    @property
    def study(self) -> Path:
        """Artifact of stage `study`."""
        return self.folder / "study"

    @property
    def report(self) -> Path:
        """Artifact of stage `report`."""
        return self.folder / "report"

    def seed_for(self, *parts: str | int) -> int:
        """A seed of its own for (stage, round, ...), from the run's seed; 31 bits."""
        text = json.dumps([self.seed, *parts])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1

    def make(
        self, target: Path, *, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Path], build: Build
    ) -> Manifest:
        """Build an artifact unless it is there with this config and these inputs; then it is skipped."""
        wanted = {name: digest(_input(path, self.folder).files) for name, path in inputs.items()}
        recipe = json.loads(json.dumps(dict(config)))
        label = target.relative_to(self.folder).as_posix()
        found = _finished(target, kind)
        if found is not None and found.config == recipe and found.inputs == wanted:
            print(f"{label}: up to date", file=sys.stderr, flush=True)
            # A kill between the rename and this line's twin below leaves it.
            shutil.rmtree(work_folder(target), ignore_errors=True)
            return found
        print(f"{label}: building", file=sys.stderr, flush=True)
        work = _open_work(target, digest({"config": recipe, "inputs": wanted}))
        _reset_peak_memory()
        start = time.monotonic()
        with _tidy(work), _blaming(inputs.values()), writing(target) as folder:
            outcome = build(folder, work)
            manifest = write_manifest(
                folder,
                Manifest(
                    kind=kind,
                    config=recipe,
                    inputs=wanted,
                    counts=outcome.counts,
                    metrics=outcome.metrics,
                    # A continued stage counts its last attempt only.
                    seconds=round(time.monotonic() - start, 2),
                    peak_memory_mib=round(max(peak_memory_mib(), outcome.peak_memory_mib), 1),
                    versions={
                        name: version(name) for name in ("preference-orchestrator", "torch", "transformers")
                    },
                ),
            )
        shutil.rmtree(work)
        print(f"{label}: done in {manifest.seconds:.0f} s", file=sys.stderr, flush=True)
        return manifest


def _input(path: Path, run: Path) -> Manifest:
    """The manifest of what a stage reads. Raises ArtifactError naming the stage that makes it."""
    try:
        return read_manifest(path)
    except ArtifactError as error:
        # A stage's second artifact is named after its first.
        stage = path.relative_to(run).parts[0].partition("-")[0]
        raise ArtifactError(f"{error}; `preforch train {stage} CONFIG` makes it") from error


@contextmanager
def _blaming(inputs: Iterable[Path]) -> Iterator[None]:
    """After an error, look whether something that was read is damaged: then that is what to say."""
    try:
        yield
    except Exception:
        for path in inputs:
            verify(path)
        raise


def _finished(target: Path, kind: str) -> Manifest | None:
    """The manifest of a finished artifact, None when there is none."""
    if not (target / MANIFEST).exists():
        return None
    try:
        return read_manifest(target, kind=kind)
    except ArtifactError as error:
        raise ArtifactError(f"{error}; delete {target} to build it again") from error


def origin_of(name: str) -> str:
    """What identifies a model that a config names: its files' hashes where it is a local folder, else the
    name.

    It belongs in the recipe of what is made from the model, so that a changed folder is noticed.
    """
    folder = Path(name)
    if not name or not folder.is_dir():
        return name
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return digest(
        {
            str(path.relative_to(folder)): _sha256_once(path.resolve(), found.st_size, found.st_mtime_ns)
            for path, found in files.items()
        }
    )


@lru_cache(maxsize=4096)
def _sha256_once(path: Path, _size: int, _modified: int) -> str:
    """Of a file, which is read anew when its size or time change: a model is named many times in one
    process."""
    return sha256_of(path)


def work_folder(target: Path) -> Path:
    """Where a stage keeps what a killed build needs to continue."""
    return target.with_name(f".{target.name}.work")


@contextmanager
def _tidy(work: Path) -> Iterator[None]:
    """After an error, remove a work folder that holds nothing to continue from."""
    try:
        yield
    except BaseException:
        if [path.name for path in work.iterdir()] == ["key"]:
            shutil.rmtree(work)
        raise


def _open_work(target: Path, key: str) -> Path:
    """The stage's work folder; emptied when it belongs to another config or other inputs."""
    work = work_folder(target)
    mark = work / "key"
    if not mark.exists() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        mark.write_text(key, encoding="utf-8")
    return work


def _reset_peak_memory() -> None:
    """Start this process's peak memory afresh (Linux), so that each stage reports its own."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mib() -> float:
    """Peak resident memory of this process since the last reset, MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM line")
