"""Tiny encoders and one trained toy run that several test modules share; read them, never change them."""

from pathlib import Path

import pytest
import small_world
import torch
from preforch_models.run_folder import RunInfo, write_run_info
from preforch_training.config import RunConfig
from preforch_training.run import Run


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """More threads only wait for each other in models this small."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT."""
    return small_world.write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def toy_run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunConfig]:
    """A run whose orchestrator has learned the toy rule, with its bundle."""
    run, config = small_world.make_run(tmp_path_factory.mktemp("toy"), orchestrator={"encoder": str(encoder)})
    for stage in ("data", "reward", "scores", "orchestrator", "bundle"):
        small_world.build(stage, run, config)
    write_run_info(run.folder, RunInfo())
    return run, config
