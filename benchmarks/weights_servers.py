"""The servers of `weights.py`: ours and its peers.

In:  what to start. Out: running `Peer`s: how each is asked, and how its answer is read.
"""

import argparse
import contextlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preforch_models.bundle import Bundle
from preforch_service.engine.supervisor import ONE_PROCESS, SERVER
from servers import Server, free_port, running

HERE = Path(__file__).parent
PEERS = ("vllm", "plain")


@dataclass(frozen=True)
class Peer:
    """A server.

    `batch` is None where it takes single texts only, `read` where its numbers are others by design.
    """

    server: Server
    path: str
    single: Callable[[str], dict[str, Any]]
    batch: Callable[[Sequence[str]], dict[str, Any]] | None
    read: Callable[[Any], list[float]] | None

    @property
    def name(self) -> str:
        """Of the server."""
        return self.server.name


@contextlib.contextmanager
def start_peers(options: argparse.Namespace, bundle: Bundle, folder: Path) -> Iterator[list[Peer]]:
    """Ours first. All run at once and rest while another one is measured."""
    orchestrator, threads = options.run / "orchestrator", options.threads
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        peers = [enter(ours(bundle, threads, folder))]
        if "vllm" in options.peers or options.infinity_command:
            checkpoint = export(orchestrator, folder / "classifier")
        if "vllm" in options.peers:
            peers.append(enter(vllm(checkpoint, bundle, threads, folder)))
        if "plain" in options.peers:
            peers.append(enter(plain(orchestrator, threads, folder)))
        if options.infinity_command:
            peers.append(enter(infinity(options.infinity_command, checkpoint, threads, folder)))
        elif options.infinity_url:
            peers.append(
                infinity_at(Server("infinity", options.infinity_url.rstrip("/"), None), "classifier")
            )
        yield peers


def export(orchestrator: Path, target: Path) -> Path:
    """A checkpoint that other servers load, made by a process of its own: torch is not for this one."""
    subprocess.run([sys.executable, str(HERE / "checkpoint.py"), str(orchestrator), str(target)], check=True)
    return target


def environment(threads: int) -> dict[str, str]:
    """What limits the threads of torch, and of tokenizers."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}


@contextlib.contextmanager
def ours(bundle: Bundle, threads: int, folder: Path) -> Iterator[Peer]:
    """The gateway without a language model, its cache of recommendations off.

    Every round brings the same texts.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "preforch_service", str(bundle.path), "--weights-only", "--device", "cpu"),
        *("--port", str(port), "--metrics-port", "0", "--orchestrator-threads", str(threads)),
        *("--orchestrator-deadline", "60"),
        *("--cache-entries", "0"),
    ]
    with running("ours", command, port=port, folder=folder, health="/readyz") as server:
        yield Peer(
            server,
            "/weights",
            single=lambda text: {"prompt": text},
            batch=lambda texts: {"inputs": list(texts)},
            # Not `weights`: those are rounded to what the context prints.
            read=lambda answer: [answer["recommended"][name] for name in bundle.names],
        )


@contextlib.contextmanager
def vllm(checkpoint: Path, bundle: Bundle, threads: int, folder: Path) -> Iterator[Peer]:
    """vLLM's classification server; it pools the mean, so that it computes the orchestrator's weights."""
    port, longest = free_port(), bundle.info.max_tokens
    command = [
        *(sys.executable, "-m", SERVER, "--model", str(checkpoint), "--served-model-name", "classifier"),
        *("--runner", "pooling", "--pooler-config", '{"seq_pooling_type": "MEAN"}', "--dtype", "float32"),
        *("--enforce-eager", "--max-model-len", str(longest), "--host", "127.0.0.1", "--port", str(port)),
        # As we start vLLM ourselves: the processes of its default burn a core each while they wait for each
        # other.
        *("--disable-uvicorn-access-log", "--distributed-executor-backend", ONE_PROCESS),
    ]
    settings = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    cut = {"model": "classifier", "truncate_prompt_tokens": longest, "truncation_side": "right"}
    with running(
        "vllm", command, port=port, folder=folder, environment=environment(threads) | settings
    ) as server:
        yield Peer(
            server,
            "/classify",
            single=lambda text: cut | {"input": text},
            batch=lambda texts: cut | {"input": list(texts)},
            read=lambda answer: answer["data"][0]["probs"],
        )


@contextlib.contextmanager
def plain(orchestrator: Path, threads: int, folder: Path) -> Iterator[Peer]:
    """FastAPI and transformers as people write it."""
    port = free_port()
    command = [sys.executable, str(HERE / "plain_server.py"), str(orchestrator)]
    command += ["--port", str(port), "--threads", str(threads)]
    with running("plain", command, port=port, folder=folder, environment=environment(threads)) as server:
        yield Peer(
            server,
            "/classify",
            single=lambda text: {"text": text},
            batch=None,
            read=lambda answer: answer["weights"],
        )


@contextlib.contextmanager
def infinity(template: str, checkpoint: Path, threads: int, folder: Path) -> Iterator[Peer]:
    """infinity, installed elsewhere, by a command."""
    port = free_port()
    command = shlex.split(template.format(model=checkpoint, port=port))
    with running("infinity", command, port=port, folder=folder, environment=environment(threads)) as server:
        yield infinity_at(server, checkpoint.name)


def infinity_at(server: Server, model: str) -> Peer:
    """transformers' own classifier pools the first token.

    The same work, other numbers, so they are not compared.
    """
    return Peer(
        server,
        "/classify",
        single=lambda text: {"model": model, "input": [text]},
        batch=lambda texts: {"model": model, "input": list(texts)},
        read=None,
    )
