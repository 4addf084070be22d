"""Kill a training run with SIGKILL at random moments, continue it, compare with a run that was left alone.

As a program: `python tests/kill_resume.py CONFIG WHOLE_RUN FOLDER --kills 10 --seed 1 [--set key=value ...]
[--nproc N]`, where WHOLE_RUN is a finished run of the same config. Prints what it found and exits with 1
when a promise is broken.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from preforch_models.manifest import MANIFEST, verify
from safetensors.torch import load_file

MARK = "PREFORCH_KILL_TEST"
AT_WORK = re.compile(rb": (building|up to date)$", re.MULTILINE)
"""What a command says first of an artifact. Before that it only imports, as long as the machine takes."""
WEIGHTS_TOLERANCE = 1e-5
METRICS_TOLERANCE = 1e-3
# What differs between any two runs: time, memory, and the hashes of files that hold either.
NOT_COMPARED = {
    "sampling_seconds",
    "seconds",
    "speed_ratio",
    "peak_memory_mib",
    "files",
    "inputs",
    "versions",
    "revision",
    "bundle",
}
# Compared wherever they lie, besides all JSON of the first level.
COMPARED_JSON = ("run.json", "reward.json", "policy.json", "report.json", MANIFEST)


def train_command(
    config: Path, folder: Path, settings: list[str], *, processes: int | None = None
) -> list[str]:
    """`preforch train all` into a folder."""
    ranks = [] if processes is None else ["--nproc", str(processes)]
    options = [part for setting in (f"run.folder={folder}", *settings) for part in ("--set", setting)]
    return [sys.executable, "-m", "preforch_cli", "train", "all", str(config), *options, *ranks]


def marked(mark: str) -> list[int]:
    """Living processes that inherited the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment, state = (entry / "environ").read_bytes(), (entry / "stat").read_text()
            except OSError:
                continue
            if f"{MARK}={mark}".encode() in environment and state.rsplit(")", 1)[1].split()[0] != "Z":
                found.append(int(entry.name))
    return found


def wait_for_work(process: subprocess.Popen[bytes], log: Path, *, offset: int) -> None:
    """Until the process comes to its first artifact, or ends. `offset`: where its part of the log begins."""
    with log.open("rb") as said:
        while process.poll() is None:
            said.seek(offset)
            if AT_WORK.search(said.read()):
                return
            time.sleep(0.05)


def kill_after(command: list[str], seconds: float, log: Path) -> tuple[bool, list[int]]:
    """Start, let it work for so long, SIGKILL the one process. Returns (was it still running, processes it
    left behind)."""
    mark = uuid.uuid4().hex
    with log.open("ab") as output:
        offset = output.tell()
        process = subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=output, stderr=output)
        wait_for_work(process, log, offset=offset)
        try:
            process.wait(timeout=seconds)
            return False, marked(mark)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    deadline = time.monotonic() + 5
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    return True, marked(mark)


def check_artifacts(folder: Path) -> int:
    """Verify every artifact there is; the number of them."""
    manifests = [
        path for path in folder.rglob(MANIFEST) if ".partial" not in str(path) and ".work" not in str(path)
    ]
    for path in manifests:
        verify(path.parent)
    return len(manifests)


def differences(whole: Path, continued: Path, *, tolerance: float = WEIGHTS_TOLERANCE) -> list[str]:
    """Where two finished runs differ by more than the promise, one line each. `tolerance`: of weights."""
    found = []
    for path in sorted(whole.rglob("*")):
        other = continued / path.relative_to(whole)
        if any(part.startswith(".") for part in path.relative_to(whole).parts) or path.is_dir():
            continue
        name = path.relative_to(whole).as_posix()
        if path.suffix in (".safetensors", ".parquet", ".jsonl", ".json") and not other.is_file():
            found.append(f"{name}: missing")
        elif path.suffix == ".safetensors":
            one, two = load_file(path), load_file(other)
            # 16-bit weights too, which NumPy does not know.
            worst = max(float((one[key].double() - two[key].double()).abs().max()) for key in one)
            if one.keys() != two.keys() or worst > tolerance:
                found.append(f"{name}: weights differ by {worst:.2e}")
        elif path.suffix == ".parquet":
            found += _compare(pq.read_table(path).to_pylist(), pq.read_table(other).to_pylist(), name)
        elif path.name in ("samples.jsonl", "prompts.jsonl", "pairs.jsonl", "golden.jsonl"):
            found += _compare(_lines(path), _lines(other), name)
        elif (path.suffix == ".json" and path.parent.parent == whole) or path.name in COMPARED_JSON:
            found += _compare(json.loads(path.read_text()), json.loads(other.read_text()), name)
    return found


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _compare(one: Any, two: Any, where: str) -> list[str]:
    """Numbers within the tolerance, everything else equal."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        keys = [key for key in one if key not in NOT_COMPARED]
        return [line for key in keys for line in _compare(one[key], two[key], f"{where}.{key}")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [
            line
            for i, (a, b) in enumerate(zip(one, two, strict=True))
            for line in _compare(a, b, f"{where}[{i}]")
        ]
    if isinstance(one, int | float) and isinstance(two, int | float):
        return [] if abs(one - two) <= METRICS_TOLERANCE else [f"{where}: {one} and {two}"]
    return [] if one == two else [f"{where}: {str(one)[:60]} and {str(two)[:60]}"]


def work_seconds(run: Path) -> float:
    """What the artifacts of a finished run took together."""
    return float(sum(json.loads(path.read_text())["seconds"] for path in run.rglob(MANIFEST)))


def kill_and_continue(
    config: Path,
    folder: Path,
    settings: list[str],
    *,
    kills: int,
    seconds: float,
    seed: int,
    processes: int | None = None,
) -> int:
    """Kill at `kills` random moments within `seconds` of work, then let it finish. Returns how many artifacts
    were whole at the last kill. Raises AssertionError."""
    command = train_command(config, folder, settings, processes=processes)
    log = folder.with_suffix(".log")
    folder.parent.mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)
    whole = 0
    moments = sorted(generator.uniform(0, seconds) for _ in range(kills))
    for number, (earlier, moment) in enumerate(zip([0.0, *moments], moments, strict=False), 1):
        running, orphans = kill_after(command, moment - earlier, log)
        state = "running" if running else "already done"
        whole = check_artifacts(folder)
        print(f"kill {number}: {state}, {whole} artifacts whole")
        assert not orphans, f"kill {number} left processes {orphans}"
    with log.open("ab") as output:
        subprocess.run(command, check=True, stdout=output, stderr=output)
    return whole


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("whole", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nproc", type=int)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    args = parser.parse_args()
    kill_and_continue(
        args.config,
        args.folder,
        args.settings,
        kills=args.kills,
        seconds=work_seconds(args.whole),
        seed=args.seed,
        processes=args.nproc,
    )
    found = differences(args.whole, args.folder)
    print(
        "\n".join(found)
        if found
        else "the same result: weights within 1e-5, metrics within 1e-3, samples equal"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
