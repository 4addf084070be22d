"""Fixtures of the client tests."""

from collections.abc import Iterator

import pytest
from rote_gateway import Gateway, running_gateway


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A gateway that answers by rote, on a loopback port."""
    with running_gateway() as running:
        yield running
