"""A stand-in for the Hugging Face Hub: the part of its HTTP interface that the real client uses for a model."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "x" * 34


class Repository:
    """Commits of one model, each a name's content; private or not."""

    def __init__(self, is_private: bool) -> None:
        self.is_private = is_private
        self.commits: dict[str, dict[str, bytes]] = {"0" * 40: {}}
        self.newest = "0" * 40

    def commit(self, changes: dict[str, bytes]) -> str:
        content = {**self.commits[self.newest], **changes}
        self.newest = hashlib.sha1(repr((self.newest, sorted(content.items()))).encode()).hexdigest()
        self.commits[self.newest] = content
        return self.newest


class Hub:
    """Repositories by name. requests: (method, path) of all that was asked. said_sizes: of files, the untrue ones.

    large: what was uploaded as large files, by their SHA-256.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.said_sizes: dict[str, int] = {}

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve it; gives its address."""
        hub = self

        class Handler(_Handler):
            standin = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    standin: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.standin.requests.append((method, path))
        for pattern, respond in ROUTES:
            if (found := re.fullmatch(pattern, f"{method} {path}")) is not None:
                respond(self, body, *found.groups())
                return
        self._error(404, "EntryNotFound", f"no route for {method} {path}")

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._error(401, "", "Invalid username or password.")
        return False

    def _found(self, name: str, revision: str | None) -> tuple[Repository, str] | None:
        repository = self.standin.repositories.get(name)
        hidden = repository is not None and repository.is_private
        if repository is None or (hidden and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._error(401 if repository is None or hidden else 404, "RepoNotFound", "Repository not found")
            return None
        commit = repository.newest if revision in (None, "main") else revision
        if commit not in repository.commits:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        assert commit is not None
        return repository, commit

    def create(self, body: bytes) -> None:
        if not self._may_write():
            return
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if name in self.standin.repositories:
            there = {"error": "You already created this model repo", "url": f"http://{self.headers['Host']}/{name}"}
            self._send(409, json.dumps(there).encode(), {"Content-Type": "application/json"})
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        self.standin.repositories[name] = Repository(bool(private))
        self._json({"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})

    def validate(self, body: bytes) -> None:
        assert json.loads(body)["content"].startswith("---\n")
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if not self._may_write():
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def batch(self, body: bytes, name: str) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"http://{self.headers['Host']}/lfs/{each['oid']}"}}}
            for each in json.loads(body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.standin.large[oid] = body
        self._send(200, b"", {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._may_write():
            return
        changes = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changes[value["path"]] = self.standin.large[value["oid"]]
        commit = self.standin.repositories[name].commit(changes)
        url = f"http://{self.headers['Host']}/{name}/commit/{commit}"
        self._json({"success": True, "commitUrl": url, "commitOid": commit})

    def info(self, body: bytes, name: str, revision: str | None) -> None:
        if (found := self._found(name, revision)) is None:
            return
        repository, commit = found
        files = [
            {"rfilename": file, "size": self.standin.said_sizes.get(file, len(content))}
            for file, content in repository.commits[commit].items()
        ]
        self._json({"id": name, "sha": commit, "private": repository.is_private, "siblings": files})

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        if (found := self._found(name, revision)) is None:
            return
        repository, commit = found
        content = repository.commits[commit].get(file)
        if content is None:
            self._error(404, "EntryNotFound", f"{file} does not exist")
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._send(200, content, {"X-Repo-Commit": commit, "ETag": etag, "X-Linked-Size": str(len(content))})


_NAME = r"([^/]+/[^/]+)"
ROUTES: list[tuple[str, Any]] = [
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /lfs/([0-9a-f]{64})", _Handler.put),
    (rf"POST /api/models/{_NAME}/commit/(.+)", _Handler.commit),
    (rf"GET /api/models/{_NAME}(?:/revision/(.+))?", _Handler.info),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
