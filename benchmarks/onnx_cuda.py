"""The orchestrator on a GPU: plain `run` of ONNX Runtime against IO binding, and several sizes of a batch.

In:  a bundle. Out: a Markdown table on stdout; without a GPU that ONNX Runtime can use, a line that says so,
     exit 2. Fails when the two ways differ by more than 1e-4.

    python benchmarks/onnx_cuda.py runs/demo/bundle --repeats 50
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from preforch_models.bundle import Bundle, read_bundle
from preforch_service.recommendation.onnx_session import DeviceError, OnnxSession

TOLERANCE = 1e-4
ROWS = (1, 8, 32, 128, 256)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, or that there is no GPU."""
    options = parse(argv)
    bundle = read_bundle(options.bundle)
    try:
        plain, bound = (
            OnnxSession(bundle, device=options.device, threads=2, precision="fp32", io_binding=io_binding)
            for io_binding in (False, True)
        )
    except DeviceError as error:
        print(f"no GPU to measure: {error}", file=sys.stderr)
        return 2
    print(f"ONNX Runtime {onnxruntime.__version__} on {plain.device}, bundle {bundle.revision}")
    print("\n| texts x tokens | plain, ms | IO binding, ms | plain / binding | prompts/s with binding |")
    print("|---|---|---|---|---|")
    for rows in options.rows:
        print(row(bundle, plain, bound, rows=rows, repeats=options.repeats), flush=True)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Plain run against IO binding, in turns, on the same batches."
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="texts of a batch")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="cpu only tries the script out"
    )
    return parser.parse_args(argv)


def row(bundle: Bundle, plain: OnnxSession, bound: OnnxSession, *, rows: int, repeats: int) -> str:
    """One line of the table: medians over `repeats` turns, batches of texts as long as the bundle allows."""
    rng = np.random.default_rng(0)
    batch = [rng.integers(1, 100, bundle.info.max_tokens) for _ in range(rows)]
    for one, other in zip(plain.forward(batch), bound.forward(batch), strict=True):
        if np.abs(one - other).max() > TOLERANCE:
            raise ValueError(f"IO binding changes answers by {np.abs(one - other).max():.1e}")
    seconds = [(timed(plain.forward, batch), timed(bound.forward, batch)) for _ in range(repeats)]
    one, other = (statistics.median(way) for way in zip(*seconds, strict=True))
    shape = f"{rows} x {bundle.info.max_tokens}"
    return f"| {shape} | {one * 1e3:.2f} | {other * 1e3:.2f} | {one / other:.2f} | {rows / other:.0f} |"


def timed(way: Callable[[Sequence[np.ndarray]], object], batch: Sequence[np.ndarray]) -> float:
    started = time.perf_counter()
    way(batch)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
