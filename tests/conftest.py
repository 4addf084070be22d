"""Parts that several test modules share; made once per session."""

import gc
import os
from pathlib import Path

# Before huggingface_hub is imported: a test that asks a hub waits for it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import pytest
import tiny
from preforch_models.bundle import Bundle, read_bundle


def pytest_collection_finish() -> None:
    """Without the objects of imported libraries, millions, a collection of cycles takes milliseconds: every
    training ends with one."""
    gc.collect()
    gc.freeze()


# A busy machine is no fault of the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run: bundle and policy. Read it, never change it."""
    return tiny.write_run(tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture(scope="session")
def bundle_folder(run_folder: Path) -> Path:
    """The tiny run's bundle."""
    return run_folder / "bundle"


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    """The tiny run's bundle, read."""
    return read_bundle(bundle_folder)
