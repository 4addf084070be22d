"""Every example as a user runs it, against one gateway with a real vLLM: their own packages and programs."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples import ASKED, OTHERS, run_example, weights_asked_for
from test_with_vllm import gateway_process

pytestmark = pytest.mark.deploy

KEY = "examples-0123456789"
PARSING = ("openai_responses.py", "node/openai.mjs")


@pytest.fixture(scope="module")
def url(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("gateway") / "log"
    # A model without training fills the room between JSON's tokens with blanks.
    blanks = '{"backend": "xgrammar", "disable_any_whitespace": true}'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFORCH_API_KEYS", f"examples:{KEY}")
        with gateway_process(
            run_folder, log, f"--engine-arg=--structured-outputs-config={blanks}"
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready at "), log.read_text()
            yield line.split()[-1]


@pytest.mark.parametrize("name", ASKED)
def test_every_carrier_of_weights_arrives_and_they_are_found_in_the_answer(name: str, url: str) -> None:
    done = run_example(name, url, key=KEY, model="tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights_asked_for(done.stdout) == ASKED[name]
    parsed = re.search(r"parsed: .*urgency\W+(low|high)\b", done.stdout)
    assert (parsed is not None) == (name in PARSING)


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_run_as_well(name: str, url: str) -> None:
    done = run_example(name, url, key=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
