"""The playground's files over HTTP. What the page does with them: test_playground_in_a_browser."""

import re
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import httpx
import pytest
from fakes import FakeUpstream, make_gateway, running
from preforch_models.bundle import Bundle
from preforch_service.app import create_app
from preforch_service.keys import ApiKey, Keys, digest_of
from preforch_service.pages.playground import FILES, FOLDER

KEYS = Keys(keys=(ApiKey(name="a", sha256=digest_of("a-key-0123456789")),))
PAGES = sorted(FILES)


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> Iterator[httpx.Client]:
    """A client without a key, of a gateway that asks for one."""
    with (
        running(make_gateway(bundle, upstream=FakeUpstream(), keys=KEYS)) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_a_file_is_served_without_a_key_and_with_strict_headers(client: httpx.Client, path: str) -> None:
    name, media_type = FILES[path]
    response = client.get(path)
    assert response.status_code == 200
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["Content-Type"].partition(";")[0] == media_type
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Request-Id"]
    policy = dict(rule.split(" ", 1) for rule in response.headers["Content-Security-Policy"].split("; "))
    assert (
        policy["default-src"]
        == policy["base-uri"]
        == policy["frame-ancestors"]
        == policy["form-action"]
        == "'none'"
    )
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", PAGES)
def test_head_says_the_same_without_the_body(client: httpx.Client, path: str) -> None:
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Length", "Content-Type", "Content-Security-Policy", "ETag"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize("written", ["{}", "W/{}", '"other", {}'])
def test_a_file_that_the_browser_has_is_not_sent_again(client: httpx.Client, written: str) -> None:
    tag = client.get("/").headers["ETag"]
    known = client.get("/", headers={"If-None-Match": written.format(tag)})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["ETag"] == tag
    assert client.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


def status_as_written(url: httpx.URL, path: str) -> int:
    """The status of a GET of exactly this path. httpx would resolve `..` in it."""
    assert url.port is not None
    with closing(HTTPConnection(url.host, url.port, timeout=10)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def test_nothing_else_is_open(client: httpx.Client, bundle: Bundle) -> None:
    beside = [
        "/playground",
        "/playground/",
        "/playground/index.html",
        "/playground/../playground.py",
        "/index.html",
    ]
    for path in beside:
        assert status_as_written(client.base_url, path) == 401, path
    assert client.post("/").status_code == 405
    with running(make_gateway(bundle)) as url:
        for path in beside:
            assert status_as_written(httpx.URL(url), path) == 404, path


def test_every_file_of_the_folder_is_served_and_nothing_comes_from_elsewhere() -> None:
    assert {name for name, _ in FILES.values()} == {file.name for file in FOLDER.iterdir()}
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    # Relative, so that the page works below a path of a proxy, too.
    asked_for = set(re.findall(r'(?:href|src)="([^"]+)"', page)) - {"docs"}
    assert {f"/{path}" for path in asked_for} <= set(FILES)
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^ *//.*$", "", text, flags=re.MULTILINE), file.name
        imported = re.findall(r'from "([^"]+)"', text)
        assert all(f"/playground/{name.removeprefix('./')}" in FILES for name in imported), file.name
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_no_script_makes_markup_of_text_or_stores_anything() -> None:
    for script in FOLDER.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text
        )
        assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", text)


def test_the_document_does_not_list_the_page(bundle: Bundle) -> None:
    assert not set(FILES) & set(create_app(make_gateway(bundle)).openapi()["paths"])
