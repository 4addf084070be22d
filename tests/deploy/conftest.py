"""The gateway's image, built once."""

import subprocess
import sys
from pathlib import Path

import pytest
from image import Builder, Image, copy_context


@pytest.fixture(scope="session")
def pip_cache() -> Path:
    """pip's own cache on this machine: nothing is downloaded twice."""
    command = [sys.executable, "-m", "pip", "cache", "dir"]
    folder = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def gateway_image(tmp_path_factory: pytest.TempPathFactory, pip_cache: Path) -> Image:
    """The target `gateway`, built as the Dockerfile says."""
    work = tmp_path_factory.mktemp("image")
    return Builder(context=copy_context(work / "context"), work=work / "stages", pip_cache=pip_cache).build(
        "gateway"
    )
