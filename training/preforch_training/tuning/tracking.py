"""Where a Hugging Face training is reported besides `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow.

In:  a `Tracking`, the work folder of the training.
Out: callbacks for its trainer, by transformers' own integrations; what stays on this machine lies in
     `tracking/` of the run.

Nothing goes online unless the environment says so: Weights & Biases is offline where WANDB_MODE is not set,
MLflow writes files where MLFLOW_TRACKING_URI is not set, and neither tells its maker how it is used. Each
training is a run of its own, closed when the training ends; one that continues after a kill keeps its id.
"""

import importlib.util
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from preforch_models.files import write_text

if TYPE_CHECKING:
    from transformers import TrainerCallback

Tracker = Literal["tensorboard", "wandb", "mlflow"]

TENSORBOARD_FOLDER = "tensorboard"
_WANDB_ID, _MLFLOW_ID = "wandb-run-id", "mlflow-run-id"
_OFFLINE = {
    "WANDB_MODE": "offline",
    # Both send reports to their makers unless told otherwise.
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""What the environment says where it says nothing."""


@dataclass(frozen=True)
class Tracking:
    """Who hears of a training, and by which name: run/stage/... as in `demo/policy/wic/round-1`.

    `folder`: of the run, for what is not sent anywhere.
    """

    trackers: tuple[Tracker, ...] = ("tensorboard",)
    name: str = "training"
    folder: Path = Path("tracking")

    @property
    def run_name(self) -> str:
        """The name of the run that the training belongs to."""
        return self.name.partition("/")[0]

    @property
    def stage(self) -> str:
        """The stage of the training."""
        return (*self.name.split("/"), "")[1]


def check_installed(trackers: Sequence[Tracker]) -> None:
    """Raise ValueError for a tracker whose package is not there. TensorBoard belongs to the training."""
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(
                f"run.report_to names {tracker!r}, which is not installed; "
                "pip install 'preference-orchestrator[tracking]'"
            )


@contextmanager
def tracked(tracking: Tracking, work: Path) -> Iterator[list["TrainerCallback"]]:
    """Callbacks of all trackers, whose runs are open as long as the block lasts.

    An error in the block marks them as failed.
    """
    # Here, because reading a configuration needs the names of the trackers alone.
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import (
        MLflowCallback,
        TensorBoardCallback,
        WandbCallback,
    )

    os.environ.update({key: os.environ.get(key, value) for key, value in _OFFLINE.items()})
    callbacks: list[TrainerCallback] = []
    with ExitStack() as stack:
        if "tensorboard" in tracking.trackers:
            writer = SummaryWriter(str(work / TENSORBOARD_FOLDER))
            callbacks.append(TensorBoardCallback(writer))
        if "wandb" in tracking.trackers:
            stack.enter_context(_wandb_run(tracking, work / _WANDB_ID))
            callbacks.append(WandbCallback())
        if "mlflow" in tracking.trackers:
            stack.enter_context(_mlflow_run(tracking, work / _MLFLOW_ID))
            callbacks.append(MLflowCallback())
        yield callbacks


@contextmanager
def _wandb_run(tracking: Tracking, id_file: Path) -> Iterator[None]:
    """A run of Weights & Biases; the callback finds it open."""
    import wandb

    if not id_file.exists():
        write_text(id_file, uuid.uuid4().hex[:16])
    tracking.folder.mkdir(parents=True, exist_ok=True)
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", "preforch"),
        group=tracking.run_name,
        job_type=tracking.stage,
        name=tracking.name,
        id=id_file.read_text(encoding="utf-8"),
        resume="allow",
        dir=os.environ.get("WANDB_DIR", str(tracking.folder)),
        # The terminal is the progress bar's, and not to be recorded.
        settings=wandb.Settings(silent=True, console="off"),
    ):
        yield


@contextmanager
def _mlflow_run(tracking: Tracking, id_file: Path) -> Iterator[None]:
    """A run of MLflow in the experiment of this run; the callback finds it open."""
    import mlflow

    ours = not mlflow.is_tracking_uri_set()
    if ours:
        # MLflow maintains its files no longer and wants to hear that they are meant; a database would need
        # SQLAlchemy.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((tracking.folder / "mlflow").resolve().as_uri())
    try:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", tracking.run_name)
        experiment = mlflow.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else mlflow.create_experiment(name)
        run_id = _known_run(id_file)
        with mlflow.start_run(run_id, experiment_id, run_name=tracking.name) as active:
            write_text(id_file, active.info.run_id)
            yield
            # The callback hands numbers over without waiting for them.
            mlflow.flush_async_logging()
    finally:
        if ours:
            mlflow.set_tracking_uri(None)


def _known_run(id_file: Path) -> str | None:
    """The run that a killed training reported to; None where there is none, or it was deleted meanwhile."""
    import mlflow

    if not id_file.exists():
        return None
    try:
        run = mlflow.get_run(id_file.read_text(encoding="utf-8"))
    except mlflow.exceptions.MlflowException:
        return None
    return str(run.info.run_id) if run.info.lifecycle_stage == "active" else None
