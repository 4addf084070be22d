"""How every Hugging Face trainer runs here: a bar, metrics, trackers, and checkpoints that survive a kill.

In:  a trainer, its work folder (the trainer's `output_dir`), the artifact's folder, who hears of it.
Out: the trained trainer; `metrics.jsonl` in the artifact's folder, and `tensorboard/` where it was asked for.
     Optimiser and model end with the last reference to the trainer (a test counts the bytes that live).

All ranks run this together; rank 0 alone writes and reports, besides each rank's own part of a checkpoint.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from transformers import (
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import logging

from preforch_training.distributed.config import Sharding
from preforch_training.distributed.group import broadcast, rank, wait_for_all
from preforch_training.distributed.training import shares_model
from preforch_training.tuning.tracking import TENSORBOARD_FOLDER, Tracking, tracked

METRICS_FILE = "metrics.jsonl"
_COMPLETE = "complete"


class TrainingError(ValueError):
    """A training that went wrong; the message says at which step."""


def run_trainer(
    trainer: Trainer, *, work: Path, folder: Path, tracking: Tracking = Tracking()
) -> list[dict[str, float]]:
    """Train, or continue from the last whole checkpoint in `work`. Returns the log history. Raises
    TrainingError."""
    logging.disable_progress_bar()
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Watch(work))
    with tracked(tracking if rank() == 0 else Tracking(()), work) as trackers:
        for callback in (_Bar(), *trackers) if rank() == 0 else ():
            trainer.add_callback(callback)
        # What one rank sees of a shared file system another may not see yet.
        trainer.train(resume_from_checkpoint=broadcast(last_checkpoint(work)))
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(work / METRICS_FILE, folder / METRICS_FILE)
    if rank() == 0 and "tensorboard" in tracking.trackers:
        shutil.copytree(work / TENSORBOARD_FOLDER, folder / TENSORBOARD_FOLDER)
    history: list[dict[str, float]] = trainer.state.log_history
    return history


def last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that was written whole. Raises ValueError where it was sharded otherwise."""
    whole = [path.parent for path in work.glob(f"checkpoint-*/{_COMPLETE}")]
    if not whole:
        return None
    newest = max(whole, key=lambda path: int(path.name.split("-")[1]))
    found, wanted = (newest / _COMPLETE).read_text(encoding="utf-8"), _sharding()
    if found != wanted:
        raise ValueError(
            f"{newest} was written with sharding {found!r}, this process trains with {wanted!r}: continue "
            "with the same distributed.sharding (any number of ranks, but several for 'fsdp2'), "
            f"or delete {work} to begin again"
        )
    return str(newest)


def _sharding() -> Sharding:
    """How a checkpoint of this process is divided; one process alone divides nothing."""
    return "fsdp2" if shares_model() else "ddp"


class _Bar(ProgressCallback):  # type: ignore[misc]  # transformers is partly untyped
    """The bar with rate and time left, without a line per logged step."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Print nothing: the numbers are in metrics.jsonl and the trackers."""


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers is partly untyped
    """Writes metrics.jsonl, marks whole checkpoints, stops at a loss that is not finite, and where a training
    that was killed had already ended."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._ended = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # transformers forgets here what its checkpoint says: that all steps are done, or patience is over.
        self._ended = state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_training_stop |= self._ended

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._ended:
            control.should_log = control.should_evaluate = control.should_save = False

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The history is part of a checkpoint: a continued training rewrites what came after it.
        lines = [json.dumps(entry) + "\n" for entry in state.log_history]
        if rank() == 0:
            (self._work / METRICS_FILE).write_text("".join(lines), encoding="utf-8")
        for name in ("loss", "grad_norm", "train_loss"):
            value = state.log_history[-1].get(name, 0.0)
            if not math.isfinite(value):
                raise TrainingError(f"{name} is {value} at step {state.global_step}; lower the learning rate")

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Every rank has written its part, before the mark says so. A kill in the middle of a save leaves a
        # checkpoint without it.
        wait_for_all()
        if rank() == 0:
            mark = self._work / f"checkpoint-{state.global_step}" / _COMPLETE
            mark.write_text(_sharding(), encoding="utf-8")
