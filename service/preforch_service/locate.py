"""Finds the bundle in a run folder, which may come from a hub.

`hf:ORG/NAME@COMMIT` is a repository that `preforch push` filled, at one commit. A branch or tag is refused,
because what it names can change under a gateway. huggingface_hub downloads into its cache, from which the
same commit is served again without a network; the manifests are verified as those of any folder.
"""

import logging
import re
from pathlib import Path

from preforch_models.manifest import ArtifactError
from preforch_models.run_folder import read_run_info

HUB = "hf:"
_REFERENCE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
_NOT_FETCHED = (".gitattributes", "*.py", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.so")
"""The hub's own file; code, and weights in formats that can hold some: a manifest that lists such a file
fails."""


def fetched(path: Path, *, policies: bool) -> Path:
    """The folder that `hf:ORG/NAME@COMMIT` names, downloaded where it is not cached; other paths as they are.

    `policies`: whether those of a run are needed as well. Raises ValueError for what is no such name, OSError
    where the hub does not give it.
    """
    name = str(path)
    if not name.startswith(HUB):
        return path
    match = _REFERENCE.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name}: expected hf:ORG/NAME@COMMIT, a commit with its 40 digits; branches and tags can change"
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's, of its version
    except ImportError as error:
        raise ValueError(
            f"{name}: needs the package huggingface_hub; pip install 'preference-orchestrator[hub]'"
        ) from error
    # What it says belongs in our log, once.
    logging.getLogger("huggingface_hub").handlers.clear()
    left_out = [*_NOT_FETCHED] if policies else [*_NOT_FETCHED, "policy/*"]
    try:
        found = snapshot_download(match["repo"], revision=match["commit"], ignore_patterns=left_out)
    except HTTPError as error:
        raise OSError(f"{name}: {error}") from error
    return Path(found)


def find_bundle(path: Path) -> Path:
    """The bundle of a run, or the path itself when it is a bundle. Raises ArtifactError for an older run."""
    if not path.is_dir():
        raise ArtifactError(f"{path}: no such folder; a run or a bundle is needed")
    if not (path / "bundle").is_dir():
        return path
    read_run_info(path)
    return path / "bundle"
