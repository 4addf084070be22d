"""docs/clients.md against the examples: what it shows is what runs."""

import json
import os
import re
import subprocess
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from examples import EXAMPLES, ROOT, names_of_examples
from fakes import FakeUpstream, any_answer
from preforch_models.bundle import Bundle
from rote_gateway import Gateway
from served import Served, serve

PAGE = ROOT / "docs" / "clients.md"
MODEL = EXAMPLES / "open_webui" / "model.json"
LINK = re.compile(r"\]\(\.\./clients/examples/([\w./]+)\)")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", flags=re.DOTALL)


def shown() -> list[tuple[str, str, str]]:
    """Each code block with its language and the example whose link is the last one above it."""
    page = PAGE.read_text(encoding="utf-8")
    found = []
    for block in BLOCK.finditer(page):
        name = LINK.findall(page[: block.start()])[-1]
        found.append((name, block[1], block[2]))
    return found


def test_every_example_is_shown() -> None:
    assert {name for name, _, _ in shown()} == {*names_of_examples(), "open_webui/model.json"}


@pytest.mark.parametrize(
    ("name", "block"), [(name, block) for name, language, block in shown() if language != "sh"]
)
def test_a_block_is_part_of_the_file_above_it(name: str, block: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    indents = {line[: len(line) - len(line.lstrip())] for line in text.splitlines()}
    assert any(textwrap.indent(block, indent) in text for indent in indents)


def test_the_shell_block_runs(gateway: Gateway) -> None:
    (block,) = [block for _, language, block in shown() if language == "sh"]
    environment = os.environ | {"PREFORCH_URL": gateway.url, "PREFORCH_API_KEY": "secret"}
    done = subprocess.run(["sh", "-c", block], env=environment, capture_output=True, timeout=60, check=True)
    assert json.loads(done.stdout)["preference"]["weights"]["helpful"] == 0.7
    ((_, headers, _),) = gateway.requests
    assert headers["authorization"] == "Bearer secret"


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    yield from serve(bundle, upstream=FakeUpstream(any_answer))


def test_every_choice_of_open_webui_is_one_of_weights(served: Served) -> None:
    (model,) = json.loads(MODEL.read_text(encoding="utf-8"))
    (control,) = model["params"]["model_controls"].values()
    options: dict[str, dict[str, Any]] = {name: each["params"] for name, each in control["options"].items()}
    assert options[control["default"]] == {}
    sources = {}
    for name, params in options.items():
        response = served.chat(**params, stream=True)
        assert response.status_code == 200, response.text
        sources[name] = response.headers["X-Preference-Source"]
        for objective, weight in params.get("preference_weights", {}).items():
            assert weight == 1 or f"{objective}={weight:.2f}" in response.headers["X-Preference-Weights"]
    pinned = dict.fromkeys(("helpful", "harmless", "humor"), "blended")
    assert sources == {"recommended": "orchestrator", **pinned, "equal": "user"}
