"""A hub on loopback: the few routes of the Hugging Face hub that a push and a download need, in memory.

In:  requests of the real huggingface_hub, whose HF_ENDPOINT it is. Out: repositories as a dict.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

LARGE = (".onnx", ".safetensors")
"""What goes to the store for large files, by name."""


@dataclass
class Repository:
    """Commits by hash, oldest first, each with all its files; branches by name."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        number = hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()
        self.commits[number] = files
        self.branches[branch] = number
        return number

    def resolve(self, revision: str) -> str:
        return self.branches.get(revision, revision)


@dataclass
class FakeHub:
    """The hub's state, and the requests that it got."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    token: str = "hf_test"

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        repository = self.repositories[repo]
        return repository.commits[repository.branches[branch]]

    def environment(self, home: Path) -> dict[str, str]:
        """What makes huggingface_hub talk to this hub alone, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: FakeHub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _route(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                return answer(self, body, **match.groupdict())
        return self._send(404, {"error": f"no such route: {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = _route

    def _send(self, status: int, value: Any = None, *, raw: bytes | None = None, **headers: str) -> None:
        content = json.dumps(value).encode() if raw is None else raw
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _repository(self, repo: str) -> Repository | None:
        found = self.hub.repositories.get(repo)
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if found is None or (found.private and not allowed):
            self._send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        return found

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{repo}"}
        if repo in self.hub.repositories:
            return self._send(409, url)
        # The hub's own default is public.
        repository = Repository(private=asked.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.onnx filter=lfs\n"})
        self.hub.repositories[repo] = repository
        return self._send(200, url)

    def info(self, body: bytes, repo: str, revision: str = "main") -> None:
        if (found := self._repository(repo)) is not None:
            sha = found.resolve(revision)
            siblings = [{"rfilename": name} for name in found.commits[sha]]
            self._send(200, {"id": repo, "private": found.private, "sha": sha, "siblings": siblings})

    def tree(self, body: bytes, repo: str, revision: str) -> None:
        if (found := self._repository(repo)) is not None:
            files = found.commits[found.resolve(revision)]
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
                for name, content in files.items()
            ]
            self._send(200, entries)

    def branch(self, body: bytes, repo: str, branch: str) -> None:
        if (found := self._repository(repo)) is not None:
            found.branches.setdefault(branch, found.branches["main"])
            self._send(200, {})

    def preupload(self, body: bytes, repo: str, branch: str) -> None:
        files = [
            {
                "path": entry["path"],
                "uploadMode": "lfs" if entry["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for entry in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def batch(self, body: bytes, repo: str) -> None:
        objects = [
            {**entry, "actions": {"upload": {"href": f"{self.hub.url}/large/{entry['oid']}"}}}
            for entry in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.large[oid] = body
        self._send(200, {})

    def commit(self, body: bytes, repo: str, branch: str) -> None:
        if (found := self._repository(repo)) is None:
            return
        files = dict(found.commits[found.branches[branch]])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = found.commit(branch, files)
        self._send(200, {"commitOid": oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}"})

    def download(self, body: bytes, repo: str, revision: str, name: str) -> None:
        if (found := self._repository(repo)) is not None:
            sha = found.resolve(revision)
            content = found.commits[sha][name]
            self._send(200, raw=content, ETag=f'"{etag(content)}"', X_Repo_Commit=sha)

    def validate(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", f"/api/models/{_REPO}", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>\w+)", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/tree/(?P<revision>\w+)", _Handler.tree),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<branch>\w+)", _Handler.branch),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<branch>\w+)", _Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<branch>\w+)", _Handler.commit),
    ("POST", rf"/{_REPO}.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/large/(?P<oid>\w+)", _Handler.store),
    (("GET", "HEAD"), rf"/{_REPO}/resolve/(?P<revision>\w+)/(?P<name>.+)", _Handler.download),
)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that listens as long as the block lasts."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
