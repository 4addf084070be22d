"""`preforch answers` as a user runs it, with real vLLM; killed in the middle it leaves nothing."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from answers_world import QUESTIONS, write_questions, write_run

pytestmark = pytest.mark.slow


def command(run: Path, form: str, prompts: Path, output: Path) -> list[str]:
    program = [sys.executable, "-m", "preforch_cli", "answers", str(run), "--format", form]
    return [*program, "--prompts", str(prompts), "--output", str(output), "--max-tokens", "8"]


def test_the_same_answers_whether_killed_before_or_not(tmp_path: Path) -> None:
    run, output = write_run(tmp_path), tmp_path / "out"
    prompts = write_questions(tmp_path, "mt_bench")
    once = command(run, "mt_bench", prompts, output)
    with subprocess.Popen(once, stderr=subprocess.DEVNULL) as killed:
        log = run / "logs" / "vllm.log"
        while not log.is_file() and killed.poll() is None:
            time.sleep(0.1)
        assert killed.poll() is None, "it is at work"
        killed.send_signal(signal.SIGKILL)
    assert not output.exists()
    said = subprocess.run(once, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert f"{output / 'run-wic.jsonl'}: 4 questions answered by run-wic" in said
    again = subprocess.run([*once, "--name", "again"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "answered by again" in again
    found = [
        [json.loads(line) for line in (output / name).read_text(encoding="utf-8").splitlines()]
        for name in ("run-wic.jsonl", "again.jsonl")
    ]
    assert [row["question_id"] for row in found[0]] == [row["question_id"] for row in QUESTIONS["mt_bench"]]
    assert [row["choices"] for row in found[0]] == [row["choices"] for row in found[1]]
    assert sorted(path.name for path in output.iterdir()) == ["again.jsonl", "run-wic.jsonl"]
