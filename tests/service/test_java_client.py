"""The JDK's own HTTP client, which offers to upgrade to HTTP/2 with each new connection, as it comes."""

import subprocess
from pathlib import Path

import pytest
from fakes import FakeUpstream, any_answer, make_gateway, running
from preforch_models.bundle import Bundle

pytestmark = pytest.mark.deploy
SOURCE = Path(__file__).with_name("JavaClient.java")


def test_every_request_of_a_stock_java_client_is_answered(bundle: Bundle) -> None:
    with running(make_gateway(bundle, upstream=FakeUpstream(any_answer))) as url:
        command = ["java", str(SOURCE), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    asked = ["models", "chat", "again", "stream", "chunked", "expect", "large"]
    assert [answer[:3] for answer in answers] == [[name, "200", "HTTP_1_1"] for name in asked]
    assert all(int(size) > 0 for *_, size in answers)
