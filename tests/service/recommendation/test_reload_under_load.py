"""The bundle is switched back and forth under load.

No request fails, and each answer is that of its own bundle.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from preforch_models.bundle import ONNX_FILE, read_bundle
from preforch_models.context import ContextFormat, parse_context
from preforch_models.conversation import Message, conversation_text
from preforch_models.run_folder import RUN_FILE
from preforch_models.weights import Weights
from preforch_service.recommendation.bounds import announced
from preforch_service.recommendation.recommender import OnnxRecommender

WORKERS = 50
SWITCHES = 10
PROMPTS = tiny.TEXTS
LAST_USER = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", flags=re.DOTALL)
Ask = Callable[[httpx.AsyncClient, str], Awaitable[dict[str, Any]]]


ADMIN = "admin-0123456789"


@contextmanager
def serving(path: Path, log: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway process that is ready, and its URL.

    A late orchestrator is a slow machine here, not a failure.
    """
    patient = ("--orchestrator-deadline", "120", "--port", "0", "--metrics-port", "0")
    command = [sys.executable, "-m", "preforch_service", str(path), *patient, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PREFORCH_ADMIN_KEY": ADMIN}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready at "), log.read_text()
            yield process, line.split()[-1]
        finally:
            process.terminate()
            process.wait(60)


def expected(folder: Path) -> dict[str, Weights]:
    """What a bundle announces for each prompt."""
    bundle = read_bundle(folder)
    with closing(OnnxRecommender(bundle, threads=1)) as recommender:
        texts = [conversation_text([Message(role="user", content=prompt)]) for prompt in PROMPTS]
        answers = recommender.run(texts)
    return {
        prompt: announced(answer.weights, bundle.info.objectives, bundle.info.context.units)[1]
        for prompt, answer in zip(PROMPTS, answers, strict=True)
    }


def far(one: Weights, other: Weights) -> float:
    """The largest difference."""
    return max(abs(one[name] - other[name]) for name in one)


class Switched:
    """A link to one of two good bundles or a broken one, and the weights that each of them gives."""

    def __init__(self, link: Path, good: list[Path], broken: Path) -> None:
        self.link, self.good, self.broken = link, good, broken
        self.expected = {read_bundle(folder).revision: expected(folder) for folder in good}
        self.revisions = list(self.expected)

    def point(self, target: Path) -> None:
        new = self.link.with_name("new")
        new.symlink_to(target)
        new.replace(self.link)

    def check(self, answer: Mapping[str, Any]) -> None:
        """Rounding may fall one step apart where batches differ."""
        right = self.expected[answer["bundle"]][answer["prompt"]]
        assert answer["source"] == "orchestrator", answer
        assert far(answer["weights"], right) < 0.011, (answer, right)


def link_for(folder: Path, link: Path, first: Path) -> Switched:
    *others, humor = tiny.OBJECTIVES
    # Another orchestrator and a tighter bound: the weights of all prompts move far.
    bounded = (*others, humor.model_copy(update={"high": 0.5}))
    other = tiny.write_bundle(folder / "other", objectives=bounded, seed=1)
    broken = shutil.copytree(other, folder / "broken")
    (broken / ONNX_FILE).write_bytes((broken / ONNX_FILE).read_bytes()[:-7])
    link.symlink_to(first)
    switched = Switched(link, [first, other], broken)
    one, two = switched.expected.values()
    assert all(far(one[prompt], two[prompt]) > 0.05 for prompt in PROMPTS), "the two cannot be told apart"
    return switched


async def weights(client: httpx.AsyncClient, prompt: str) -> dict[str, Any]:
    response = await client.post("/weights", json={"messages": [{"role": "user", "content": prompt}]})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer | {"prompt": prompt}


async def chat(client: httpx.AsyncClient, prompt: str) -> dict[str, Any]:
    """What a chat announces in body and headers, which must agree, and what it rendered."""
    messages = [{"role": "user", "content": prompt}]
    body = {"messages": messages, "max_tokens": 2, "return_prompt_text": True}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    preference: dict[str, Any] = answer["preference"]
    assert response.headers["X-Preference-Bundle"] == preference["bundle"]
    header = ",".join(f"{name}={value:.2f}" for name, value in preference["weights"].items())
    assert response.headers["X-Preference-Weights"] == header
    context_format = ContextFormat(objectives=tuple(preference["weights"]))
    assert (
        parse_context(LAST_USER.findall(answer["prompt_text"])[-1], context_format) == preference["weights"]
    )
    return preference | {"prompt": prompt}


async def stream(client: httpx.AsyncClient, prompt: str) -> dict[str, Any]:
    """What a stream announces; it must come to its end."""
    messages = [{"role": "user", "content": prompt}]
    body = {"messages": messages, "max_tokens": 20, "stream": True, "ignore_eos": True}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    *events, done, _ = response.text.split("\n\n")
    assert done == "data: [DONE]"
    found = [data["preference"] for event in events if "preference" in (data := json.loads(event[6:]))]
    assert len(found) == 1
    return {**found[0], "prompt": prompt}


async def reload_all(client: httpx.AsyncClient, process: subprocess.Popen[str], switched: Switched) -> None:
    """Back and forth, by request and by signal in turn; half-way, once to the broken bundle."""
    for number in range(1, SWITCHES + 1):
        switched.point(switched.good[number % 2])
        wanted = switched.revisions[number % 2]
        if number % 3:
            answer = await client.post("/admin/reload", headers={"Authorization": f"Bearer {ADMIN}"})
            assert answer.json() == {"reloaded": True, "bundle": wanted}
        else:
            process.send_signal(signal.SIGHUP)
        while (await client.get("/readyz")).json()["bundle"] != wanted:
            assert not number % 3, "an answered reload is in force"
            await asyncio.sleep(0.02)
        if number == SWITCHES // 2:
            switched.point(switched.broken)
            refused = await client.post("/admin/reload", headers={"Authorization": f"Bearer {ADMIN}"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bundle_refused")
            assert (await client.get("/readyz")).json()["bundle"] == wanted
        await asyncio.sleep(0.1)


async def under_load(
    url: str, process: subprocess.Popen[str], switched: Switched, asks: list[Ask]
) -> list[Any]:
    """All answers that came while the bundle was switched. Any failure of any worker is raised."""
    answers: list[dict[str, Any]] = []
    over = asyncio.Event()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

        async def work(number: int) -> None:
            for turn in count(number):
                answers.append(await asks[number % len(asks)](client, PROMPTS[turn % len(PROMPTS)]))
                if over.is_set():
                    return

        async def switch() -> None:
            await reload_all(client, process, switched)
            over.set()

        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(work(number))
            group.create_task(switch())
    return answers


def threads(process: subprocess.Popen[str]) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def check_answers(switched: Switched, answers: list[Any]) -> None:
    assert len(answers) >= WORKERS
    for answer in answers:
        switched.check(answer)
    assert {answer["bundle"] for answer in answers} == set(switched.revisions)


def test_weights(bundle_folder: Path, tmp_path: Path) -> None:
    switched = link_for(tmp_path, tmp_path / "current", bundle_folder)
    with serving(switched.link, tmp_path / "log", "--weights-only") as (process, url):
        answers = asyncio.run(under_load(url, process, switched, [weights]))
        check_answers(switched, answers)
        after_first = threads(process)
        check_answers(switched, asyncio.run(under_load(url, process, switched, [weights])))
        # A session or an executor that is left behind keeps its threads.
        assert threads(process) <= after_first + 2
    log = (tmp_path / "log").read_text()
    assert "bundle refused" in log
    assert f"bundle {switched.revisions[1]} is in force" in log
    assert process.returncode == 0, log


@pytest.mark.timeout(600)
def test_chat_with_vllm(run_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_folder / "policy", run / "policy")
    shutil.copy(run_folder / RUN_FILE, run / RUN_FILE)
    switched = link_for(tmp_path, run / "bundle", run_folder / "bundle")
    with serving(run, tmp_path / "log") as (process, url):
        answers = asyncio.run(under_load(url, process, switched, [weights, chat, chat, stream]))
        check_answers(switched, answers)
