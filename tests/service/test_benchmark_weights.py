"""The benchmark of /weights runs against real servers, which all give the same weights.

Speed is not judged.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from preforch_models.orchestrator_model import OrchestratorModel
from preforch_models.run_folder import RunInfo, write_run_info
from tokenizers import Tokenizer

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "weights.py"
# Two heads of 32, as small as those of the policies that vLLM serves in other tests.
WIDTH = 64
TEXTS = [f"Tell me joke number {number} about a penguin" + " and a bicycle" * number for number in range(6)]


def started(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)


def orchestrator(tokenizer: Path) -> OrchestratorModel:
    """The model in the bundle."""
    names = tuple(objective.name for objective in tiny.OBJECTIVES)
    return tiny.orchestrator(names, Tokenizer.from_file(str(tokenizer)).get_vocab_size(), width=WIDTH)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose stage `orchestrator` belongs to its bundle."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    tiny.write_bundle(folder / "bundle", width=WIDTH)
    # Copied, because training one anew may number its tokens differently.
    orchestrator(folder / "bundle" / "tokenizer.json").save_pretrained(folder / "orchestrator")
    shutil.copy(folder / "bundle" / "tokenizer.json", folder / "orchestrator")
    write_run_info(folder, RunInfo())
    return folder


def measured(run: Path, texts: Path, *more: object) -> subprocess.CompletedProcess[str]:
    texts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS), encoding="utf-8")
    options = ["--texts", texts, "--field", "prompt", "--rounds", 2, "--threads", 1, "--idle-seconds", 0.2]
    return started(run, *options, "--clients", 1, 2, "--batches", 4, *more)


def test_every_server_is_measured_in_every_way_it_knows(run: Path, tmp_path: Path) -> None:
    done = measured(run, tmp_path / "texts.jsonl")
    assert done.returncode == 0, done.stderr
    assert "Texts: 6 distinct (texts.jsonl, field prompt)" in done.stdout
    assert re.search(r"CPU at rest: ours [\d.]+%, vllm [\d.]+%, plain [\d.]+%\.", done.stdout)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    arms = [tuple(row[:2]) for row in rows if len(row) == 6][2:]
    single = ["single, 1 at once", "single, 2 at once"]
    expected = [("raw, sorted", ""), ("raw, as they come", "")]
    expected += [(name, way) for name in ("ours", "vllm") for way in [*single, "batches of 4"]]
    assert arms == expected + [("plain", way) for way in single]
    against = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert against["batches of 4"][1] == ""
    for ratio in [*against["single, 1 at once"], *against["single, 2 at once"], against["batches of 4"][0]]:
        middle, low, high = (float(number) for number in re.findall(r"[\d.]+", ratio))
        assert low <= middle <= high


def test_a_server_with_other_weights_stops_the_benchmark(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "run")
    model = orchestrator(other / "orchestrator" / "tokenizer.json")
    model.head.bias.data[0] += 1
    model.save_pretrained(other / "orchestrator")
    done = measured(other, tmp_path / "texts.jsonl", "--peers", "plain")
    assert done.returncode == 1
    assert re.search(r"weights of plain differ by [\d.]+e-0[12], allowed are 1e-03", done.stderr)
