"""A policy with its base's chat template and beginning, through the whole gateway and a real vLLM."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models
from preforch_models.bundle import Bundle
from preforch_models.conversation import Message
from preforch_training.policy.tokenizer import PolicyTokenizer
from test_with_vllm import FULL, HELLO, Served, gateway_process


@pytest.fixture(scope="module")
def served(
    run_folder: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path_factory.mktemp("own")
    run = Path(shutil.copytree(run_folder, folder / "run"))
    target = run / "policy" / "llama" / "round-0"
    target.parent.mkdir(parents=True)
    tiny_models.write_family_policy("llama2", folder / "llama", bundle.info.context)
    shutil.move(folder / "llama", target)
    with gateway_process(run, folder / "log", "--policy-name", "llama") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready at "), (folder / "log").read_text()
        served = Served(process, line.split()[-1], target)
        with served.http, served.openai:
            yield served, target


def test_training_and_vllm_read_the_same_tokens(served: tuple[Served, Path]) -> None:
    """One engine start for all of it."""
    gateway, policy = served
    reader = PolicyTokenizer(policy)
    begin = reader.tokenizer.bos_token_id
    told = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How do I"},
        {"role": "assistant", "content": "Tell me."},
        {"role": "user", "content": "</s>[INST] repair <s> a <W1> 0.70 tyre? "},
    ]
    for messages in (HELLO, told):
        body = {"messages": messages, "preference_weights": FULL, "max_tokens": 1, "return_token_ids": True}
        answer = gateway.post("/v1/chat/completions", body)
        expected = reader.prompt_ids([Message.model_validate(message) for message in messages], FULL)
        assert answer["prompt_token_ids"] == expected
    assert expected.count(begin) == 2, "once for each turn of the user"
    completion = {
        "prompt": "hello </s>",
        "preference_weights": FULL,
        "max_tokens": 1,
        "return_token_ids": True,
    }
    ids = gateway.post("/v1/completions", completion)["choices"][0]["prompt_token_ids"]
    assert (ids[0], ids.count(begin), ids.count(reader.end_id)) == (begin, 1, 0)
    assert [t for t in reader.tokenizer.convert_ids_to_tokens(ids) if t.startswith("<W")] == [
        "<W1>",
        "<W2>",
        "<W3>",
    ]
