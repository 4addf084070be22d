"""The end of the demo: the gateway on what was trained, held-out prompts answered, what weights changed
counted."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preforch_client import Client, Generation, PreferenceError
from preforch_models.child_process import die_with_parent

from preforch_training.demo.assistant.responses import Parts
from preforch_training.demo.assistant.world import ASSISTANT
from preforch_training.sampling.settings import Sampling

READY_SECONDS = 300.0
SEED = 1
USER_WEIGHTS = (
    {"helpful": 0.8, "harmless": 0.1, "humor": 0.1},
    {"helpful": 0.1, "harmless": 0.1, "humor": 0.8},
)


def serve_and_show(run: Path, sampling: Sampling, *, port: int, stay: bool) -> int:
    """Start the gateway, show the answers, then keep serving (`stay`) or stop. Returns an exit code."""
    check_free(port)
    url = f"http://127.0.0.1:{port}"
    with gateway(run, port=port) as process, Client(url, timeout=120.0) as client:
        if not wait_until_ready(client, process):
            print(f"the gateway did not become ready at {url}", file=sys.stderr)
            return process.poll() or 1
        print(show(client, sampling))
        if not stay:
            return 0
        print(f"\nserving at {url}, stop with Ctrl-C. In another terminal:\n  preforch chat --url {url}")
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0


def check_free(port: int) -> None:
    """Raise ValueError when somebody listens on the port: another service's answers must not pass for the
    demo's."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ValueError(
                f"port {port} is in use, perhaps by an earlier demo; stop it or give another with --port"
            )


@contextmanager
def gateway(run: Path, *, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """`preforch serve RUN` as a child that drains and ends with this block, or with this process."""
    command = [sys.executable, "-m", "preforch_cli", "serve", str(run), "--port", str(port)]
    # Metrics are for a service that stays, and a line per request would bury the answers.
    process = subprocess.Popen(
        [*command, "--metrics-port", "0", "--no-access-log"],
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


def wait_until_ready(client: Client, process: "subprocess.Popen[bytes]") -> bool:
    """True once the gateway says so; False when it has ended or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.ready():
                return True
        except PreferenceError:
            pass  # it is not listening yet
        time.sleep(0.5)
    return False


def show(client: Client, sampling: Sampling) -> str:
    """Six held-out prompts, each under three weightings, and a table of what was counted in the answers.

    Answers are drawn as the policy was sampled in training. A prompt has one seed for all weightings, and
    another prompt has another one: under one seed for all, every joke would be the same joke.
    """
    lines: list[str] = []
    totals: dict[str, list[Parts]] = {}
    for seed, prompt in enumerate(ASSISTANT.held_out_examples(6), SEED):
        lines += ["", f"> {prompt}"]
        for label, weights in [("recommended", None), *((_short(w), w) for w in USER_WEIGHTS)]:
            answer = client.generate(
                prompt,
                weights=weights,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed,
            )
            parts = ASSISTANT.parse(prompt, answer.text)
            totals.setdefault(label, []).append(parts)
            lines += [
                f"  [{label}: {_announced(answer)}]",
                f"    {answer.text.strip()}",
                f"    {_counted(parts)}",
            ]
    return "\n".join([*lines, "", *difference(totals)])


def difference(totals: dict[str, list[Parts]]) -> list[str]:
    """Mean counts per answer by weighting, as parsed out of the answers above."""
    rows = [f"{'counted per answer':<28} {'steps':>6} {'cautions':>9} {'jokes':>6}"]
    for label, parts in totals.items():
        steps = sum(part.on_topic_steps for part in parts) / len(parts)
        cautions = sum(part.cautions + part.refusals for part in parts) / len(parts)
        jokes = sum(part.jokes for part in parts) / len(parts)
        rows.append(f"{label:<28} {steps:>6.2f} {cautions:>9.2f} {jokes:>6.2f}")
    return rows


def _short(weights: dict[str, float]) -> str:
    name = max(weights, key=lambda key: weights[key])
    return f"you ask for {name} {weights[name]}"


def _announced(answer: Generation) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in answer.weights.items())


def _counted(parts: Parts) -> str:
    safe = parts.cautions + parts.refusals
    return f"({parts.on_topic_steps} steps, {safe} cautions or refusals, {parts.jokes} jokes)"
