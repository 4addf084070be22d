"""Everything that a GPU is for, once, on random weights: does it run, how long does it take, what does it
hold.

In:  a work folder. Out: figures as JSON, on stdout and in `figures.json` of the work folder. Exit 1 where a
     part fails; the parts after it are tried none the less, and the figures say which failed.

    benchmarks/gpu_smoke.sh                                    # finds the Python and limits the time
    python benchmarks/gpu_smoke.py --work gpu-smoke
    python benchmarks/gpu_smoke.py --work /tmp/smoke --tiny    # at the size of a test, on a CPU too
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
from preforch_models.manifest import MANIFEST, read_manifest
from servers import free_port, running

HERE = Path(__file__).parent
CONFIG = HERE / "gpu_smoke.toml"
STAGES = ("data", "reward", "scores", "orchestrator", "policy", "bundle", "report")
BUILDING = re.compile(r"^(\S+): building$")
ROW = re.compile(r"^\| (\d+) x (\d+) \| ([\d.]+) [^|]*\| ([\d.]+) ")
REQUESTS, CLIENTS = 32, 8
TINY = (
    "data.train_prompts=40",
    "data.validation_prompts=12",
    "data.test_prompts=6",
    *(f"reward.{name}.max_tokens=64" for name in ("helpful", "harmless", "humor")),
    "orchestrator.max_tokens=48",
    "policy.max_model_len=192",
    "policy.max_response_tokens=16",
    "policies.wic.offline.steps=4",
    "policies.wic.online.steps=2",
    "policies.wic.online.prompts=4",
    "bundle.golden_prompts=2",
    "report.sweep_prompts=2",
    "report.utility_prompts=2",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run every part and print the figures."""
    options = parse(argv)
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    run = work / "run"
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "models": lambda: models(work / "models", tiny=options.tiny),
        "training": lambda: train(work, tiny=options.tiny),
        "serving": lambda: serve(run, work, tokens=16 if options.tiny else 128),
        "onnx": lambda: onnx(run / "bundle", python=options.onnx_python, tiny=options.tiny),
    }
    figures: dict[str, Any] = {"machine": machine(), "tiny": options.tiny}
    for name, part in parts.items():
        started = time.monotonic()
        try:
            figures[name] = part()
        except Exception as error:  # one part that fails must not hide what the others measure
            figures[name] = {"failed": f"{type(error).__name__}: {error}"}
        figures[name]["seconds"] = round(time.monotonic() - started, 1)
        # After each part: whatever stops the script, what was measured is there.
        (work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    return int(any("failed" in figures[name] for name in parts))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and serve once on random weights; figures as JSON.")
    parser.add_argument("--work", type=Path, required=True, help="folder for models, run, logs and figures")
    parser.add_argument("--tiny", action="store_true", help="models of the size of a test, for CPUs too")
    parser.add_argument(
        "--onnx-python", default=sys.executable, help="Python with onnxruntime-gpu, which needs its own place"
    )
    return parser.parse_args(argv)


def machine() -> dict[str, Any]:
    """What the figures are of."""
    gpus = [name for name, _ in nvidia_smi("name")]
    versions = {name: version(name) for name in ("torch", "vllm", "transformers", "trl")}
    return {"gpus": gpus, "cpu": platform.machine(), "versions": versions}


def nvidia_smi(field: str) -> list[tuple[str, float]]:
    """A field of each GPU, and the MiB in use there. From outside, since this process must hold no memory of
    a GPU; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={field},memory.used", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.rsplit(", ", 1) for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [(name, float(used)) for name, used in lines]


def version(package: str) -> str:
    """Of an installed package; vLLM's CPU build has a name of its own."""
    for name in (package, f"{package}-cpu"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def models(folder: Path, *, tiny: bool) -> dict[str, Any]:
    """Write the models, in a process whose GPU memory goes with it."""
    command = [sys.executable, str(HERE / "gpu_smoke_models.py"), str(folder), *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-1500:]}")
    return {"parameters": json.loads(done.stdout)}


def train(work: Path, *, tiny: bool) -> dict[str, Any]:
    """`preforch train all`: seconds and memory of every artifact."""
    settings = [f"run.folder={work / 'run'}", f"orchestrator.encoder={work / 'models' / 'encoder'}"]
    settings += [f"policy.base={work / 'models' / 'policy'}"]
    settings += [f"reward.{n}.base={work / 'models' / 'reward'}" for n in ("helpful", "harmless", "humor")]
    settings += TINY if tiny else ()
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "preforch_cli", "train", "all", str(CONFIG), *options]
    log = work / "train.log"
    with log.open("w", encoding="utf-8") as output, gpu_memory() as watch:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        assert process.stderr is not None
        for line in process.stderr:
            output.write(line)
            if found := BUILDING.match(line.strip()):
                watch["now"] = found[1]
        code = process.wait()
    if code:
        raise RuntimeError(f"exit {code}; the end of {log}: {log.read_text(encoding='utf-8')[-1500:]}")
    peaks: Mapping[str, float] = watch["peaks"]
    return {"artifacts": {name: cost | {"gpu_mib": peaks.get(name)} for name, cost in costs(work / "run")}}


def costs(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name, seconds and peak memory of every artifact of a run."""
    for path in sorted(run.rglob(MANIFEST)):
        manifest = read_manifest(path.parent)
        counts = {key: n for key, n in manifest.counts.items() if key in ("samples", "kept", "rows")}
        yield (
            path.parent.relative_to(run).as_posix(),
            {"seconds": manifest.seconds, "ram_mib": manifest.peak_memory_mib, **counts},
        )


@contextmanager
def gpu_memory() -> Iterator[dict[str, Any]]:
    """`peaks`: MiB that were in use on the GPU that used most while `now` was built; without a GPU empty."""
    watch: dict[str, Any] = {"now": "start", "peaks": {}}
    over = threading.Event()

    def look() -> None:
        while (found := nvidia_smi("name")) and not over.wait(0.5):
            used = max(used for _, used in found)
            watch["peaks"][watch["now"]] = max(used, watch["peaks"].get(watch["now"], 0.0))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def serve(run: Path, work: Path, *, tokens: int) -> dict[str, Any]:
    """`preforch serve RUN`: time until it is ready, and answers under recommended weights."""
    port, started = free_port(), time.monotonic()
    command = [sys.executable, "-m", "preforch_cli", "serve", str(run), "--port", str(port)]
    with running("gateway", command, port=port, folder=work, health="/readyz") as server:
        ready = time.monotonic() - started
        bodies = [
            {"prompt": f"Question {i}: how do I?", "max_tokens": tokens, "seed": i} for i in range(REQUESTS)
        ]
        with httpx.Client(base_url=server.url, timeout=120) as client, ThreadPoolExecutor(CLIENTS) as pool:
            begun = time.monotonic()
            answers = list(
                pool.map(lambda body: client.post("/generate", json=body).raise_for_status(), bodies)
            )
            seconds = time.monotonic() - begun
    made = sum(answer.json()["usage"]["completion_tokens"] for answer in answers)
    sources = {answer.json()["source"] for answer in answers}
    if sources != {"orchestrator"}:
        raise RuntimeError(f"weights came from {sorted(sources)}, not from the orchestrator alone")
    return {
        "ready_seconds": round(ready, 1),
        "requests": REQUESTS,
        "clients": CLIENTS,
        "tokens": made,
        "tokens_per_second": round(made / seconds, 1),
    }


def onnx(bundle: Path, *, python: str, tiny: bool) -> dict[str, Any]:
    """`onnx_cuda.py`: plain run against IO binding; on a CPU, where there is no GPU and the rest is tiny."""
    command = [python, str(HERE / "onnx_cuda.py"), str(bundle), "--repeats", "3" if tiny else "30"]
    device = "cpu" if tiny and not nvidia_smi("name") else "cuda"
    done = subprocess.run([*command, "--device", device], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr[-500:]}")
    rows = [found.groups() for line in done.stdout.splitlines() if (found := ROW.match(line))]
    if not rows:
        raise RuntimeError(f"no row of its table was understood: {done.stdout[-500:]}")
    keys = ("texts", "tokens", "plain_ms", "binding_ms")
    return {"device": device, "batches": [dict(zip(keys, map(float, row), strict=True)) for row in rows]}


if __name__ == "__main__":
    sys.exit(main())
