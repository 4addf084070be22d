"""The playground, and the page at /docs, as their users meet them: a headless Chromium, a gateway process
with keys, an engine that says what weights it was given.

Skipped where no Chromium is installed (Debian: `apt-get install chromium`).
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import CHROMIUM, Page, browsing
from fakes import (
    FakeAnswer,
    FakeUpstream,
    chunk,
    engine_app,
    fixed_upstream,
    json_answer,
    running_app,
    stream_answer,
)
from preforch_models.conditioning.fixed import FixedConditioning
from preforch_models.policy_card import read_policy_card

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")
KEY = "alice-key-0123456789"
PROMPT = "Tell me a joke about a penguin."
MARKUP = "<img src=x onerror=alert(1)>"
OBJECTIVES = "document.querySelectorAll('.objective')"
ANSWERS = "[...document.querySelectorAll('.answer')]"
ENDED = (
    f"{ANSWERS}.length && {ANSWERS}.every(each => !each.ariaBusy) && document.querySelector('#stop').disabled"
)
# Texts that stand out too little (WCAG AA), as [text, ratio].
PALE = """(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const own = (e) => parts(getComputedStyle(e).backgroundColor);
  const behind = (e) => own(e)[3] === 0 ? behind(e.parentElement) : own(e);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter((e) => e.checkVisibility() && !e.disabled && hasText(e))
    .map((e) => [e.textContent, ratio(light(parts(getComputedStyle(e).color)), light(behind(e)))])
    .filter(([, found]) => !(found >= 4.5));
})()"""


def say_weights(body: dict[str, Any]) -> FakeAnswer:
    """An answer that holds markup, and the weights that the engine was given."""
    weights = json.dumps(body["chat_template_kwargs"].get("weights"))
    usage = {
        "id": "chatcmpl-1",
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10},
    }
    last = b"data: " + json.dumps(usage).encode() + b"\n\n"
    # Long enough for comments that keep the connection alive.
    threading.Timer(0.1, (pause := threading.Event()).set).start()
    return stream_answer(chunk(f"{MARKUP} \u00e4 "), pause, chunk(weights), last, b"data: [DONE]\n\n")


@contextmanager
def gateway(*arguments: object, log: Path, keys: str = "") -> Iterator[str]:
    """A gateway process; its URL."""
    command = [sys.executable, "-m", "preforch_service", *arguments, "--port", "0", "--metrics-port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PREFORCH_API_KEYS": keys}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ready at "), log.read_text(encoding="utf-8")
            yield line.split()[-1]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def upstream() -> FakeUpstream:
    return FakeUpstream(say_weights)


@pytest.fixture(scope="module")
def url(run_folder: Path, upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("gateway") / "log"
    card = run_folder / "policy" / "wic" / "round-0" / "preference.json"
    with running_app(engine_app(upstream)) as engine:
        presets = tmp_path_factory.mktemp("presets") / "presets.toml"
        presets.write_text(
            "[presets]\nsafe = {harmless = 0.6}\neven = {helpful = 1, harmless = 1, humor = 1}\n"
        )
        options = [
            "--upstream",
            engine,
            "--policy-card",
            card,
            "--sse-keep-alive",
            0.03,
            "--presets",
            presets,
        ]
        with gateway(run_folder / "bundle", *options, log=log, keys=f"alice:{KEY}") as url:
            yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def page(browser: Page, url: str, upstream: FakeUpstream) -> Iterator[Page]:
    """The page with its key given. Afterwards the browser must have had nothing to complain of."""
    upstream.answer = say_weights
    upstream.bodies.clear()
    browser.problems.clear()
    browser.send("Page.navigate", url="about:blank")
    browser.open(f"{url}/")
    browser.until("!document.querySelector('#key-form').hidden")
    give_key(browser, KEY)
    browser.until(
        f"{OBJECTIVES}.length === 3 && document.querySelector('#about').textContent.includes('tiny')"
    )
    yield browser
    browser.run("1")
    assert browser.problems == []


def give_key(page: Page, key: str) -> None:
    page.run("document.querySelector('#key').value = ''")
    page.type("#key", key)
    page.press("Enter", 13, text="\r")


def recommended(url: str, **body: object) -> dict[str, Any]:
    """What the gateway itself says."""
    headers = {"Authorization": f"Bearer {KEY}"}
    found: dict[str, Any] = httpx.post(
        f"{url}/weights", json={"prompt": PROMPT, **body}, headers=headers
    ).json()
    return found


def shown(page: Page, selector: str) -> list[str]:
    texts: list[str] = page.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(each => each.textContent)"
    )
    return texts


def move_slider(page: Page, name: str, value: float) -> None:
    """As a mouse does it: the value, then the event."""
    slider = f"document.querySelector('[aria-label=\"Weight of {name}\"]')"
    page.run(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def test_the_key_is_asked_for_and_kept_in_memory_alone(page: Page, url: str) -> None:
    assert page.run("[document.cookie, localStorage.length, sessionStorage.length, location.search]") == [
        "",
        0,
        0,
        "",
    ]
    assert page.run("document.querySelector('#key').value") == ""
    assert page.run("document.querySelector('#key-form').hidden && document.activeElement.id === 'prompt'")
    page.send("Page.reload")
    page.until("document.readyState === 'complete' && !document.querySelector('#key-form').hidden")
    assert page.run("document.querySelector('#error').hidden && document.querySelector('#ask-form').hidden")
    for wrong in ("wrong-key", "schl\u00fcssel"):
        give_key(page, wrong)
        page.until("!document.querySelector('#error').hidden && document.querySelector('#error').textContent")
    assert "plain letters" in page.text("#error")
    give_key(page, "wrong-key")
    page.until("document.querySelector('#error').textContent.includes('Request id: ')")
    assert "does not know this key." in page.text("#error")


def test_recommended_weights_are_the_gateways(page: Page, url: str) -> None:
    page.type("#prompt", PROMPT)
    page.click("#recommend")
    page.until("document.querySelector('#origin').textContent.includes('confidence')")
    answer = recommended(url)
    assert shown(page, ".recommended .value") == [
        f"{weight:.2f}" for weight in answer["recommended"].values()
    ]
    assert shown(page, ".objective .name") == list(answer["weights"])
    assert "serves what was asked" in shown(page, ".description")[0]
    assert shown(page, ".description")[1] == "does no damage; at least 0.10"
    bars = "[...document.querySelectorAll('.recommended .bar > span')]"
    widths = page.run(f"{bars}.map(each => parseFloat(each.style.width))")
    assert widths == pytest.approx([100 * weight for weight in answer["recommended"].values()])
    assert page.text("#origin") == (
        f"Recommended by the orchestrator; confidence {round(answer['confidence'] * 100)} %."
    )
    page.type("#prompt", " And another one.")
    assert page.text("#origin") == "Not asked for yet."


def test_sliders_show_the_weights_that_will_be_used_while_they_move(page: Page, url: str) -> None:
    move_slider(page, "humor", 0.6)
    assert shown(page, ".own .value") == ["\u2013", "\u2013", "0.60"]
    page.type("#prompt", PROMPT)
    # As far as a quick hand: whatever is asked meanwhile, what stays is the last.
    for value in (0.2, 0.5, 0.35, 0.8):
        move_slider(page, "humor", value)
    blended = recommended(url, weights={"humor": 0.8})
    page.until(f"document.querySelector('.own .value').textContent === '{blended['weights']['helpful']:.2f}'")
    assert shown(page, ".own .value") == [f"{weight:.2f}" for weight in blended["weights"].values()]
    sliders = page.run("[...document.querySelectorAll('.slider')].map(each => Number(each.value))")
    assert sliders == pytest.approx(list(blended["weights"].values()), abs=0.006)
    assert shown(page, ".recommended .value") == [
        f"{weight:.2f}" for weight in blended["recommended"].values()
    ]
    assert page.text("#origin").startswith("Partly set by you")
    # The bundle's bounds leave 0.80: said where 1.00 was set, and why.
    move_slider(page, "humor", 1)
    page.until("document.querySelector('#origin').textContent.includes('bounds: harmless at least 0.10')")
    assert shown(page, ".own .value") == ["0.10", "0.10", "1.00, used 0.80"]
    move_slider(page, "helpful", 0.5)
    page.until("document.querySelector('#sum-note').textContent.includes('cannot work with this request')")
    assert shown(page, ".own .value")[1] == "\u2013"
    assert page.text("#origin") == "Not known."
    page.type("#prompt", " Please.")
    assert "1.00 is the most" in page.text("#sum-note")


def test_a_preset_is_shown_sent_and_named(page: Page, url: str, upstream: FakeUpstream) -> None:
    assert shown(page, "#preset option") == [
        "none",
        "safe (harmless 0.60)",
        "even (helpful 0.33, harmless 0.33, humor 0.33)",
    ]
    page.type("#prompt", PROMPT)
    choose = (
        "const s = document.querySelector('#preset'); s.value = 'safe'; s.dispatchEvent(new Event('change'))"
    )
    page.run(f"{{ {choose} }}")
    page.until("document.querySelector('#origin').textContent.includes('preset safe')")
    used = recommended(url, preset="safe")["weights"]
    assert shown(page, ".own .value") == [f"{weight:.2f}" for weight in used.values()]
    page.click("#ask")
    page.until(f"{ANSWERS}.length === 2 && {ENDED}")
    assert shown(page, ".answer h2") == ["Under recommended weights", "Under the preset safe"]
    assert upstream.bodies[-1]["chat_template_kwargs"]["weights"] == used
    assert "preset safe" in shown(page, ".answer .source")[1]


def test_ignored_fields_and_bounds_that_acted_are_said(page: Page, upstream: FakeUpstream) -> None:
    page.type("#prompt", PROMPT)
    page.click("#options summary")
    page.type("#further", '{"stop": ["!"], "metadata": {"team": "a"}, "nobody_knows": 1}')
    move_slider(page, "humor", 1)
    page.click("#compare")
    page.click("#ask")
    page.until(ENDED)
    assert shown(page, ".answer .ignored") == ["Fields that the gateway ignored: metadata, nobody_knows"]
    assert "changed by bounds: harmless at least 0.10" in shown(page, ".answer .source")[0]
    assert upstream.bodies[-1]["stop"] == ["!"]
    page.type("#further", "x")
    said = "document.querySelector('#further').validationMessage"
    assert page.run(said).startswith("Further fields: ")
    # What is wrong in a closed part of the form is shown, not swallowed.
    page.click("#options summary")
    page.click("#ask")
    page.until("document.querySelector('#options').open")
    page.run("document.querySelector('#further').value = ''")
    page.type("#further", '{"n": 2, "preference_weights": {"humor": 1}}')
    assert "n, preference_weights: the page sets this by itself" in page.run(said)
    page.click("#ask")
    assert len(upstream.bodies) == 1


@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_request_is_given_as_code_that_runs(
    page: Page, url: str, upstream: FakeUpstream, language: str
) -> None:
    said = 'Don\'t say "$HOME"\n\u00e4 `x` \\ \u2028'
    page.run(f"document.querySelector('#prompt').value = {json.dumps(said)}")
    page.click("#options summary")
    page.type("#further", '{"stop": ["!"], "logprobs": true, "metadata": null}')
    page.click("#code summary")
    page.click(f"[value={language}]")
    move_slider(page, "humor", 0.6)
    page.until("document.querySelector('#code-text').textContent.includes('preference_weights')")
    code = page.text("#code-text")
    assert KEY not in code
    run = ["sh", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    message = {"role": "assistant", "content": "said so"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [choice],
    }
    upstream.answer = lambda body: json_answer(whole)
    environment = os.environ | {"PREFORCH_API_KEY": KEY}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert "said so" in done.stdout, done.stderr
    (sent,) = upstream.bodies
    assert sent["messages"] == [{"role": "user", "content": said}]
    assert (sent["stop"], sent["logprobs"]) == (["!"], True)
    assert sent["chat_template_kwargs"]["weights"]["humor"] == 0.6
    page.click("#copy")
    page.until("['Copied', 'Selected'].includes(document.querySelector('#copy').textContent)")


def test_answers_are_compared_and_shown_as_text(page: Page, url: str, upstream: FakeUpstream) -> None:
    page.type("#prompt", PROMPT)
    move_slider(page, "humor", 0.6)
    assert "sums to 0.60; the orchestrator shares out the rest" in page.text("#sum-note")
    page.click("#ask")
    page.until(ENDED)
    plain, blended = recommended(url)["weights"], recommended(url, weights={"humor": 0.6})["weights"]
    assert shown(page, ".answer h2") == ["Under recommended weights", "Under your weights"]
    assert shown(page, ".answer .text") == [
        f"{MARKUP} \u00e4 {json.dumps(weights)}" for weights in (plain, blended)
    ]
    assert shown(page, ".used .value") == [f"{weight:.2f}" for weight in (*plain.values(), *blended.values())]
    assert "partly set by you" in shown(page, ".answer .source")[1]
    assert "does not read" not in "".join(shown(page, ".answer .source")) + page.text("#about")
    assert all(facts.startswith("7 tokens") for facts in shown(page, ".answer .facts"))
    assert page.run("document.querySelectorAll('.answer img').length") == 0
    assert shown(page, ".own .value") == [f"{weight:.2f}" for weight in blended.values()]
    page.click("#compare")
    page.click("#ask")
    page.until(f"{ANSWERS}.length === 1 && {ENDED}")
    assert shown(page, ".answer h2") == ["Under your weights"]


def test_a_conversation_goes_on(page: Page, upstream: FakeUpstream) -> None:
    page.type("#prompt", PROMPT)
    page.click("#ask")
    page.until(ENDED)
    said = shown(page, ".answer .text")[0]
    page.click(".answer button")
    page.type("#prompt", "Another one")
    page.click("#ask")
    page.until(f"document.querySelectorAll('#history li').length === 2 && {ENDED}")
    assert [turn["content"] for turn in upstream.bodies[-1]["messages"]] == [PROMPT, said, "Another one"]
    page.click("#restart")
    assert page.run("document.querySelector('#history-section').hidden")


def test_stop_ends_the_generation_in_the_engine(page: Page, upstream: FakeUpstream) -> None:
    never = stream_answer(chunk("first words"), threading.Event())
    upstream.answer = lambda body: never
    page.type("#prompt", PROMPT)
    page.click("#ask")
    page.until("document.querySelector('.answer .text')?.textContent === 'first words'")
    assert page.run("document.querySelector('#ask').disabled")
    page.click("#stop")
    assert never.closed.wait(20)
    page.until(ENDED)
    assert shown(page, ".answer .facts") == ["Stopped."]
    assert page.run(
        "document.querySelector('.answer .error').hidden && !document.querySelector('#ask').disabled"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            json_answer({"error": {"message": f"no room for {MARKUP}"}}, 400),
            f"this request: no room for {MARKUP}.",
        ),
        (
            stream_answer(chunk("a"), b'data: {"error": {"message": "core died"}}\n\n'),
            "broke off: core died.",
        ),
    ],
)
def test_errors_are_said_in_words_with_the_request_id(
    page: Page, upstream: FakeUpstream, answer: FakeAnswer, words: str
) -> None:
    upstream.answer = lambda body: answer
    page.type("#prompt", PROMPT)
    page.click("#ask")
    page.until(ENDED)
    (said,) = shown(page, ".answer .error")
    assert words in said
    assert "Request id: " in said
    move_slider(page, "humor", 0.9)
    move_slider(page, "helpful", 0.9)
    assert "1.00 is the most" in page.text("#sum-note")
    page.click("#ask")
    page.until(f"{ANSWERS}.length === 2 && {ENDED}")
    assert "sum" in shown(page, ".answer .error")[1]


def test_it_works_by_keyboard_and_every_control_has_a_name(page: Page) -> None:
    page.type("#prompt", PROMPT)
    page.press("Tab", 9)
    assert page.run("document.activeElement.id") == "preset"
    page.press("Tab", 9)
    assert page.run("document.activeElement.ariaLabel") == "Set helpful myself"
    page.press("Tab", 9)
    before = float(page.run("document.activeElement.value"))
    page.press("ArrowRight", 39)
    assert page.run("document.querySelector('.pin').checked")
    assert shown(page, ".own .value")[0] == f"{before + 0.01:.2f}"
    page.run("document.querySelector('#prompt').focus()")
    page.press("Enter", 13, ctrl=True)
    page.until(ENDED)
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = ("textbox", "slider", "checkbox", "spinbutton", "button", "combobox", "radio")
    controls = [node for node in nodes if node.get("role", {}).get("value") in roles]
    assert len(controls) >= 10
    assert all(node["name"]["value"] for node in controls)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
def test_it_fits_and_can_be_read(page: Page, scheme: str, width: int) -> None:
    page.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
    )
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.type("#prompt", PROMPT)
    move_slider(page, "humor", 0.6)
    page.click("#ask")
    page.until(ENDED)
    page.run("document.querySelectorAll('details').forEach(each => { each.open = true })")
    page.until("document.querySelector('#code-text').textContent.includes('curl')")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(PALE) == []
    page.send("Emulation.clearDeviceMetricsOverride")
    page.send("Emulation.setEmulatedMedia", features=[])


def test_the_browser_makes_no_markup_of_text_and_loads_nothing_from_elsewhere(page: Page) -> None:
    markup = "document.querySelector('#about').innerHTML = '<b>x</b>'"
    assert page.run(f"try {{ {markup}; 'done' }} catch (error) {{ error.name }}") == "TypeError"
    assert page.run("fetch('http://127.0.0.1:9/').catch(error => error.name)") == "TypeError"
    page.run("document.body.setAttribute('style', 'color: red')")
    assert page.run("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    page.run("1")
    assert len(page.problems) >= 2
    page.problems.clear()


def test_a_gateway_of_weights_only_shows_no_more(browser: Page, bundle_folder: Path, tmp_path: Path) -> None:
    with gateway(bundle_folder, "--weights-only", log=tmp_path / "log") as url:
        browser.open(f"{url}/")
        browser.until("document.body.classList.contains('weights-only')")
        assert browser.run("document.querySelector('#key-form').hidden")
        visible = "document.querySelector(each).checkVisibility()"
        hidden = f"['#ask', '#stop', '#options', '#preset-line'].map(each => {visible})"
        assert browser.run(hidden) == [False] * 4
        browser.type("#prompt", PROMPT)
        browser.press("Enter", 13, ctrl=True)
        browser.until("document.querySelector('#origin').textContent.includes('confidence')")
        answer = httpx.post(f"{url}/weights", json={"prompt": PROMPT}).json()
        assert shown(browser, ".recommended .value") == [
            f"{weight:.2f}" for weight in answer["recommended"].values()
        ]


def test_weights_that_a_model_does_not_read_are_said_to_be_unread(
    browser: Page, run_folder: Path, tmp_path: Path
) -> None:
    wic = read_policy_card(run_folder / "policy" / "wic" / "round-0")
    card = tmp_path / "preference.json"
    fixed = wic.model_copy(update={"conditioning": FixedConditioning()})
    card.write_text(fixed.model_dump_json(), encoding="utf-8")
    upstream = fixed_upstream()
    upstream.answer = say_weights
    with running_app(engine_app(upstream)) as engine:
        options = ["--upstream", engine, "--policy-card", card]
        with gateway(run_folder / "bundle", *options, log=tmp_path / "log") as url:
            browser.open(f"{url}/")
            browser.until("document.querySelector('#about').textContent.includes('does not read weights')")
            browser.type("#prompt", PROMPT)
            move_slider(browser, "humor", 0.6)
            browser.click("#ask")
            browser.until(ENDED)
            assert all(
                said.endswith("; the model does not read them") for said in shown(browser, ".answer .source")
            )
            assert shown(browser, ".answer .text") == [f"{MARKUP} \u00e4 null"] * 2


def test_docs_list_every_operation_try_one_out_and_load_nothing_from_elsewhere(
    browser: Page, url: str
) -> None:
    browser.problems.clear()
    browser.open(f"{url}/docs")
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    operations = sum(len(methods) for methods in paths.values())
    browser.until(f"document.querySelectorAll('.opblock').length === {operations}")
    loaded: list[str] = browser.run("performance.getEntriesByType('resource').map(each => each.name)")
    assert {f"{url}/docs/swagger-ui-bundle.js", f"{url}/docs/swagger-ui.css", f"{url}/openapi.json"} <= set(
        loaded
    )
    assert all(name.startswith((url, "data:")) for name in loaded), loaded
    (livez,) = (path["get"]["operationId"] for name, path in paths.items() if name == "/livez")
    block = f"[id$='{livez}']"
    for button in (".opblock-summary-control", ".try-out__btn", ".execute"):
        browser.until(f'!!document.querySelector("{block} {button}")')
        browser.click(f"{block} {button}")
    answer = f"{block} .live-responses-table"
    browser.until(f"document.querySelector(\"{answer}\")?.innerText.includes('alive')")
    assert browser.problems == []
