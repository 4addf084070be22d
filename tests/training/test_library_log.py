"""What libraries say goes to a file, whatever handlers they have; what we print stays."""

import logging
import sys
import warnings
from pathlib import Path

import pytest
from preforch_training.library_log import library_log


def test_log_lines_and_warnings_of_libraries_go_to_the_file_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loud = logging.getLogger("some_library.part")
    handler, handlers = logging.StreamHandler(sys.stderr), loud.handlers
    loud.handlers, loud.propagate = [handler], False
    root = logging.getLogger().handlers
    path = tmp_path / "logs" / "libraries.log"
    try:
        with library_log(path):
            loud.warning("from a handler of its own")
            logging.getLogger("another").warning("from the root logger")
            warnings.simplefilter("always")
            warnings.warn("from Python", FutureWarning, stacklevel=1)
            print("ours", file=sys.stderr)
        assert loud.handlers == [handler]
        assert not loud.propagate
    finally:
        loud.handlers, loud.propagate = handlers, True
    assert logging.getLogger().handlers == root
    said = path.read_text(encoding="utf-8")
    for words in ("from a handler of its own", "from the root logger", "from Python"):
        assert words in said
    assert capfd.readouterr().err == "ours\n"


def test_where_nothing_is_said_there_is_no_file(tmp_path: Path) -> None:
    with library_log(tmp_path / "logs" / "libraries.log"):
        pass
    assert not list(tmp_path.iterdir())
