"""Artifact folders: whole or not at all, and every kind of damage is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from preforch_models.manifest import (
    MANIFEST,
    MODEL_CARD,
    ArtifactError,
    Manifest,
    digest,
    read_manifest,
    sha256_of,
    verify,
    write_manifest,
    writing,
)


def write(target: Path, text: str = "content") -> Path:
    with writing(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file.txt").write_text(text, encoding="utf-8")
        write_manifest(folder, Manifest(kind="demo", counts={"files": 1}))
    return target


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def flip(folder: Path) -> None:
    file = folder / "sub" / "file.txt"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


def link(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "sub")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (flip, r"sub/file\.txt: sha256 is"),
    "missing file": (lambda folder: (folder / "sub" / "file.txt").unlink(), r"sub/file\.txt: missing"),
    "extra file": (lambda folder: (folder / "more.txt").write_text("x"), r"more\.txt: not listed"),
    "link": (link, r"link: links are not allowed"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "no manifest.json"),
    "other version": (
        lambda folder: edit_manifest(folder, format_version=2),
        r"manifest\.json: format version 2",
    ),
    "unknown key": (lambda folder: edit_manifest(folder, owner="me"), r"manifest\.json: owner: Extra inputs"),
    "no JSON": (lambda folder: (folder / MANIFEST).write_text("{"), r"manifest\.json: .*Invalid JSON"),
    "no text": (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"), r"manifest\.json: .*decode"),
}


def test_a_written_artifact_verifies_and_says_what_it_holds(tmp_path: Path) -> None:
    target = write(tmp_path / "deep" / "artifact")
    manifest = verify(target, kind="demo")
    assert manifest.files == {"sub/file.txt": sha256_of(target / "sub" / "file.txt")}
    assert manifest.counts == {"files": 1}
    assert [path.name for path in target.parent.iterdir()] == ["artifact"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_an_error_that_names_the_file(tmp_path: Path, damage: str) -> None:
    target = write(tmp_path / "artifact")
    harm, message = DAMAGE[damage]
    harm(target)
    with pytest.raises(ArtifactError, match=message):
        verify(target)


def test_a_card_may_come_and_go(tmp_path: Path) -> None:
    target = write(tmp_path / "artifact")
    before = verify(target)
    (target / MODEL_CARD).write_text("about it", encoding="utf-8")
    assert verify(target) == before
    (target / "sub" / MODEL_CARD).write_text("not at the top", encoding="utf-8")
    with pytest.raises(ArtifactError, match=f"sub/{MODEL_CARD}: not listed"):
        verify(target)


def test_links_are_those_of_the_cache_of_a_hub(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    target = write(cache / "snapshots" / ("0" * 40) / "bundle")
    file = target / "sub" / "file.txt"
    (cache / "blobs").mkdir()
    file.rename(cache / "blobs" / "1234")
    file.symlink_to(Path("../../../../blobs/1234"))
    assert verify(target).kind == "demo"
    for place in (tmp_path / "blobs", cache / "snapshots" / "blobs", cache / "refs"):
        place.mkdir()
        (place / "1234").write_text("content", encoding="utf-8")
        file.unlink()
        file.symlink_to(place / "1234")
        with pytest.raises(ArtifactError, match="links are not allowed"):
            verify(target)


def test_an_artifact_of_another_kind_is_refused(tmp_path: Path) -> None:
    target = write(tmp_path / "artifact")
    with pytest.raises(ArtifactError, match="this is a 'demo', expected a 'bundle'"):
        read_manifest(target, kind="bundle")


def test_an_exception_while_writing_leaves_the_old_artifact_and_nothing_else(tmp_path: Path) -> None:
    target = write(tmp_path / "artifact", "old")
    with pytest.raises(FileNotFoundError, match="gone"), writing(target) as folder:
        (folder / "sub.txt").write_text((target / "gone").read_text(), encoding="utf-8")
    assert verify(target).counts == {"files": 1}
    assert (target / "sub" / "file.txt").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_folder_without_a_manifest_never_becomes_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="manifest is the last file"), writing(tmp_path / "artifact"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_cleared_and_the_new_artifact_replaces_the_old_one(
    tmp_path: Path,
) -> None:
    target = write(tmp_path / "artifact", "old")
    (tmp_path / ".artifact.partial").mkdir()
    (tmp_path / ".artifact.partial" / "half.bin").write_bytes(b"half")
    write(target, "new")
    assert verify(target).files.keys() == {"sub/file.txt"}
    assert (target / "sub" / "file.txt").read_text(encoding="utf-8") == "new"


def test_nothing_is_seen_at_the_target_before_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    with writing(target) as folder:
        assert not target.exists()
        write_manifest(folder, Manifest(kind="demo"))
        assert not target.exists()
    assert target.is_dir()


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2, 3]}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])
