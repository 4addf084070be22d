"""A reload takes a good bundle and refuses a bad one, with real bundles over HTTP.

Nothing of the old one is left.
"""

import asyncio
import gc
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import onnxruntime
import pytest
import tiny
from fakes import FakeUpstream, make_gateway, running
from preforch_models.bundle import GOLDEN_FILE, ONNX_FILE, read_bundle
from preforch_models.manifest import MANIFEST, ArtifactError, Manifest, write_manifest
from preforch_models.objectives import Objective
from preforch_models.run_folder import RunInfo, write_run_info
from preforch_service.errors import Unavailable
from preforch_service.gateway import Gateway
from preforch_service.keys import Keys, digest_of
from preforch_service.locate import find_bundle
from preforch_service.recommendation.active_bundle import LoadedBundle
from preforch_service.recommendation.recommender import OnnxRecommender
from preforch_service.recommendation.reloading import check_unchanged
from processes import wait_until

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


ADMIN = "admin-0123456789"
BEARER = {"Authorization": f"Bearer {ADMIN}"}


def switch(link: Path, target: Path) -> None:
    """Point a link elsewhere, atomically, as an operator does."""
    new = link.with_name(f"{link.name}.new")
    new.symlink_to(target)
    new.replace(link)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with other weights for the same policy."""
    return tiny.write_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=1)


@pytest.fixture
def link(bundle_folder: Path, tmp_path: Path) -> Path:
    """The configured path: a link to the first bundle."""
    path = tmp_path / "current"
    path.symlink_to(bundle_folder)
    return path


def gateway_at(path: Path, **options: Any) -> Gateway:
    bundle = read_bundle(find_bundle(path))
    recommender = OnnxRecommender(bundle, threads=1)
    keys = Keys.model_validate({"admin": {"sha256": digest_of(ADMIN)}})
    return make_gateway(
        bundle, recommender=recommender, path=path, orchestrator_threads=1, keys=keys, **options
    )


class Served:
    """A gateway over the link, and a client."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.upstream = FakeUpstream()
        self.gateway = gateway_at(link, upstream=self.upstream)
        self.client = httpx.Client(timeout=20)

    def reload(self) -> httpx.Response:
        return self.client.post("/admin/reload", headers=BEARER)

    def revisions(self) -> set[str]:
        """The revision that each route announces."""
        chat = self.client.post("/v1/chat/completions", json=HELLO)
        return {
            self.client.get("/readyz").json()["bundle"],
            self.client.get("/objectives").json()["bundle"],
            self.client.post("/weights", json={"prompt": "hello"}).json()["bundle"],
            chat.json()["preference"]["bundle"],
            chat.headers["X-Preference-Bundle"],
        }

    def count(self, result: str) -> float | None:
        return self.gateway.metrics.registry.get_sample_value(
            "preforch_bundle_reloads_total", {"result": result}
        )


@pytest.fixture
def served(link: Path) -> Iterator[Served]:
    served = Served(link)
    with running(served.gateway) as url, served.client as client:
        client.base_url = httpx.URL(url)
        yield served
    served.gateway.bundles.close()


def test_a_switched_link_is_in_force_on_every_route_at_once(served: Served, other_folder: Path) -> None:
    before = served.client.post("/weights", json={"prompt": "hello"}).json()
    switch(served.link, other_folder)
    assert served.revisions() == {before["bundle"]}
    answer = served.reload()
    revision = read_bundle(other_folder).revision
    assert (answer.status_code, answer.json()) == (200, {"reloaded": True, "bundle": revision})
    assert served.revisions() == {revision}
    assert served.client.post("/weights", json={"prompt": "hello"}).json()["weights"] != before["weights"]
    assert served.upstream.bodies[-1]["chat_template_kwargs"]["weights"] != before["weights"]
    assert served.count("reloaded") == 1


def test_the_same_bundle_is_not_loaded_again(served: Served) -> None:
    loaded = served.gateway.bundles.current
    assert served.reload().json() == {"reloaded": False, "bundle": loaded.bundle.revision}
    assert served.gateway.bundles.current is loaded
    assert served.count("unchanged") == 1


def test_the_bundle_of_a_run_folder_is_reloaded(
    bundle_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle_folder, tmp_path / "run" / "bundle")
    write_run_info(tmp_path / "run", RunInfo())
    gateway = gateway_at(tmp_path / "run")
    with running(gateway) as url:
        shutil.rmtree(tmp_path / "run" / "bundle")
        shutil.copytree(other_folder, tmp_path / "run" / "bundle")
        assert (
            httpx.post(f"{url}/admin/reload", headers=BEARER).json()["bundle"]
            == read_bundle(other_folder).revision
        )
    gateway.bundles.close()


def flip(folder: Path) -> None:
    content = bytearray((folder / ONNX_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / ONNX_FILE).write_bytes(content)


def half_written(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def without_a_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


def no_onnx(folder: Path) -> None:
    (folder / ONNX_FILE).write_bytes(b"not a graph")
    write_manifest(folder, Manifest(kind="bundle"))


def other_golden(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / GOLDEN_FILE).read_text(encoding="utf-8").splitlines()]
    lines[0]["confidence"] = 1 - lines[0]["confidence"]
    (folder / GOLDEN_FILE).write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    write_manifest(folder, Manifest(kind="bundle"))


def other_objectives(folder: Path) -> None:
    shutil.rmtree(folder)
    tiny.write_bundle(
        folder, objectives=(*tiny.OBJECTIVES[:2], Objective(name="polite", description="is kind"))
    )


def other_encoding(folder: Path) -> None:
    shutil.rmtree(folder)
    tiny.write_bundle(folder, encoding="levels")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (flip, f"{ONNX_FILE}: sha256 is"),
        (half_written, "not a finished artifact"),
        (without_a_file, "tokenizer.json: missing"),
        (gone, "no such folder"),
        (no_onnx, "INVALID_PROTOBUF"),
        (other_golden, "golden prompt 1 gives"),
        (other_objectives, "need a restart"),
        (other_encoding, "need a restart"),
    ],
)
def test_a_bad_bundle_is_refused_and_changes_nothing(
    served: Served, other_folder: Path, tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    bad = shutil.copytree(other_folder, tmp_path / "bad")
    loaded = served.gateway.bundles.current
    switch(served.link, bad)
    harm(bad)
    answer = served.reload()
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (
        422,
        "invalid_request_error",
        "bundle_refused",
    )
    assert says in error["message"]
    assert error["message"].endswith(f"bundle {loaded.bundle.revision} keeps serving")
    assert served.gateway.bundles.current is loaded
    assert served.revisions() == {loaded.bundle.revision}
    assert served.count("refused") == 1
    switch(served.link, other_folder)
    assert served.reload().json()["reloaded"] is True


def test_a_folder_that_is_written_while_it_is_loaded_is_noticed(
    bundle_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    bundle = read_bundle(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    check_unchanged(bundle)
    shutil.rmtree(bundle.path)
    shutil.copytree(other_folder, bundle.path)
    with pytest.raises(ArtifactError, match="changed while it was being read"):
        check_unchanged(bundle)


async def two_at_once(gateway: Gateway) -> list[bool]:
    outcomes = await asyncio.gather(gateway.reloader.reload(), gateway.reloader.reload())
    return [outcome.reloaded for outcome in outcomes]


def test_two_reloads_at_once_come_one_after_the_other(link: Path, other_folder: Path) -> None:
    gateway = gateway_at(link)
    switch(link, other_folder)
    assert asyncio.run(two_at_once(gateway)) == [True, False]
    gateway.bundles.close()


async def cancelled(gateway: Gateway) -> None:
    waiting = asyncio.create_task(gateway.reloader.reload())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await gateway.reloader.finish()


def test_a_reload_runs_to_its_end_when_nobody_waits_for_it(link: Path, other_folder: Path) -> None:
    gateway = gateway_at(link)
    switch(link, other_folder)
    asyncio.run(cancelled(gateway))
    assert gateway.bundles.current.bundle.revision == read_bundle(other_folder).revision
    gateway.bundles.close()


def test_there_is_no_reload_while_shutting_down(link: Path, other_folder: Path) -> None:
    gateway = gateway_at(link)
    switch(link, other_folder)
    gateway.readiness.draining = True
    with pytest.raises(Unavailable, match="shutting down"):
        asyncio.run(gateway.reloader.reload())
    gateway.bundles.close()


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection, which may be long in coming while tens of MiB wait for it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def living(kind: type) -> int:
    """Objects of a type that are still there."""
    return sum(type(found) is kind for found in gc.get_objects())


@pytest.mark.usefixtures("uncollected")
def test_replaced_bundles_leave_no_session_behind(
    served: Served, bundle_folder: Path, other_folder: Path
) -> None:
    kinds = (onnxruntime.InferenceSession, OnnxRecommender, LoadedBundle)
    before = [living(kind) for kind in kinds]
    stop = threading.Event()
    failed: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=served.client.base_url, timeout=20) as client:
            while not stop.is_set():
                status = client.post("/weights", json={"prompt": "hello"}).status_code
                failed.extend([status] if status != 200 else [])

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for target in [other_folder, bundle_folder] * 5:
        switch(served.link, target)
        assert served.reload().json()["reloaded"] is True
    stop.set()
    for asker in askers:
        asker.join()
    assert failed == []
    assert before[0] >= 1
    assert wait_until(lambda: [living(kind) for kind in kinds] == before)
