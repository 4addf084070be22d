"""The OpenAPI document: complete, and true of the answers to requests that schemathesis makes of it."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeUpstream, any_answer, make_gateway, running
from preforch_models.bundle import Bundle
from preforch_service.app import create_app
from preforch_service.errors import ApiError
from preforch_service.requests import fields
from preforch_service.requests.anthropic.request import COUNT_TOKENS, MESSAGES
from preforch_service.requests.formats import RequestFormat
from preforch_service.requests.limits import RequestLimits
from preforch_service.requests.responses.request import RESPONSES
from preforch_service.routes.openapi_formats import format_schemas
from preforch_service.routes.openapi_schemas import Schema, schemas

DATA_ROUTES = {
    "/weights",
    "/objectives",
    "/generate",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/models/{model}",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
}
ADMIN_ROUTES = {"/admin/reload"}
OPEN_ROUTES = {"/livez", "/readyz"}
# Weights have to fit together and a conversation needs a user turn: a schema cannot say which requests
# succeed.
SCHEMATHESIS = """
[checks.negative_data_rejection]
expected-statuses = ["400", "403", "404", "405", "413", "415"]
[checks.positive_data_acceptance]
enabled = false
"""


def document(bundle: Bundle, upstream: FakeUpstream | None) -> dict[str, Any]:
    return create_app(make_gateway(bundle, upstream=upstream)).openapi()


@pytest.fixture(scope="module")
def api(bundle: Bundle) -> dict[str, Any]:
    return document(bundle, FakeUpstream())


def operations(api: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By method and path."""
    return {
        f"{method} {path}": found
        for path, methods in api["paths"].items()
        for method, found in methods.items()
    }


def errors_of(kind: type[ApiError]) -> set[type[ApiError]]:
    """An error and all those below it."""
    return {kind}.union(*map(errors_of, kind.__subclasses__()))


@pytest.mark.parametrize("engine", [True, False])
def test_answers_are_as_documented(bundle: Bundle, tmp_path: Path, engine: bool) -> None:
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS, encoding="utf-8")
    bounds = [
        "--max-examples",
        "12",
        "--generation-deterministic",
        "--max-failures",
        "5",
        "--request-timeout",
        "20",
    ]
    with running(make_gateway(bundle, upstream=FakeUpstream(any_answer) if engine else None)) as url:
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{url}/openapi.json",
            "--no-color",
            *bounds,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {13 if engine else 5}" in done.stdout


def test_every_operation_says_all_that_it_may_answer(api: dict[str, Any]) -> None:
    assert set(api["paths"]) == DATA_ROUTES | ADMIN_ROUTES | OPEN_ROUTES
    statuses = {error.status for error in errors_of(ApiError)}
    documented = set()
    for name, operation in operations(api).items():
        responses = operation["responses"]
        documented |= {int(status) for status in responses}
        assert operation["description"], name
        assert all("X-Request-Id" in answer["headers"] for answer in responses.values()), name
        assert all(
            "schema" in media for answer in responses.values() for media in answer["content"].values()
        ), name
        # FastAPI's own: bodies are checked here.
        assert ("422" in responses) == (name == "post /admin/reload"), name
        if name.split()[1] not in OPEN_ROUTES:
            assert {"200", "400", "401", "429", "500", "503"} <= set(responses), name
            assert all("Retry-After" in responses[status]["headers"] for status in ("429", "503")), name
            assert {"key": []} in operation["security"], name
        if name.startswith("post") and name.split()[1] not in ADMIN_ROUTES:
            assert {"413", "415"} <= set(responses), name
            assert operation["requestBody"]["required"], name
    assert statuses <= documented
    assert len({operation["operationId"] for operation in operations(api).values()}) == len(operations(api))


def test_every_reference_leads_somewhere(api: dict[str, Any]) -> None:
    def references(value: object) -> set[str]:
        if isinstance(value, list):
            return {found for item in value for found in references(item)}
        if not isinstance(value, dict):
            return set()
        own = {str(value["$ref"])} if "$ref" in value else set()
        return own | {found for item in value.values() for found in references(item)}

    for reference in references(api):
        _, _, kind, name = reference.split("/")
        assert name in api["components"][kind]
    used = {reference.rpartition("/")[2] for reference in references(api) if "/schemas/" in reference}
    assert set(api["components"]["schemas"]) == used


@pytest.mark.parametrize(
    ("name", "forwarded", "translated"),
    [
        ("ChatRequest", fields.CHAT_FORWARDED, {"functions", "function_call"}),
        ("CompletionRequest", fields.COMPLETION_FORWARDED, set()),
    ],
)
def test_bodies_for_the_engine_hold_exactly_the_allowed_fields(
    api: dict[str, Any], name: str, forwarded: frozenset[str], translated: set[str]
) -> None:
    schema = api["components"]["schemas"][name]
    assert set(schema["properties"]) == forwarded | translated | fields.OWN_FIELDS
    assert schema["additionalProperties"] is True
    strict = schemas(("a", "b"), RequestLimits(), unknown_fields="reject")[name]
    assert strict == schema | {"additionalProperties": False, "properties": strict["properties"]}


@pytest.mark.parametrize(
    ("name", "form"),
    [("ResponsesRequest", RESPONSES), ("MessagesRequest", MESSAGES), ("CountRequest", COUNT_TOKENS)],
)
def test_bodies_of_other_formats_hold_the_fields_of_their_tables(
    api: dict[str, Any], name: str, form: RequestFormat
) -> None:
    schema = api["components"]["schemas"][name]
    assert set(schema["properties"]) == form.forwarded | set(form.refused) | fields.OWN_FIELDS
    assert schema["additionalProperties"] is True
    strict = format_schemas("reject")[name]
    assert set(strict["properties"]) == form.forwarded | fields.OWN_FIELDS
    assert strict["additionalProperties"] is False
    assert all(schema["properties"][name]["enum"][0] is None for name in form.refused)


def json_types(schema: Schema, defs: Schema) -> set[str]:
    """The JSON types that a schema lets pass."""
    schema = defs[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "anyOf" in schema or "oneOf" in schema:
        return {
            kind for part in schema.get("anyOf", schema.get("oneOf", [])) for kind in json_types(part, defs)
        }
    return {schema["type"]} if "type" in schema else {"string"}


def test_types_of_fields_are_those_of_the_engine(api: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        # Importing vLLM imports parts of torch that warn about themselves.
        warnings.simplefilter("ignore")
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    engine = ChatCompletionRequest.model_json_schema()
    for name, ours in schemas(("a", "b"), RequestLimits())["ChatRequest"]["properties"].items():
        if "type" in ours and name in engine["properties"]:
            theirs = json_types(engine["properties"][name], engine["$defs"])
            assert set(ours["type"]) - {"null"} <= theirs, name


def test_weights_name_the_objectives_of_the_bundle(api: dict[str, Any], bundle: Bundle) -> None:
    by_name = api["components"]["schemas"]["GivenWeights"]["anyOf"][0]
    assert tuple(by_name["properties"]) == bundle.names


def test_a_gateway_of_weights_only_documents_no_more(bundle: Bundle) -> None:
    assert set(document(bundle, None)["paths"]) == {
        "/weights",
        "/objectives",
        "/livez",
        "/readyz",
        "/admin/reload",
    }
