"""Presets and bounds of keys as clients meet them, over a real port."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fakes import RECOMMENDED
from preforch_models.bundle import Bundle
from preforch_service.keys import Keys, digest_of
from preforch_service.requests.fields import PRESET_FIELD
from served import HELLO, Served, error_of, serve

ANY, BOUND, SAFE_ONLY, OTHER = (f"{name}-0123456789abcdef" for name in ("any", "bound", "safe", "other"))
KEYS = Keys.model_validate(
    {
        "keys": [
            {"name": "any", "sha256": digest_of(ANY)},
            {"name": "bound", "sha256": digest_of(BOUND), "bounds": {"harmless": {"low": 0.45}}},
            {"name": "safe", "sha256": digest_of(SAFE_ONLY), "models": ["tiny@safe"]},
            {"name": "other", "sha256": digest_of(OTHER), "models": ["other"]},
        ]
    }
)
PRESETS = {"safe": {"harmless": 0.8}, "even": {"helpful": 3, "harmless": 3, "humor": 4}}
SAFE = {"helpful": 0.14, "harmless": 0.8, "humor": 0.06}
EVEN = {"helpful": 0.3, "harmless": 0.3, "humor": 0.4}


@pytest.fixture
def served(bundle: Bundle) -> Iterator[Served]:
    for served in serve(bundle, keys=KEYS, presets=PRESETS):
        served.client.headers["Authorization"] = f"Bearer {ANY}"
        yield served


def as_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("carrier", ["body", "header", "alias"])
@pytest.mark.parametrize(
    ("name", "expected", "source"), [("safe", SAFE, "blended"), ("even", EVEN, "preset")]
)
def test_a_preset_is_chosen_by_body_header_or_alias(
    served: Served, carrier: str, name: str, expected: dict[str, float], source: str
) -> None:
    headers = {"X-Preference-Preset": name} if carrier == "header" else {}
    fields = {"body": {PRESET_FIELD: name}, "alias": {"model": f"tiny@{name}"}}.get(carrier, {})
    response = served.post("/v1/chat/completions", HELLO | fields, headers=headers)
    preference = response.json()["preference"]
    assert (preference["weights"], preference["source"], preference["preset"]) == (expected, source, name)
    assert response.headers["X-Preference-Preset"] == name
    (body,) = served.upstream.bodies
    assert (body["model"], PRESET_FIELD in body) == ("tiny", False)
    assert body["chat_template_kwargs"] == {"weights": expected}


def test_generate_and_weights_take_a_preset_too(served: Served) -> None:
    for path in ("/generate", "/weights"):
        answer = served.post(path, {"prompt": "x", "preset": "safe"}).json()
        assert answer["weights"] == SAFE
        error = error_of(served.post(path, {"prompt": "x", "preset": "wild"}), 400)
        assert (error["param"], error["code"]) == ("preset", "invalid_preset")
        conflict = served.post(
            path, {"prompt": "x", "preset": "safe"}, headers={"X-Preference-Preset": "even"}
        )
        assert "preset and X-Preference-Preset ask for different" in error_of(conflict, 400)["message"]
        assert error_of(served.post(path, {"prompt": "x", "preset": 1}), 400)["param"] == "preset"


def test_weights_beside_a_preset_take_precedence_and_presets_must_agree(served: Served) -> None:
    mixed = served.chat(model="tiny@even", preference_weights={"humor": 0.3}).json()["preference"]
    assert (mixed["weights"], mixed["source"]) == (
        {"helpful": 0.35, "harmless": 0.35, "humor": 0.3},
        "blended",
    )
    full = served.chat(model="tiny@helpful=1,harmless=1,humor=2", **{PRESET_FIELD: "safe"}).json()[
        "preference"
    ]
    assert (full["weights"]["humor"], full["source"], "preset" in full) == (0.5, "user", False)
    error = error_of(served.chat(model="tiny@even", **{PRESET_FIELD: "safe"}), 400)
    assert (error["param"], error["code"]) == ("model", "conflicting_presets")
    assert "preference_preset and model ask for different presets: safe and even" in error["message"]
    assert error_of(served.chat(model="tiny@wild"), 400)["code"] == "invalid_preset"


def test_presets_are_listed_with_the_objectives(served: Served) -> None:
    answer = served.client.get("/objectives").json()
    assert answer["presets"] == {"safe": {"harmless": 0.8}, "even": EVEN}


def listed(served: Served, key: str) -> list[str]:
    return [model["id"] for model in served.client.get("/v1/models", headers=as_key(key)).json()["data"]]


def test_presets_are_models_and_the_rules_of_keys_hold_for_them(served: Served) -> None:
    assert listed(served, ANY) == ["tiny", "tiny@safe", "tiny@even"]
    assert (listed(served, SAFE_ONLY), listed(served, OTHER)) == (["tiny@safe"], [])
    model = served.client.get("/v1/models", headers=as_key(SAFE_ONLY)).json()["data"][0]
    assert (model["root"], model["max_model_len"]) == ("tiny", 256)
    assert model["preference"] == {"conditioning": "context", "applied": True, "preset": "safe"}

    def one(key: str, name: str) -> httpx.Response:
        return served.client.get(f"/v1/models/{name}", headers=as_key(key))

    assert one(SAFE_ONLY, "tiny@safe").json() == one(ANY, "tiny@safe").json() == model
    for key, name in ((SAFE_ONLY, "tiny@even"), (SAFE_ONLY, "tiny@humor=1"), (OTHER, "tiny@safe")):
        error = error_of(one(key, name), 404)
        served_models = "'tiny@safe'" if key == SAFE_ONLY else "none that you may use"
        assert error["message"] == f"model {name!r} does not exist; served is {served_models}"
    assert one(ANY, "tiny@humor=1").json()["id"] == "tiny@humor=1"

    def chat(key: str, **fields: Any) -> httpx.Response:
        return served.post("/v1/chat/completions", HELLO | fields, headers=as_key(key))

    assert chat(SAFE_ONLY, model="tiny@safe").json()["preference"]["weights"] == SAFE
    assert chat(SAFE_ONLY, model="tiny", **{PRESET_FIELD: "safe"}).status_code == 200
    assert chat(ANY, model="tiny@even").status_code == 200
    weights = {"preference_weights": {"humor": 0.5}}
    for wrong in ({"model": "tiny"}, {"model": "tiny@even"}, {"model": "tiny@safe"} | weights):
        error = error_of(chat(SAFE_ONLY, **wrong), 403)
        assert (error["param"], error["code"]) == ("model", "model_not_found")
        assert "without weights of its own ['tiny@safe']" in error["message"]
    assert error_of(chat(OTHER, model="tiny@safe"), 403)["code"] == "model_not_found"


def test_bounds_of_a_key_hold_on_every_route_for_that_key_alone(served: Served) -> None:
    weights = {"helpful": 1.0, "harmless": 0.0, "humor": 0.0}
    cases = (
        ("/weights", {"prompt": "x", "weights": weights}),
        ("/generate", {"prompt": "x", "weights": weights}),
        ("/v1/chat/completions", HELLO | {"preference_weights": weights}),
        ("/v1/completions", {"prompt": "x", "preference_weights": weights}),
    )
    for path, body in cases:
        for key, low in ((BOUND, 0.45), (ANY, 0.1)):
            answer = served.post(path, body, headers=as_key(key)).json()
            preference = answer.get("preference", answer)
            assert preference["weights"]["harmless"] == low, path
            if path != "/generate":
                assert preference["clamped"] == {"harmless": {"low": low}}
    for key, low in ((BOUND, 0.45), (ANY, 0.1)):
        objectives = served.client.get("/objectives", headers=as_key(key)).json()["objectives"]
        assert objectives[1]["bounds"] == [low, 1.0]
    assert served.upstream.bodies[-2]["prompt"].endswith("<W1> 0.55 <W2> 0.45 <W3> 0.00")


def test_weights_explains_how_they_came_about(served: Served) -> None:
    body = {"prompt": "x", "preset": "safe", "weights": {"humor": 0.5, "harmless": 0.2}, "explain": True}
    answer = served.post("/weights", body, headers=as_key(BOUND)).json()
    assert answer["steps"] == [
        {"step": "recommended", "weights": RECOMMENDED},
        {"step": "preset", "weights": {"harmless": 0.8}},
        {"step": "blended", "weights": {"helpful": 0.1429, "harmless": 0.8, "humor": 0.0571}},
        {"step": "asked", "weights": {"harmless": 0.2, "humor": 0.5}},
        {"step": "blended", "weights": {"helpful": 0.3, "harmless": 0.2, "humor": 0.5}},
        {"step": "clamped", "weights": {"helpful": 0.175, "harmless": 0.45, "humor": 0.375}},
        {"step": "rounded", "weights": answer["weights"]},
    ]
    many = served.post("/weights", {"inputs": ["x", "y"], "explain": True}).json()["results"]
    assert [[step["step"] for step in result["steps"]] for result in many] == [["recommended", "rounded"]] * 2
    assert "steps" not in served.post("/weights", {"prompt": "x"}).json()
    assert error_of(served.post("/weights", {"prompt": "x", "explain": 1}), 400)["param"] == "explain"


def test_an_unfamiliar_prompt_is_told_with_its_weights(bundle: Bundle) -> None:
    method = {"confidence": "report"}
    known = bundle.model_copy(update={"info": bundle.info.model_copy(update={"method": method})})
    for served in serve(known, min_confidence=0.8):
        served.recommender.confidence = 0.4
        preference = served.chat().json()["preference"]
        assert (preference["source"], preference["reason"]) == ("orchestrator", "unfamiliar")
        steps = served.post("/weights", {"prompt": "x", "explain": True}).json()["steps"]
        assert [step["step"] for step in steps] == ["recommended", "unfamiliar", "rounded"]
