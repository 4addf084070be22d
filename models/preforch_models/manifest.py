"""Artifact folders: written whole or not at all, and verifiable afterwards.

In:  files written into a temporary folder beside the target.
Out: the target folder with a `manifest.json` in it, written last. No manifest, no artifact.

A `README.md` at its top is about the artifact and no part of it: nothing reads it, it has no hash, and it may
be written again when more is known.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from preforch_models.objectives import Record, explain

MANIFEST = "manifest.json"
MODEL_CARD = "README.md"
FORMAT_VERSION = 1


class ArtifactError(ValueError):
    """A folder that is not the artifact it should be.

    The message names the file and what is wrong with it.
    """


class Manifest(Record):
    """What an artifact is and where it came from. `files` maps relative paths to sha256."""

    kind: str
    format_version: int = FORMAT_VERSION
    files: dict[str, str] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    versions: dict[str, str] = Field(default_factory=dict)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file below the folder but manifest and model card, by relative path.

    A link is an error, but where the cache of a hub keeps files.
    """
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not _in_hub_cache(path):
            raise ArtifactError(f"{path}: links are not allowed in an artifact")
        if path.is_file() and path not in (folder / MANIFEST, folder / MODEL_CARD):
            hashes[path.relative_to(folder).as_posix()] = sha256_of(path)
    return hashes


def _in_hub_cache(link: Path) -> bool:
    """Whether this is how huggingface_hub keeps a file: `snapshots/COMMIT/...` links to one in `blobs/`."""
    target = Path(os.path.normpath(link.parent / link.readlink()))
    return target.parent.name == "blobs" and any(
        parent.parent.name == "snapshots" and parent.parent.parent == target.parent.parent
        for parent in link.parents
    )


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A temporary folder that replaces `target` when the block ends well, and vanishes when it does not.

    The block must write the manifest (`write_manifest`) as its last act.
    """
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        assert (temporary / MANIFEST).is_file(), "the manifest is the last file of an artifact"
        _sync(temporary)
        if target.exists():
            # First the manifest: a kill in between must not leave half an artifact that looks whole.
            (target / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Flush files to disk, so that a rename that survives a power cut names whole files."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Hash the folder's files into the manifest and write it."""
    complete = manifest.model_copy(update={"files": hash_files(folder)})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return complete


def read_manifest(folder: Path, *, kind: str | None = None) -> Manifest:
    """Read and check the manifest of an artifact. Raises ArtifactError."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{folder}: no {MANIFEST}, so this is not a finished artifact")
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        detail = explain(error) if isinstance(error, ValidationError) else str(error)
        raise ArtifactError(f"{path}: {detail}") from error
    if manifest.format_version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {manifest.format_version}, this program reads {FORMAT_VERSION}"
        )
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{path}: this is a {manifest.kind!r}, expected a {kind!r}")
    return manifest


def verify(folder: Path, *, kind: str | None = None) -> Manifest:
    """`read_manifest`, then compare every file with its hash.

    Raises ArtifactError naming the first wrong file.
    """
    manifest = read_manifest(folder, kind=kind)
    found = hash_files(folder)
    for name, expected in manifest.files.items():
        if name not in found:
            raise ArtifactError(f"{folder / name}: missing, but {MANIFEST} lists it")
        if found[name] != expected:
            raise ArtifactError(
                f"{folder / name}: sha256 is {found[name][:12]}..., {MANIFEST} says {expected[:12]}..."
            )
    extra = sorted(set(found) - set(manifest.files))
    if extra:
        raise ArtifactError(f"{folder / extra[0]}: not listed in {MANIFEST}")
    return manifest
