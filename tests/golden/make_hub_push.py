"""The requests of huggingface_hub when it uploads a model: to a private repository that it makes, on a branch that it makes.

A server on loopback answers as the hub does: small files go into the commit, `tokenizer.json` is stored at once and
`model.safetensors` in three parts. A second upload of the same files finds all of them. Without Xet, whose chunks are another
protocol that the hub does not require.
"""

import base64
import hashlib
import json
import os
import pathlib
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import huggingface_hub
from huggingface_hub import HfApi

FILES = {
    "README.md": b"---\nlibrary_name: transformers\n---\n\n# A model\n",
    "config.json": b'{"model_type": "llama"}\n',
    "model.safetensors": bytes(range(25)),
    "tokenizer.json": b'{"version": "1.0", "text": "\xc3\xa4"}',
}
REPO = "someone/a-model"
TOKEN = "hf_of_the_test"
PART = 10
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LFS = {"model.safetensors", "tokenizer.json"}

requests = []
stored = {}
state = {"repo": False, "files": {}}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def oid(name, data):
    return sha256(data) if name in LFS else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, value=None, headers=()):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def take(self, method):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path
        kind = (self.headers.get("Content-Type") or "").split(";")[0]
        row = {"method": method, "path": path, "token": self.headers.get("Authorization") == f"Bearer {TOKEN}"}
        if "json" in kind:
            row["kind"] = kind
            lines = [json.loads(line) for line in body.decode().splitlines()] if "ndjson" in kind else json.loads(body)
            row["body"] = lines
        elif body:
            row["bytes"] = base64.b64encode(body).decode()
        requests.append(row)
        return path, body, row

    def do_GET(self):
        path, _, _ = self.take("GET")
        if path.startswith(f"/api/models/{REPO}") and state["repo"]:
            return self.reply(200, {"id": REPO, "private": True, "sha": COMMIT, "siblings": []})
        self.reply(404, {"error": "Repository not found"}, [("X-Error-Code", "RepoNotFound")])

    def do_PUT(self):
        path, body, _ = self.take("PUT")
        stored[path] = body
        self.reply(200, None, [("ETag", f'"{sha256(body)[:8]}"')])

    def do_POST(self):
        path, body, row = self.take("POST")
        here = f"http://{self.headers['Host']}"
        if path == "/api/repos/create":
            state["repo"] = True
            return self.reply(200, {"url": f"{here}/{REPO}", "id": "1"})
        if path == f"/api/models/{REPO}/branch/second":
            return self.reply(200, {})
        if path == f"/api/models/{REPO}/preupload/second":
            files = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"] in LFS else "regular", "shouldIgnore": False, "oid": state["files"].get(f["path"])}
                for f in row["body"]["files"]
            ]
            return self.reply(200, {"files": files})
        if path == f"/{REPO}.git/info/lfs/objects/batch":
            objects = []
            for wanted in row["body"]["objects"]:
                verify = {"href": f"{here}/{REPO}.git/info/lfs/objects/verify"}
                if wanted["size"] == 25:
                    header = {"chunk_size": str(PART)} | {str(i + 1): f"{here}/storage/{wanted['oid'][:8]}?part={i + 1}" for i in range(3)}
                    upload = {"href": f"{here}/complete/{wanted['oid'][:8]}", "header": header}
                else:
                    upload = {"href": f"{here}/storage/{wanted['oid'][:8]}"}
                objects.append({"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": upload, "verify": verify}})
            return self.reply(200, {"transfer": "multipart", "objects": objects})
        if path == f"/api/models/{REPO}/commit/second":
            state["files"] = {name: oid(name, data) for name, data in FILES.items()}
            return self.reply(200, {"commitUrl": f"{here}/{REPO}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        self.reply(200, {})


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        for name, data in FILES.items():
            pathlib.Path(folder, name).write_bytes(data)
        api = HfApi(endpoint=endpoint, token=TOKEN)
        uploads = []
        api.create_repo(REPO, private=True, exist_ok=True)
        api.create_branch(REPO, branch="second", exist_ok=True)
        for _ in range(2):
            api.upload_folder(repo_id=REPO, folder_path=folder, revision="second", commit_message="A message")
            uploads.append([*requests])
            requests.clear()
    for row in sum(uploads, []):
        row["path"] = row["path"].replace(endpoint, "")
    files = {name: base64.b64encode(data).decode() for name, data in FILES.items()}
    golden = {"huggingface_hub": huggingface_hub.__version__, "files": files, "first": uploads[0], "second": uploads[1]}
    text = json.dumps(golden, indent=1).replace(endpoint, "ENDPOINT")
    pathlib.Path(__file__).with_name("hub_push.json").write_text(text + "\n")
    for name in ("first", "second"):
        print(name, [(row["method"], row["path"], row["token"]) for row in golden[name]])
