"""Sampling with the real vLLM: what comes back, whose weights it shows, and that nothing is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from preforch_training.policy.tokenizer import PolicyTokenizer
from preforch_training.sampling.engines import SamplerError
from preforch_training.sampling.vllm import Generation, VllmSampler
from sampling_world import TEXTS, TOKENS, WEIGHTS, draw, request, sample_for_long, write_policy
from transformers import AutoModelForCausalLM

Policies = dict[str, Path]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Policies:
    """`a` and `b` have tied heads, `c` and `d` have not."""
    folder = tmp_path_factory.mktemp("policies")
    return {
        name: write_policy(folder / name, seed=seed, tied=name in "ab") for seed, name in enumerate("abcd")
    }


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "vllm.log"


@pytest.fixture(scope="module")
def sampler() -> Iterator[VllmSampler]:
    """One for most tests, as one serves a whole run."""
    with VllmSampler() as sampler:
        yield sampler


@pytest.fixture(scope="module")
def other(log: Path) -> Iterator[VllmSampler]:
    """Another to compare with, whose vLLM talks."""
    with pytest.MonkeyPatch.context() as patch, VllmSampler(log=log) as sampler:
        patch.setenv("VLLM_LOGGING_LEVEL", "INFO")
        yield sampler


def by_vllm(sampler: VllmSampler, policy: Path) -> list[tuple[int, ...]]:
    """Greedy answers."""
    requests = [request(n=1, text=text) for text in TEXTS]
    groups = sampler.sample(policy, requests, temperature=0.0, top_p=1.0, max_tokens=TOKENS)
    return [group[0].token_ids for group in groups]


@torch.no_grad()
def by_transformers(policy: Path) -> list[tuple[int, ...]]:
    """The same greedy answers from the checkpoint, by the whole sequence at every step."""
    reader = PolicyTokenizer(policy)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    answers = []
    for text in TEXTS:
        prompt = reader.prompt_ids(request(text=text).messages, WEIGHTS)
        ids = list(prompt)
        while len(ids) < len(prompt) + TOKENS and ids[-1] != reader.end_id:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        answers.append(
            tuple(ids[len(prompt) :]) if ids[-1] != reader.end_id else tuple(ids[len(prompt) : -1])
        )
    return answers


def children_of(parent: int) -> list[psutil.Process]:
    """Living vLLM children."""
    return [
        child
        for child in psutil.Process(parent).children()
        if child.status() != psutil.STATUS_ZOMBIE and any("vllm_child" in part for part in child.cmdline())
    ]


@pytest.fixture(scope="module")
def sampled(sampler: VllmSampler, policies: Policies) -> list[list[Generation]]:
    """Three requests, the first two alike; many enough to need several batches."""
    requests = [request(seed=1, n=3), request(seed=1, n=3), request(seed=2, n=40)]
    return sampler.sample(policies["a"], requests, temperature=1.0, top_p=0.95, max_tokens=16)


def test_no_request_and_no_room_start_no_engine(policies: Policies) -> None:
    sampler = VllmSampler()
    assert sampler.sample(policies["a"], [], temperature=1.0, top_p=1.0, max_tokens=16) == []
    with pytest.raises(ValueError, match="exceed the policy's max_model_len 256"):
        sampler.sample(
            policies["a"], [request(text="joke " * 300)], temperature=1.0, top_p=1.0, max_tokens=16
        )
    assert sampler.pid is None


def test_every_request_gets_its_responses(sampled: list[list[Generation]]) -> None:
    assert [len(group) for group in sampled] == [3, 3, 40]
    assert all(0 < len(g.token_ids) <= 16 for group in sampled for g in group if not g.finished)


def test_a_seed_decides_the_response(sampled: list[list[Generation]]) -> None:
    assert sampled[0] == sampled[1]
    assert len({g.token_ids for g in sampled[0] + sampled[2]}) > 20


@pytest.mark.parametrize("names", ["ab", "cd"], ids=["tied", "untied"])
def test_one_process_answers_as_transformers_does_after_two_reloads(
    sampler: VllmSampler, policies: Policies, names: str
) -> None:
    one, two = (policies[name] for name in names)
    expected = {policy: by_transformers(policy) for policy in (one, two)}
    assert set(expected[one]).isdisjoint(expected[two]), "policies so alike show nothing"
    assert by_vllm(sampler, one) == expected[one]
    pid = sampler.pid
    assert by_vllm(sampler, two) == expected[two]
    assert by_vllm(sampler, one) == expected[one]
    assert sampler.pid == pid, "a reload started another process"


def test_a_changed_folder_is_not_served_stale(
    sampler: VllmSampler, policies: Policies, tmp_path: Path
) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(policies["c"], folder)
    drawn = [by_vllm(sampler, folder)]
    pid = sampler.pid
    # As a rebuilt stage does it, and by hand, which the card does not know of.
    shutil.rmtree(folder)
    shutil.copytree(policies["d"], folder)
    drawn.append(by_vllm(sampler, folder))
    shutil.copyfile(policies["c"] / "model.safetensors", folder / "model.safetensors")
    drawn.append(by_vllm(sampler, folder))
    assert drawn == [by_vllm(sampler, policies[name]) for name in "cdc"]
    assert sampler.pid == pid


def test_a_waiting_process_burns_nothing_and_leaves_ctrl_c_to_its_parent(
    sampler: VllmSampler, policies: Policies
) -> None:
    by_vllm(sampler, policies["c"])
    process = psutil.Process(sampler.pid)
    time.sleep(0.5)  # OpenMP's threads spin a little after their last work
    before = process.cpu_times()
    process.send_signal(signal.SIGINT)
    time.sleep(3)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.1
    by_vllm(sampler, policies["c"])
    assert sampler.pid == process.pid


def test_peak_memory_is_the_process_s_and_starts_afresh(sampler: VllmSampler, policies: Policies) -> None:
    by_vllm(sampler, policies["c"])
    resident = psutil.Process(sampler.pid).memory_info().rss / 2**20
    assert sampler.peak_memory_mib >= 0.9 * resident
    sampler.peak_memory_mib = 1e6
    sampler.reset_peak_memory()
    assert sampler.peak_memory_mib == 0
    by_vllm(sampler, policies["c"])
    assert 0.9 * resident < sampler.peak_memory_mib < 2 * resident


def test_the_library_s_words_go_to_the_log_and_the_progress_to_stderr(
    other: VllmSampler, policies: Policies, log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    draw(other, policies["d"])
    out, err = capfd.readouterr()
    assert out == ""
    assert "sampling: 100%|██████████| 15/15" in err
    assert all(line.startswith("sampling:") for line in err.replace("\r", "\n").splitlines() if line)
    words = log.read_text(encoding="utf-8")
    assert "Starting to load model" in words, "what vLLM logs to stdout"
    assert "Loading safetensors checkpoint shards" in words, "what it draws on stderr"


def test_what_a_reloaded_engine_draws_is_what_another_draws(
    sampler: VllmSampler, other: VllmSampler, policies: Policies
) -> None:
    expected = draw(other, policies["d"])
    draw(sampler, policies["c"])
    assert draw(sampler, policies["d"]) == expected
    assert draw(sampler, policies["d"]) == expected, "earlier calls decide what is drawn"


def test_weights_that_are_not_shown_to_have_arrived_are_not_used(
    other: VllmSampler, policies: Policies, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """vLLM 0.32 loads such a checkpoint in place without an error; as the first one it refuses it."""
    broken = without_final_norm(policies["c"], tmp_path / "broken")
    draw(other, policies["d"])
    with pytest.raises(
        SamplerError, match=r"(?s)vLLM failed on .*broken: .*norm\.weight.*vllm\.log ends with"
    ):
        draw(other, broken)
    assert "starting vLLM again, since the checkpoint lacks model.norm.weight" in capfd.readouterr().err


def test_a_process_that_dies_in_a_call_is_an_error(sampler: VllmSampler, policies: Policies) -> None:
    by_vllm(sampler, policies["c"])
    process = psutil.Process(sampler.pid)
    threading.Timer(0.5, process.kill).start()
    with pytest.raises(SamplerError, match="ended with status -9"):
        sample_for_long(sampler, policies["c"])


def test_the_next_call_starts_another_and_ctrl_c_ends_it(sampler: VllmSampler, policies: Policies) -> None:
    sampler.close()
    started: list[psutil.Process] = []

    def interrupt() -> None:
        while sampler.pid is None:
            time.sleep(0.1)
        started.append(psutil.Process(sampler.pid))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        sample_for_long(sampler, policies["c"])
    assert not started[0].is_running()


def without_final_norm(policy: Path, target: Path) -> Path:
    """A copy whose checkpoint lacks one tensor."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(policy, target)
    tensors = load_file(target / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


def test_the_child_dies_with_a_killed_parent(policies: Policies) -> None:
    program = (
        "import sys, sampling_world\n"
        "from pathlib import Path\n"
        "from preforch_training.sampling.vllm import VllmSampler\n"
        "sampling_world.sample_for_long(VllmSampler(), Path(sys.argv[1]))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(policies["a"])], env=environment, stderr=subprocess.DEVNULL
    )
    child = wait_for_child(parent)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs([child], timeout=20)
    assert not alive


def wait_for_child(parent: subprocess.Popen[bytes]) -> psutil.Process:
    """The vLLM child, once it has loaded vLLM."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert parent.poll() is None, "the parent ended on its own"
        for child in children_of(parent.pid):
            if any("libtorch" in part.path for part in child.memory_maps()):
                return child
        time.sleep(0.1)
    raise AssertionError("no child appeared")
