"""The jobs of `training/examples`: the SLURM script with commands that only note what they were asked, and
the Kubernetes Job against the schemas of Kubernetes."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from test_chart import KUBERNETES

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "training" / "examples"
SLURM = EXAMPLES / "slurm.sh"
NOTES = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$NOTES"
[ "$(basename "$0") $1" = "scontrol show" ] && printf 'gpu-1\\ngpu-2\\n'
[ "$(basename "$0")" = srun ] && exec "${@}"
[ "$(basename "$0")" = preforch ] && [ -n "${HANGS:-}" ] && exec sleep 60
exit "${STATUS:-0}"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a job, with an environment of programs that note how they are called."""
    programs = tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'export PATH="{programs}:$PATH"\n', encoding="utf-8")
    for name in ("srun", "scontrol", "preforch", "torchrun"):
        (programs / name).write_text(NOTES, encoding="utf-8")
        (programs / name).chmod(0o755)
    return {
        "PATH": os.environ["PATH"],
        "PREFORCH_ENV": str(programs.parent),
        "NOTES": str(tmp_path / "notes"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_NODELIST": "gpu-[1-2]",
    }


def submit(environment: dict[str, str], folder: Path) -> "subprocess.Popen[str]":
    command = ["bash", str(SLURM), "my run.toml", "--set", "run.folder=/shared/a run"]
    return subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True)


def noted(environment: dict[str, str]) -> list[str]:
    file = Path(environment["NOTES"])
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


TRAIN = "train all my run.toml"
SET = "--set run.folder=/shared/a run"


def test_one_node_trains_with_a_process_for_each_gpu(cluster: dict[str, str], tmp_path: Path) -> None:
    with submit(cluster, tmp_path) as job:
        assert job.wait(30) == 0
    assert noted(cluster)[-1] == f"preforch {TRAIN} --nproc 8 {SET}"


def test_several_nodes_meet_at_the_first_one(cluster: dict[str, str], tmp_path: Path) -> None:
    with submit(cluster | {"SLURM_JOB_NUM_NODES": "2"}, tmp_path) as job:
        assert job.wait(30) == 0
    meeting = "--rdzv-id 7 --rdzv-backend c10d --rdzv-endpoint gpu-1:29500"
    assert noted(cluster)[-1] == (
        f"torchrun --nnodes 2 --nproc-per-node 8 {meeting} -m preforch_cli {TRAIN} {SET}"
    )


def test_at_the_time_limit_the_job_is_queued_again(cluster: dict[str, str], tmp_path: Path) -> None:
    with submit(cluster | {"HANGS": "yes"}, tmp_path) as job:
        deadline = time.monotonic() + 30
        while not any(line.startswith("preforch ") for line in noted(cluster)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = time.monotonic()
        job.send_signal(signal.SIGUSR1)
        assert job.wait(30) == 0
        assert time.monotonic() - started < 20, "the training was waited for and not ended"
    assert noted(cluster)[-1] == "scontrol requeue 7"


def test_a_training_that_fails_fails_the_job(cluster: dict[str, str], tmp_path: Path) -> None:
    with submit(cluster | {"STATUS": "2"}, tmp_path) as job:
        assert job.wait(30) == 2
    assert "scontrol requeue 7" not in noted(cluster)


def test_a_job_without_a_configuration_says_how_it_is_used(cluster: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(SLURM)], env=cluster, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "usage: sbatch slurm.sh CONFIG" in done.stderr
    assert noted(cluster) == []


def test_options_of_slurm_come_before_the_first_command() -> None:
    lines = SLURM.read_text(encoding="utf-8").splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(options) >= 8
    assert max(options) < first_command


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / "kubernetes-job.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_job(version: str) -> None:
    for document in documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_the_job_is_restricted_and_its_volumes_are_there() -> None:
    claim, job = documents()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    ranks = container["args"][container["args"].index("--nproc") + 1]
    assert ranks == container["resources"]["limits"]["nvidia.com/gpu"]
    # podFailurePolicy wants this.
    assert pod["restartPolicy"] == "Never"
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert rules[1]["onExitCodes"]["containerName"] == container["name"]
    assert "run.folder=/data" in json.dumps(container["args"])


def test_the_image_is_the_one_that_the_dockerfile_makes() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version is not None
    (container,) = documents()[1]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"preference-orchestrator/training:{version[1]}"
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert 'ENTRYPOINT ["preforch", "train"]' in dockerfile.split("AS training\n")[1]
