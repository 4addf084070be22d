"""All stages in order, each given its own section and what earlier stages made.

One process at a time works on a run; with several ranks that is rank 0, and the others do what it asks for.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from preforch_models.run_folder import RUN_FILE, RunInfo, read_run_info, write_run_info

from preforch_training.bundle import stage as bundle
from preforch_training.config import RunConfig, write_resolved
from preforch_training.data import stage as data
from preforch_training.distributed.launch import ranks
from preforch_training.distributed.shares import check_batch_size
from preforch_training.library_log import library_log
from preforch_training.orchestrator import stage as orchestrator
from preforch_training.paths import check_folders
from preforch_training.policy import stage as policy
from preforch_training.publishing.card import write_cards
from preforch_training.readers import readers_of
from preforch_training.report import stage as report
from preforch_training.reward import stage as reward
from preforch_training.run import Run
from preforch_training.sampling.choosing import ChoosingSampler
from preforch_training.sampling.settings import Engine
from preforch_training.sampling.vllm import Sampler, VllmSampler
from preforch_training.scores import stage as scores
from preforch_training.stages import STAGES
from preforch_training.study import stage as study
from preforch_training.tuning.tracking import check_installed

LOCK_FILE = ".lock"


def train(config: RunConfig, *, stage: str, processes: int | None = None) -> Run:
    """Build one stage, or `all`, with so many processes, or those that a launcher started. Raises ValueError
    when somebody else is at work on the run."""
    check_installed(config.run.report_to)
    run = open_run(config)
    engine = config.policy.engine if config.policy else Engine()
    with (
        only_one(run.folder),
        described(run.folder),
        library_log(run.logs / "libraries.log"),
        ranks(processes, config.distributed, logs=run.logs),
        VllmSampler(engine, log=run.logs / "vllm.log") as vllm,
    ):
        sampler = ChoosingSampler(vllm, dtype=engine.dtype)
        # Before any stage: the last of them may come after days.
        check_folders(config.models)
        for name, batch_size in config.shared_batches.items():
            check_batch_size(batch_size, name=name)
        for name in STAGES if stage == "all" else (stage,):
            vllm.reset_peak_memory()
            build(name, run, config, sampler)
            # After the stage: a config that fails its first stage leaves nothing behind.
            write_resolved(config, run.config_file)
            write_run_info(run.folder, RunInfo(serve=config.served))
            write_cards(run.folder, config)
    return run


def open_run(config: RunConfig) -> Run:
    """The run that a configuration describes."""
    return Run(
        folder=config.run.folder,
        seed=config.run.seed,
        objectives=config.objectives,
        context_format=config.context_format,
        preset=config.preset,
        scoring=config.scores.scoring,
        report_to=config.run.report_to,
    )


def build(stage: str, run: Run, config: RunConfig, sampler: Sampler) -> None:
    """One stage. Raises KeyError for an unknown one."""
    match stage:
        case "data":
            learned = [name for name, reward in config.reward.objectives.items() if reward.trained]
            data.build(run, config.data, learned=learned, readers=readers_of(config))
        case "reward":
            reward.build(run, config.reward)
        case "scores":
            scores.build(run, config.scores)
            if config.reward.overall is not None:
                scores.build(run.overall, config.scores)
        case "orchestrator":
            orchestrator.build(run, config.orchestrator)
        case "policy":
            if config.policy is not None:
                policy.build(run, config.policy, config.policies, sampler=sampler)
        case "bundle":
            bundle.build(run, config.bundle)
        case "study":
            if config.study != "off":
                study.build(run, config.study, study_subject(config))
        case "report":
            report.build(run, config.report, report_subject(run, config), sampler=sampler)
        case _:
            raise KeyError(stage)


def study_subject(config: RunConfig) -> study.StudySubject:
    """What the run itself chooses, which the study sets its alternatives against."""
    return study.StudySubject(
        rewards=config.reward.objectives,
        calibration=config.scores.calibration,
        orchestrator=config.orchestrator,
        data=config.data,
    )


def report_subject(run: Run, config: RunConfig) -> report.ReportSubject:
    """What a report is about."""
    return report.ReportSubject(
        source=config.data.source,
        overrides=config.overrides,
        studied=config.study != "off",
        policies={name: policy.folders(run, name, kind) for name, kind in config.policies.items()},
        served=config.served,
        snapshots={name: policy.snapshots(run, name, config.policies) for name in config.policies},
        sampling=None if config.policy is None else config.policy.sampling,
    )


@contextmanager
def described(folder: Path) -> Iterator[None]:
    """Have a `run.json` before the first artifact: a kill must not leave artifacts without it.

    A new one names no policy yet, and goes again where nothing was made. Raises ArtifactError for a run of
    another format, and leaves that as it is.
    """
    if read_run_info(folder) is None:
        write_run_info(folder, RunInfo())
    try:
        yield
    finally:
        if {path.name for path in folder.iterdir()} <= {RUN_FILE, LOCK_FILE}:
            (folder / RUN_FILE).unlink()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the run's lock; the kernel frees it when the process dies, however it dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"{folder}: another process is training this run") from error
    try:
        yield
    finally:
        # While the lock is held: whoever waits for the deleted file notices and opens a new one.
        (folder / LOCK_FILE).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # only when it is empty: the run failed before its first artifact
        lock.release()
