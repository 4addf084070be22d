"""Single files: the whole new one, or the old one, or none; never a part."""

from pathlib import Path

import numpy as np
import pytest
from preforch_models.files import write_text, writing_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_there_with_all_its_text(tmp_path: Path, old: str | None) -> None:
    target = tmp_path / "a.json"
    if old is not None:
        target.write_text(old, encoding="utf-8")
    write_text(target, "Grüße\n🙂")
    assert target.read_bytes() == "Grüße\n🙂".encode()
    assert names(tmp_path) == ["a.json"]


def fail(target: Path, error: type[BaseException]) -> None:
    with writing_file(target) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_in_the_block_leaves_what_was_there(
    tmp_path: Path, old: str | None, error: type[BaseException]
) -> None:
    target = tmp_path / "a.json"
    if old is not None:
        target.write_text(old, encoding="utf-8")
    with pytest.raises(error):
        fail(target, error)
    assert names(tmp_path) == ([] if old is None else ["a.json"])
    assert old is None or target.read_text(encoding="utf-8") == old


def test_text_that_no_file_can_hold_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "new " * 10_000 + "\ud83d")
    assert target.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_target_stays_as_it_is_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with writing_file(target) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert target.read_text(encoding="utf-8") == "old"
        assert temporary.parent == target.parent, "a rename across file systems is no rename"
        assert temporary.name.startswith("."), "half a file is hidden from those who look for artifacts"
    assert target.read_text(encoding="utf-8") == "new"


def test_what_a_kill_left_is_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with writing_file(target) as temporary:
        temporary.write_text("first", encoding="utf-8")
    temporary.write_text("what a kill left, which is longer", encoding="utf-8")
    write_text(target, "second")
    assert target.read_text(encoding="utf-8") == "second"
    assert names(tmp_path) == ["a.txt"]


def test_a_writer_that_adds_a_missing_suffix_writes_the_file_that_is_renamed(tmp_path: Path) -> None:
    with writing_file(tmp_path / "part.npz") as temporary:
        np.savez(temporary, x=np.arange(3))
    assert names(tmp_path) == ["part.npz"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing_file(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []
