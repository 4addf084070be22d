"""`orchestrator.json`: how f was fitted, and the weights that come with it. Beside the checkpoint in its
folder."""

from pathlib import Path

from preforch_models.manifest import read_manifest
from preforch_models.objectives import Record
from preforch_models.weights import Weights

from preforch_training.orchestrator.config import Config

INFO_FILE = "orchestrator.json"


class OrchestratorInfo(Record):
    """`tau`: the config's, or the one that was fitted. `fallback`: the best constant of the loss (METHOD 4).
    `mean_weights`: those served for training prompts."""

    config: Config
    tau: float
    fallback: Weights
    mean_weights: Weights


def write_orchestrator_info(folder: Path, info: OrchestratorInfo) -> None:
    """Write the file into an artifact in the making."""
    (folder / INFO_FILE).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_orchestrator_info(folder: Path) -> OrchestratorInfo:
    """How a finished orchestrator was fitted. Raises ArtifactError where it is not finished."""
    read_manifest(folder, kind="orchestrator")
    return OrchestratorInfo.model_validate_json((folder / INFO_FILE).read_text(encoding="utf-8"))
