"""A push sends whole artifacts and nothing else, privately unless asked otherwise, by the real hub client."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small_world
import tiny
import tomli_w
from fake_hub import FakeHub, fake_hub
from preforch_models.manifest import MANIFEST, MODEL_CARD, Manifest, read_manifest, verify, write_manifest
from preforch_models.run_folder import RunInfo, read_run_info, write_run_info
from preforch_training.config import write_resolved
from preforch_training.publishing.push import make_plan

REPO = "lab/model"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A run with bundle and policy, as far as a push reads it, and things that no push may send."""
    run = shutil.copytree(run_folder, tmp_path / "secret" / "run")
    raw = small_world.raw_config(tmp_path / "secret", card={"licence": "mit"})
    names = ["helpful", "harmless", "humor"]
    raw["objectives"] = [{"name": name, "description": f"is {name}"} for name in names]
    reward = {"kind": "function", "function": "small_world:funny"}
    raw["reward"] = {"folds": 2} | dict.fromkeys(names, reward)
    (run / "config.toml").write_text(tomli_w.dumps(raw), encoding="utf-8")
    (run / "logs").mkdir()
    (run / "logs" / "vllm.log").write_text("what was said", encoding="utf-8")
    (run / "encoder_cache").mkdir()
    return run


def push(hub: FakeHub, path: Path, *arguments: str, repo: str = REPO) -> subprocess.CompletedProcess[str]:
    """`preforch push` with the real huggingface_hub."""
    environment = {
        **os.environ,
        **hub.environment(path.parent / "hf"),
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
    }
    command = [sys.executable, "-m", "preforch_cli", "push", str(path), "--repo", repo, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def pushed(hub: FakeHub, path: Path, *arguments: str) -> dict[str, bytes]:
    """Files of the repository after a push that went well."""
    done = push(hub, path, *arguments)
    assert done.returncode == 0, done.stderr
    branch = arguments[arguments.index("--branch") + 1] if "--branch" in arguments else "main"
    assert done.stdout == f"hf:{REPO}@{hub.repositories[REPO].branches[branch]}\n"
    return hub.files(REPO, branch)


def unpack(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_run_becomes_a_private_repository_with_what_is_served_and_nothing_else(
    hub: FakeHub, run: Path, tmp_path: Path
) -> None:
    files = pushed(hub, run)
    assert hub.repositories[REPO].private
    places = {"bundle", "policy/wic/round-0"}
    wanted = {
        f"{place}/{name}"
        for place in places
        for name in (*read_manifest(run / place).files, MANIFEST, MODEL_CARD)
    }
    assert set(files) == wanted | {"run.json", MODEL_CARD, ".gitattributes"}
    there = unpack(files, tmp_path / "there")
    for place in places:
        assert verify(there / place) == verify(run / place)
    assert read_run_info(there) == RunInfo(serve="wic")
    card = files[MODEL_CARD].decode()
    assert "license: mit" in card
    assert "[`bundle`](bundle/README.md)" in card
    assert "# policy/wic/round-0" in card
    assert not [name for name, content in files.items() if b"secret" in content]


def test_an_artifact_lies_at_the_top_with_its_card_as_it_is_today(hub: FakeHub, run: Path) -> None:
    bundle = run / "bundle"
    (bundle / MODEL_CARD).write_text("from long ago", encoding="utf-8")
    files = pushed(hub, bundle)
    assert set(files) == {*read_manifest(bundle).files, MANIFEST, MODEL_CARD, ".gitattributes"}
    assert b"license: mit" in files[MODEL_CARD]
    assert (bundle / MODEL_CARD).read_text(encoding="utf-8") == "from long ago"


def test_an_artifact_outside_of_a_run_brings_its_card(
    hub: FakeHub, bundle_folder: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(bundle_folder, tmp_path / "alone")
    said = push(hub, bundle)
    assert said.returncode == 2
    assert "README.md: missing, and no run around the artifact" in said.stderr
    assert not hub.requests
    (bundle / MODEL_CARD).write_text("about it", encoding="utf-8")
    assert pushed(hub, bundle)[MODEL_CARD] == b"about it"


def test_parts_of_a_run_are_chosen_and_branches_made(hub: FakeHub, run: Path) -> None:
    files = pushed(hub, run, "--artifact", "policy/wic/round-0", "--branch", "trial")
    assert {name.split("/")[0] for name in files} == {"policy", "run.json", MODEL_CARD, ".gitattributes"}
    assert set(hub.files(REPO)) == {".gitattributes"}


def test_a_dry_run_says_all_and_sends_nothing(hub: FakeHub, run: Path) -> None:
    done = push(hub, run, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    first, *lines = done.stdout.splitlines()
    assert first == "to lab/model, branch main, private"
    size = (run / "bundle" / "orchestrator.onnx").stat().st_size
    assert f"{size:>15,}  bundle/orchestrator.onnx" in lines
    assert any(line.startswith("prompts or responses of your data are in: bundle/golden.j") for line in lines)
    assert "license: mit" in lines
    assert push(hub, run, "--dry-run", "--public").stdout.startswith("to lab/model, branch main, public\n")


def test_what_is_public_stays_public_and_what_is_private_private(hub: FakeHub, run: Path) -> None:
    pushed(hub, run / "bundle", "--public")
    assert not hub.repositories[REPO].private
    commits = len(hub.repositories[REPO].commits)
    said = push(hub, run / "bundle")
    assert said.returncode == 2
    assert "lab/model is public: say --public" in said.stderr
    hub.repositories[REPO].private = True
    said = push(hub, run / "bundle", "--public")
    assert said.returncode == 2
    assert "lab/model is private: leave out --public" in said.stderr
    assert len(hub.repositories[REPO].commits) == commits


def test_other_files_of_a_repository_are_deleted_only_where_that_is_asked_for(
    hub: FakeHub, run: Path
) -> None:
    pushed(hub, run)
    said = push(hub, run / "bundle")
    assert said.returncode == 2
    assert "(main) holds" in said.stderr
    assert "--replace" in said.stderr
    files = pushed(hub, run / "bundle", "--replace")
    assert set(files) == {*read_manifest(run / "bundle").files, MANIFEST, MODEL_CARD, ".gitattributes"}


def damage(run: Path) -> None:
    (run / "bundle" / "tokenizer.json").write_text("{}", encoding="utf-8")


def add(run: Path) -> None:
    (run / "policy" / "wic" / "round-0" / "notes.txt").write_text("mine", encoding="utf-8")


def leave_unfinished(run: Path) -> None:
    for place in ("bundle", "policy/wic/round-0"):
        (run / place / MANIFEST).unlink()


def put_another_policy(run: Path) -> None:
    card = run / "policy" / "wic" / "round-0" / "preference.json"
    content = json.loads(card.read_text(encoding="utf-8"))
    card.write_text(json.dumps(content | {"conditioning": {"kind": "context", "encoding": "levels"}}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage, r"bundle/tokenizer\.json: sha256 is"),
        (add, r"notes\.txt: not listed"),
        (leave_unfinished, "neither a bundle nor a policy to serve"),
        (put_another_policy, "control_strings lack|do not belong together|sha256 is"),
    ],
)
def test_what_is_not_whole_is_refused(run: Path, harm: Callable[[Path], None], message: str) -> None:
    make_plan(run)
    harm(run)
    with pytest.raises(ValueError, match=message):
        make_plan(run)


def test_a_round_that_was_made_from_another_one_is_sent_only_by_name(run: Path) -> None:
    newest = shutil.copytree(run / "policy" / "wic" / "round-0", run / "policy" / "wic" / "round-1")
    write_manifest(newest, Manifest(kind="policy", inputs={"previous": "another"}))
    with pytest.raises(ValueError, match=r"round-1 is stale: made from another round-0; .*--artifact"):
        make_plan(run)
    assert "policy/wic/round-1/manifest.json" in make_plan(run, artifacts=["policy/wic/round-1"]).files


@pytest.mark.parametrize("place", ["policy/wic/round-1", "../run/bundle", "logs", "/etc"])
def test_a_place_without_a_finished_artifact_is_refused(run: Path, place: str) -> None:
    with pytest.raises(ValueError, match="has no finished artifact"):
        make_plan(run, artifacts=[place])


def test_a_mixture_of_policies_is_refused_in_words(run: Path) -> None:
    mod = tiny.write_mixture(
        run / "policy" / "mod" / "round-0",
        {
            name: tiny.write_fixed_policy(run / "policy" / name / "round-0", ("helpful", "harmless", "humor"))
            for name in ("helpful", "harmless", "humor")
        },
    )
    for path, artifacts in ((run, ["policy/mod/round-0"]), (mod, [])):
        with pytest.raises(
            ValueError, match=r"'mod' can be neither served nor pushed.*several models at once"
        ):
            make_plan(path, artifacts=artifacts)
    # What else the run has is pushed as before.
    assert not [name for name in make_plan(run).files if "mod" in Path(name).parts]


def test_data_are_not_for_a_hub(tmp_path: Path) -> None:
    run, config = small_world.make_run(tmp_path)
    small_world.build("data", run, config)
    write_run_info(run.folder, RunInfo())
    write_resolved(config, run.config_file)
    with pytest.raises(ValueError, match="holds 'data', which is not for a hub"):
        make_plan(run.data)
    with pytest.raises(ValueError, match="holds 'data', which is not for a hub"):
        make_plan(run.folder, artifacts=["data"])


def test_a_hub_that_cannot_be_reached_is_one_line(hub: FakeHub, run: Path) -> None:
    hub.url = "http://127.0.0.1:9"
    done = push(hub, run / "bundle")
    assert done.returncode == 1
    assert done.stderr.startswith("preforch: error: lab/model: ")
