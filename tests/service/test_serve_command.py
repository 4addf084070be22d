"""`preforch serve`: wrong input is one line and exit code 2; no torch is needed; signals end it well."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import tiny
from fakes import FakeUpstream, engine_app, running_app, stream_answer
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.manifest import Manifest, write_manifest
from preforch_models.policy_card import read_policy_card
from preforch_models.run_folder import RunInfo, write_run_info

# Runs a module in an interpreter where torch and transformers cannot be imported.
WITHOUT_TORCH = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "vllm"):
            raise ImportError(f"{name} is blocked here")

sys.meta_path.insert(0, Blocked())
sys.argv[0] = "preforch_service"
runpy.run_module("preforch_service", run_name="__main__")
"""


def serve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "preforch_service", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def refused(*arguments: object) -> str:
    """The one line that a wrong call says."""
    done = serve(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("preforch serve: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere", "--weights-only")
    assert "manifest.json" in refused(tmp_path, "--weights-only")


def test_a_flipped_byte_is_found(bundle_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    file = tmp_path / "bundle" / "orchestrator.onnx"
    flip_a_byte(file)
    assert "orchestrator.onnx: sha256" in refused(tmp_path / "bundle", "--weights-only")


@pytest.mark.parametrize("name", ["model.safetensors", "preference.json"])
def test_a_flipped_byte_in_the_policy_is_found(run_folder: Path, tmp_path: Path, name: str) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    flip_a_byte(run / "policy" / "wic" / "round-0" / name)
    assert f"{name}: sha256" in refused(run)


def test_a_card_that_lacks_a_special_token_of_the_tokenizer_is_refused(
    run_folder: Path, tmp_path: Path
) -> None:
    policy = shutil.copytree(run_folder / "policy" / "wic" / "round-0", tmp_path / "policy")
    card = policy / "preference.json"
    content = json.loads(card.read_text(encoding="utf-8"))
    content["control_strings"].remove("<|im_end|>")
    card.write_text(json.dumps(content), encoding="utf-8")
    write_manifest(policy, Manifest(kind="policy"))
    assert "control_strings lack '<|im_end|>'" in refused(run_folder, "--policy", policy)


def test_a_policy_of_another_bundle_is_refused(bundle_folder: Path, run_folder: Path, tmp_path: Path) -> None:
    card = (run_folder / "policy/wic/round-0/preference.json").read_text(encoding="utf-8")
    other = tmp_path / "preference.json"
    other.write_text(card.replace('"humor"', '"polite"'), encoding="utf-8")
    said = refused(bundle_folder, "--upstream", "http://127.0.0.1:9", "--policy-card", other)
    assert "do not belong together" in said


def test_wrong_combinations_say_what_is_allowed(bundle_folder: Path, tmp_path: Path) -> None:
    assert "belong together" in refused(bundle_folder, "--upstream", "http://127.0.0.1:9")
    assert "exclude" in refused(
        bundle_folder, "--upstream", "http://x", "--policy-card", "y", "--weights-only"
    )
    assert "no_auth" in refused(bundle_folder, "--weights-only", "--host", "0.0.0.0")
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    write_run_info(tmp_path, RunInfo())
    assert "train a policy" in refused(tmp_path)


@pytest.mark.parametrize("options", [[], ["--weights-only"]])
def test_a_run_that_was_made_before_runs_named_their_policy_is_refused(
    bundle_folder: Path, tmp_path: Path, options: list[str]
) -> None:
    shutil.copytree(bundle_folder, tmp_path / "bundle")
    assert "this run has format 1" in refused(tmp_path, *options)


def test_a_policy_that_the_run_does_not_hold_is_an_error_that_names_those_there(run_folder: Path) -> None:
    assert "choose with --policy-name: ['wic']" in refused(run_folder, "--policy-name", "dpo")
    assert "policy_name chooses" in refused(run_folder, "--policy-name", "wic", "--weights-only")


def test_a_mixture_of_policies_is_refused_in_words(run_folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    names = ("helpful", "harmless", "humor")
    members = {name: tiny.write_fixed_policy(run / f"policy/best-{name}/round-0", names) for name in names}
    mod = tiny.write_mixture(run / "policy" / "mod" / "round-0", members)
    card = ["--upstream", "http://127.0.0.1:9", "--policy-card", mod / "preference.json"]
    for chosen in (["--policy-name", "mod"], card):
        said = refused(run, *chosen)
        assert "policy 'mod' can be neither served nor pushed" in said
        assert "every token is drawn from several models at once" in said


def test_a_fixed_policy_is_announced_in_words_at_the_start(run_folder: Path, tmp_path: Path) -> None:
    wic = read_policy_card(run_folder / "policy/wic/round-0")
    file = tmp_path / "preference.json"
    options = ["--upstream", "http://127.0.0.1:9", "--policy-card", str(file)]
    said = {}
    for conditioning in (FixedConditioning(), wic.conditioning):
        written = wic.model_copy(update={"conditioning": conditioning})
        file.write_text(written.model_dump_json(), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = serve(run_folder / "bundle", *options, "--port", taken.getsockname()[1])
        assert done.returncode == 2
        said[conditioning.kind] = done.stderr
    assert "policy 'tiny' does not read weights" in said["fixed"]
    assert "preference.applied is false" in said["fixed"]
    assert "read weights" not in said["context"]


def test_a_port_that_is_taken_is_named(bundle_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(bundle_folder, "--weights-only", "--port", port, "--metrics-port", 0)
        assert f"127.0.0.1:{port}" in said
        said = refused(bundle_folder, "--weights-only", "--port", 0, "--metrics-port", port)
        assert f"cannot listen for metrics on 127.0.0.1:{port}: " in said
        assert "see --metrics-port" in said


def test_weights_are_served_without_torch_and_a_signal_ends_it_with_0(bundle_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = free.getsockname()[1]
    options = ["--weights-only", "--port", "0", "--metrics-port", str(metrics)]
    command = [sys.executable, "-c", WITHOUT_TORCH, str(bundle_folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready at http://127.0.0.1:")
        url = line.split()[-1]
        answer = httpx.post(f"{url}/weights", json={"prompt": "Tell me a joke about a penguin."}).json()
        assert answer["source"] == "orchestrator"
        assert httpx.get(f"{url}/readyz").status_code == 200
        text = httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
        assert 'preforch_decisions_total{source="orchestrator"} 1.0' in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_stream_that_never_begins_is_kept_alive_until_the_gateway_has_drained(run_folder: Path) -> None:
    card = run_folder / "policy" / "wic" / "round-0" / "preference.json"
    silent = FakeUpstream(lambda body: stream_answer(threading.Event()))
    with running_app(engine_app(silent)) as engine:
        options = ["--upstream", engine, "--policy-card", str(card), "--port", "0", "--sse-keep-alive", "0.1"]
        command = [sys.executable, "-m", "preforch_service", str(run_folder / "bundle"), *options]
        with subprocess.Popen(
            [*command, "--drain-timeout", "0.3"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            body = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
            with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=20) as response:
                assert response.status_code == 200
                lines = response.iter_lines()
                assert [next(lines) for _ in range(3)] == [": keep-alive"] * 3
                process.send_signal(signal.SIGTERM)
                *comments, error, _, done, _ = lines
            assert process.wait(10) == 0
    assert set(comments) == {": keep-alive"}
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "draining"
    assert done == "data: [DONE]"


@pytest.mark.parametrize("engine_arg", ["--no-such-flag"])
def test_an_engine_that_cannot_start_ends_the_gateway_with_its_log(run_folder: Path, engine_arg: str) -> None:
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = ["--port", "0", "--metrics-port", "0", f"--engine-arg={engine_arg}"]
    command = [sys.executable, "-m", "preforch_service", str(run_folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 1, (done.stderr, time.monotonic() - started)
    assert engine_arg in done.stderr
