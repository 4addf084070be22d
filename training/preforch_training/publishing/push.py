"""Artifacts to a repository of the Hugging Face hub.

In:  a run, or one artifact (bundle, policy round, orchestrator, reward); a repository.
Out: one commit with the artifacts and a model card, in a repository that is private unless asked otherwise.

| pushed | the repository holds |
|---|---|
| an artifact | its files at the top |
| a run | `run.json`, and `bundle/` and the newest round of the policy to serve where they are in the run |

Every artifact is verified first, and nothing but what its manifest lists is sent, besides manifest and card.
What else is in the repository is deleted in the same commit where that is asked for, and an error otherwise:
what is served must be whole and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from preforch_models.bundle import read_bundle
from preforch_models.manifest import MANIFEST, MODEL_CARD, ArtifactError, verify
from preforch_models.policy_card import CARD_FILE, check_match, check_servable, read_policy_card
from preforch_models.run_folder import RUN_FILE, RunInfo, check_previous, read_run_info, rounds

from preforch_training.config import read_config
from preforch_training.publishing.card import render_card, render_run_card
from preforch_training.publishing.texts import SUBJECTS

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

_KEPT = {".gitattributes", MODEL_CARD}
"""Of a repository: the hub's own file, and what every push replaces."""


@dataclass(frozen=True)
class Plan:
    """What a push sends: files by their place in the repository; small ones as bytes."""

    files: dict[str, Path | bytes]

    @property
    def card(self) -> str:
        """The model card of the repository."""
        content = self.files[MODEL_CARD]
        assert isinstance(content, bytes)
        return content.decode()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in sorted(self.files.items())
        }


def make_plan(path: Path, *, artifacts: Sequence[str] = ()) -> Plan:
    """What to send of a run or an artifact; `artifacts`: places in a run, in place of the default ones.

    Raises ArtifactError for what is unfinished, damaged, or not for a hub.
    """
    if (path / MANIFEST).is_file():
        if artifacts:
            raise ArtifactError(f"{path}: is one artifact; parts are chosen of a run")
        return Plan({**_verified(path, ""), MODEL_CARD: _card_of(path).encode()})
    info = read_run_info(path)
    if info is None:
        raise ArtifactError(f"{path}: neither a run nor a finished artifact: no {RUN_FILE}, no {MANIFEST}")
    labels = list(artifacts) or _served(path, info)
    if not labels:
        raise ArtifactError(f"{path}: the run has neither a bundle nor a policy to serve yet")
    files: dict[str, Path | bytes] = {}
    for label in labels:
        _check_place(path, label)
        files |= _verified(path / label, f"{label}/")
    pushed = {label.split("/")[1] for label in labels if label.startswith("policy/")}
    serve = info.serve if info.serve in pushed else next(iter(sorted(pushed)), None)
    files[RUN_FILE] = (RunInfo(serve=serve).model_dump_json(indent=2) + "\n").encode()
    config = read_config(path / "config.toml")
    for label in labels:
        files[f"{label}/{MODEL_CARD}"] = render_card(path, config, label).encode()
    files[MODEL_CARD] = render_run_card(path, config, labels).encode()
    return Plan(files)


def _served(run: Path, info: RunInfo) -> list[str]:
    """Bundle, and newest round of the policy to serve, where they are there; they belong together."""
    found = ["bundle"] if (run / "bundle" / MANIFEST).is_file() else []
    of_policy = rounds(run).get(info.serve or "")
    if of_policy:
        for folder in of_policy:
            check_previous(run, folder)
        if found:
            check_match(read_bundle(run / "bundle"), read_policy_card(of_policy[-1]))
        found.append(of_policy[-1].relative_to(run).as_posix())
    return found


def _check_place(run: Path, label: str) -> None:
    parts = Path(label).parts
    if Path(label).is_absolute() or ".." in parts or not (run / label / MANIFEST).is_file():
        raise ArtifactError(f"{run}: has no finished artifact {label!r}")


def _verified(folder: Path, prefix: str) -> dict[str, Path | bytes]:
    """Files of a whole artifact that is for a hub."""
    manifest = verify(folder)
    if manifest.kind not in SUBJECTS:
        raise ArtifactError(
            f"{folder}: holds {manifest.kind!r}, which is not for a hub; allowed are {', '.join(SUBJECTS)}"
        )
    if (folder / CARD_FILE).is_file():
        check_servable(read_policy_card(folder))
    return {f"{prefix}{name}": folder / name for name in (*manifest.files, MANIFEST)}


def _card_of(folder: Path) -> str:
    """The card as the run around an artifact has it today; without a run, the one in the folder."""
    folder = folder.resolve()
    for run in folder.parents:
        if (run / RUN_FILE).is_file() and (run / "config.toml").is_file():
            config = read_config(run / "config.toml")
            return render_card(run, config, folder.relative_to(run).as_posix())
    card = folder / MODEL_CARD
    if not card.is_file():
        raise ArtifactError(f"{card}: missing, and no run around the artifact to make it from")
    return card.read_text(encoding="utf-8")


def push(plan: Plan, repo: str, *, public: bool, branch: str, replace: bool) -> str:
    """Send it all in one commit. Returns the commit's hash.

    Raises ValueError for a repository of the other visibility or one that holds something else, OSError
    where the hub refuses or cannot be reached.
    """
    # Plans are made without it, and a dry run touches no network.
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's, of its version

    api = HfApi()
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        _check_visibility(repo, is_public=not api.model_info(repo).private, public=public)
        if branch != "main":
            api.create_branch(repo, branch=branch, exist_ok=True)
        others = sorted(set(api.list_repo_files(repo, revision=branch)) - set(plan.files) - _KEPT)
        if others and not replace:
            raise ValueError(
                f"{repo} ({branch}) holds {len(others)} other files, such as {others[0]!r}: choose another "
                "repository or branch, or delete them with --replace"
            )
        done = api.create_commit(
            repo, _operations(plan, others), commit_message="preforch push", revision=branch
        )
    except HTTPError as error:
        raise OSError(f"{repo}: {error}") from error
    return str(done.oid)


def _operations(plan: Plan, others: Sequence[str]) -> list["CommitOperationAdd | CommitOperationDelete"]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    return [
        *(CommitOperationAdd(name, content) for name, content in sorted(plan.files.items())),
        *(CommitOperationDelete(name, is_folder=False) for name in others),
    ]


def _check_visibility(repo: str, *, is_public: bool, public: bool) -> None:
    if is_public and not public:
        raise ValueError(f"{repo} is public: say --public, or make it private on the hub first")
    if public and not is_public:
        raise ValueError(f"{repo} is private: leave out --public, or make it public on the hub first")


def describe(plan: Plan, repo: str, *, public: bool, branch: str) -> str:
    """What a push would do, for people."""
    sizes = plan.sizes
    lines = [f"{size:>15,}  {name}" for name, size in sizes.items()]
    lines.append(f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files")
    private_data = [name for name in sizes if name.endswith(("golden.jsonl", "samples.jsonl"))]
    if private_data:
        lines.append(f"prompts or responses of your data are in: {', '.join(private_data)}")
    target = f"to {repo}, branch {branch}, {'public' if public else 'private'}"
    return "\n".join([target, *lines, "", f"{MODEL_CARD}:", "", plan.card])
