"""As much of the Hub as loading one dataset takes, and a process of its own to load it in."""

import http.server
import json
import os
import subprocess
import sys
from pathlib import Path

SHA = "0123456789abcdef0123456789abcdef01234567"

CARD = """---
dataset_info:
  features:
  - {name: image, dtype: image}
  - {name: image_id, dtype: int64}
  - {name: file_name, dtype: string}
  - name: samples
    list:
    - {name: id, dtype: int64}
    - {name: image_id, dtype: int64}
    - {name: category, dtype: string}
    - {name: supercategory, dtype: string}
    - {name: label, dtype: string}
    - {name: sentences, list: string}
    - {name: bbox, list: float64}
    - name: mask
      struct: [{name: counts, dtype: string}, {name: size, list: int64}]
  splits: [{name: validation, num_bytes: 1000, num_examples: 5}]
configs:
- {config_name: default, data_files: [{split: validation, path: data/validation-*}]}
---
"""


class FakeHub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub's interface as loading one data set takes; it serves the files below `root`."""

    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, *args) -> None:
        self.root = root
        super().__init__(*args)

    def log_message(self, *args) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content_Length": str(len(body))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = {
            p.relative_to(self.root).as_posix(): p for p in self.root.rglob("*") if p.is_file()
        }
        if path.startswith("/datasets/own/name/resolve/"):
            revision, _, name = path.removeprefix("/datasets/own/name/resolve/").partition("/")
            if revision not in ("main", SHA):
                self.answer(404, X_Error_Code="RevisionNotFound")
            elif name in files:
                headers = {
                    "ETag": f'"{name}"'.replace("/", "-"),
                    "X_Repo_Commit": SHA,
                    "Accept_Ranges": "bytes",
                }
                self.answer(200, files[name].read_bytes(), **headers)
            else:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=SHA)
        elif path.startswith("/api/datasets/own/name/revision/"):
            self.answer(200, json.dumps({"id": "own/name", "sha": SHA, "siblings": []}).encode())
        elif path.startswith("/api/datasets/own/name/tree/"):
            inside = path.removeprefix(f"/api/datasets/own/name/tree/{SHA}").strip("/")
            entries = [
                {
                    "type": "file",
                    "path": name,
                    "size": p.stat().st_size,
                    "oid": name.replace("/", "-"),
                }
                for name, p in files.items()
                if name.rpartition("/")[0] == inside
            ]
            entries += (
                [] if inside else [{"type": "directory", "path": "data", "size": 0, "oid": "data"}]
            )
            self.answer(200, json.dumps(entries).encode())
        else:
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=clean | env, capture_output=True, text=True, check=False)
