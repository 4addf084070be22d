"""Policies on the way of a training: what the report draws learning curves from (METHOD 9, convergence).

In:  a model in training, the steps after which it is kept, how a policy is written.
Out: `snapshots/step-<n>/` of the artifact, whole policies. A continued training writes those again that come
     after its checkpoint, the same ones.
"""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from preforch_training.distributed.group import rank
from preforch_training.policy.checkpoint import Writer
from preforch_training.tuning.tuned_model import finished

FOLDER = "snapshots"


class Snapshots(TrainerCallback):  # type: ignore[misc]  # transformers is partly untyped
    """Keeps the model after some steps in `work`, which survives a kill; `write` makes a policy of it."""

    def __init__(
        self,
        steps: Sequence[int],
        write: Writer,
        *,
        dtype: torch.dtype,
        work: Path,
    ) -> None:
        self._steps, self._write, self._dtype, self._work = frozenset(steps), write, dtype, work

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write a copy, since merging LoRA ends a model; before the checkpoint of the same step, which
        therefore finds it whole."""
        if state.global_step not in self._steps or rank() != 0:
            return
        target = snapshot(self._work, state.global_step)
        shutil.rmtree(target, ignore_errors=True)
        self._write(target, finished(copy.deepcopy(kwargs["model"]), self._dtype))

    def copy_to(self, folder: Path) -> None:
        """Put them into the artifact; a kill before that is whole still finds them in `work`."""
        if self._steps and rank() == 0:
            shutil.copytree(self._work / FOLDER, folder / FOLDER, dirs_exist_ok=True)


def snapshot(policy: Path, step: int) -> Path:
    """Where the one of a policy after a step lies."""
    return policy / FOLDER / f"step-{step}"
