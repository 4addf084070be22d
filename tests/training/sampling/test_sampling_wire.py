"""Lines between the sampler and its child."""

import pytest
from preforch_training.sampling.wire import (
    Answer,
    Failure,
    NotLoaded,
    Progress,
    TokenResponse,
    line_of,
    read_reply,
)
from pydantic import ValidationError

REPLIES = (
    Progress(done=3),
    Answer(responses=((TokenResponse(token_ids=(1, 2), finished=True),), ()), peak_memory_mib=12.5),
    NotLoaded(reason="line one\nline two"),
    Failure(error="RuntimeError: \u2028 no"),
)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: str(reply.kind))
def test_a_reply_is_one_line_and_comes_back_as_it_was(reply: Progress | Answer | NotLoaded | Failure) -> None:
    line = line_of(reply)
    assert line.count(b"\n") == 1
    assert read_reply(line) == reply


def test_what_is_no_reply_is_refused() -> None:
    with pytest.raises(ValidationError, match="kind"):
        read_reply(b'{"kind": "joke"}\n')
