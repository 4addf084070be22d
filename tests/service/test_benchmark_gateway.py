"""The benchmarks of chat and of the formats beside it run on a real engine, and every arm does what its name
says. Speed is not judged."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gateway.py"
ARMS = [
    "bare vLLM",
    "proxy, aiohttp",
    "proxy, httpx",
    "gateway, user weights",
    "gateway, recommended, new prompts",
    "gateway, recommended, seen prompts",
]


def started(*arguments: object, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)


@pytest.fixture(scope="module")
def printed(run_folder: Path) -> str:
    options = ["--rounds", "2", "--clients", "1", "2", "--requests", "2", "3", "--max-tokens", "4"]
    done = started(run_folder, *options, "--proxies", "aiohttp", "httpx", "--engine-arg=--max-num-seqs=4")
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(printed: str, first_column: int) -> list[list[str]]:
    """The cells of one of the tables, without its head."""
    tables: list[list[list[str]]] = [[]]
    for line in printed.splitlines():
        if line.startswith("| "):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    return tables[first_column][2:]


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", cell)]


def test_every_arm_is_in_every_cell(printed: str) -> None:
    expected = [
        [mode, clients, arm] for mode in ("whole", "stream") for clients in ("1", "2") for arm in ARMS
    ]
    assert [row[:3] for row in rows(printed, 0)] == expected
    assert [row[:3] for row in rows(printed, 1)] == expected


def test_bare_vllm_is_what_the_others_are_compared_to(printed: str) -> None:
    for _mode, _clients, arm, requests, tokens, against, first, added in rows(printed, 0):
        # Both are rounded.
        assert float(tokens) == pytest.approx(4 * float(requests), abs=0.3)
        median, p95 = numbers(first)
        assert 0 < median <= p95
        assert (against == "") == (added == "") == (arm == "bare vLLM")
        for cell in filter(None, (against, added)):
            middle, low, high = numbers(cell)
            assert low <= middle <= high


def test_cpu_time_is_split_between_the_engine_and_what_is_in_front(printed: str) -> None:
    for mode, _clients, arm, front, engine, event, against, more, more_against in rows(printed, 1):
        assert numbers(engine)[0] > 0
        assert (front == "") == (arm == "bare vLLM")
        assert (event == "") == (arm == "bare vLLM" or mode == "whole")
        assert (against == "") == (event == "" or arm == "proxy, aiohttp")
        assert (more == "") == (event == "")
        assert (more_against == "") == (against == "")
    assert [row[:2] for row in rows(printed, 2)] == [
        ["whole", "1"],
        ["whole", "2"],
        ["stream", "1"],
        ["stream", "2"],
    ]


def test_weights_come_from_where_the_arm_says(printed: str) -> None:
    # 2 rounds, 2 modes, 2 + 3 requests.
    assert "Sources of the weights, gateway, user weights: {'user': 20}." in printed
    assert "Sources of the weights, gateway, recommended, new prompts: {'orchestrator': 20}." in printed


def test_wrong_options_say_what_is_needed(run_folder: Path) -> None:
    assert "--rounds is 1; an interval needs at least 2" in started(run_folder, "--rounds", 1).stderr
    assert "--requests has 3 numbers for 1 of --clients" in started(run_folder, "--clients", 4).stderr


def test_formats_are_compared_to_chat(run_folder: Path) -> None:
    script = SCRIPT.with_name("formats.py")
    small = ["--rounds", "2", "--clients", "2", "--requests", "2", "--max-tokens", "4"]
    done = started(run_folder, *small, "--before", SCRIPT.parents[1], script=script)
    assert done.returncode == 0, done.stderr
    formats = ["chat", "responses", "messages", "chat, the other checkout"]
    found = rows(done.stdout, 0)
    assert [row[:3] for row in found] == [
        [mode, "2", name] for mode in ("whole", "stream") for name in formats
    ]
    for _mode, _clients, name, cpu, by_chat, _added, more in found:
        assert numbers(cpu)[0] > 0
        assert (by_chat == "") == (more == "") == (name == "chat")
