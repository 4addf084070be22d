"""`preforch bench` against real gateways: what it measures, and what it counts as an error."""

import json
import re

import pytest
from fakes import FakeUpstream, json_answer, make_gateway, running
from preforch_cli.closed_loop import Measured
from preforch_cli.main import main
from preforch_models.bundle import Bundle
from scripted_server import answer, scripted_server


def bench(url: str, *options: str) -> int:
    return main(["bench", url, "--requests", "12", "--clients", "1", "3", *options])


def test_both_routes_are_measured_where_both_are_served(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeUpstream()
    with running(make_gateway(bundle, upstream=engine)) as url:
        assert bench(url, "--max-tokens", "5") == 0
    head, *rows = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert head.split() == [
        "route",
        "clients",
        "requests_per_second",
        "p50",
        "p95",
        "p99",
        "answered",
        "errors",
    ]
    assert [re.split(r"\s{2,}", row)[:2] for row in rows] == [
        [route, number] for route in ("/weights", "/generate") for number in ("1", "3")
    ]
    assert all(row.endswith("12    none") for row in rows)
    # One to see whether it is served, then as many as were asked for.
    prompts = {body["messages"][0]["content"] for body in engine.bodies}
    assert (len(engine.bodies), len(prompts)) == (25, 25)
    assert {body["max_tokens"] for body in engine.bodies} == {5}


def test_a_gateway_without_an_engine_is_measured_on_weights_alone(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(make_gateway(bundle)) as url:
        assert bench(url, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["route"], row["clients"], row["answered"], row["errors"]) for row in rows] == [
        ("/weights", 1, 12, {}),
        ("/weights", 3, 12, {}),
    ]
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] < 60_000 for row in rows)
    assert all(row["requests_per_second"] > 0 for row in rows)


def test_errors_are_counted_by_kind_and_not_as_answers(capsys: pytest.CaptureFixture[str]) -> None:
    script = [answer(), answer("404 Not Found", {}), answer(), answer("503 Service Unavailable", {}), b""]
    with scripted_server(*script) as server:
        assert main(["bench", server.url, "--requests", "4", "--clients", "1"]) == 0
    (row,) = capsys.readouterr().out.partition("\n\n")[0].splitlines()[1:]
    assert row.endswith("  1  1 HTTP 503, 2 without an answer")
    assert len(server.bodies) == 6


def test_a_gateway_that_answers_nothing_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_server(answer(), answer("404 Not Found", {}), b"") as server:
        assert main(["bench", server.url, "--requests", "2", "--clients", "1"]) == 1
    assert "  -    -    -         0  2 without an answer" in capsys.readouterr().out
    for options in ([], ["--api-key", "wrong"]):
        with scripted_server(answer("503 Service Unavailable", {"error": {"message": "draining"}})) as server:
            assert main(["bench", server.url, *options]) == 1
        assert "preforch: error: draining (HTTP 503)" in capsys.readouterr().err


def test_an_engine_that_fails_is_said_at_once(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeUpstream(answer=lambda _body: json_answer({"error": {"message": "no memory"}}, 500))
    with running(make_gateway(bundle, upstream=engine)) as url:
        assert bench(url) == 1
    assert "no memory" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--clients", "--requests", "--max-tokens"])
def test_numbers_below_1_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "http://127.0.0.1:1", option, "0"]) == 2
    assert "must be 1 or more" in capsys.readouterr().err


def test_percentiles_are_of_the_nearest_rank() -> None:
    latencies = [number / 1000 for number in range(100, 0, -1)]
    row = Measured("/weights", 1, 2.0, latencies, {}).row()
    assert (row["p50"], row["p95"], row["p99"], row["requests_per_second"]) == (50.0, 95.0, 99.0, 50.0)
    assert Measured("/weights", 1, 2.0, [0.007], {}).row()["p99"] == 7.0
