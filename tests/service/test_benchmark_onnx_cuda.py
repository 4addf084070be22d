"""The benchmark of IO binding says so where there is no GPU, and runs through on a CPU."""

import runpy
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
from preforch_service.recommendation.onnx_session import CUDA

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "onnx_cuda.py"


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], int]:
    entry: Callable[[list[str]], int] = runpy.run_path(str(SCRIPT))["main"]
    return entry


def test_it_prints_a_row_for_each_size_of_a_batch(
    main: Callable[[list[str]], int], bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle_folder), "--device", "cpu", "--repeats", "2", "--rows", "1", "3"]) == 0
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split("|")[1].strip() for line in rows] == ["1 x 32", "3 x 32"]


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="there is a GPU")
def test_it_says_so_where_there_is_no_gpu(
    main: Callable[[list[str]], int], bundle_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle_folder)]) == 2
    assert "no GPU to measure: device 'cuda' needs CUDAExecutionProvider" in capsys.readouterr().err
