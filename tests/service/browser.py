"""One page in a headless Chromium, driven through the DevTools protocol.

In:  a URL. Out: a `Page`: run JavaScript in it, type, press keys, look at it. `problems` holds what the
     browser complains of.
"""

import asyncio
import json
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from processes import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--remote-debugging-port=0",
    ),
)


class Page:
    """The browser's only page."""

    def __init__(self, runner: asyncio.Runner, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._runner = runner
        self._socket = socket
        self._sent = 0
        self.problems: list[str] = []

    def send(self, method: str, **parameters: object) -> Any:
        """One command and its result."""
        return self._runner.run(self._send(method, parameters))

    async def _send(self, method: str, parameters: dict[str, object]) -> Any:
        self._sent += 1
        await self._socket.send_json({"id": self._sent, "method": method, "params": parameters})
        while (message := await self._socket.receive_json(timeout=30)).get("id") != self._sent:
            entry = message["params"].get("entry", {})
            # Answers with an error status are logged, too; these are the page's to deal with.
            complaint = message["method"] == "Runtime.exceptionThrown" or (
                message["method"] == "Runtime.consoleAPICalled"
                and message["params"]["type"] in ("error", "warning", "assert")
            )
            if complaint or entry.get("source") not in (None, "network"):
                self.problems.append(json.dumps(message))
        assert "error" not in message, message
        return message["result"]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        done = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait for a JavaScript expression to come true."""
        came = wait_until(lambda: bool(self.run(condition)))
        assert came, f"{condition}; the page: {self.run('document.body.innerText')}"

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.send("Input.insertText", text=text)

    def press(self, key: str, code: int, *, text: str = "", ctrl: bool = False) -> None:
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 2 if ctrl else 0}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        return b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"])


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _connect(session: aiohttp.ClientSession, port: str) -> aiohttp.ClientWebSocketResponse:
    async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
        (url,) = (
            target["webSocketDebuggerUrl"] for target in await response.json() if target["type"] == "page"
        )
    return await session.ws_connect(url, max_msg_size=0)


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in an empty folder."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        listening = folder / "DevToolsActivePort"
        assert wait_until(lambda: listening.is_file() and "\n" in listening.read_text(encoding="utf-8"), 60)
        with asyncio.Runner() as runner:
            session = runner.run(_session())
            try:
                socket = runner.run(_connect(session, listening.read_text(encoding="utf-8").split("\n")[0]))
                page = Page(runner, socket)
                for domain in ("Page", "Runtime", "Log"):
                    page.send(f"{domain}.enable")
                yield page
            finally:
                runner.run(session.close())
    finally:
        process.terminate()
        process.wait(timeout=20)
