"""Archives and images made for tests: well-formed ones, hostile ones, and servers that give them out."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reconciler.kernel import netns

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

Entry = tarfile.TarInfo
Content = Mapping[str, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> Entry:
    """Make an entry of an archive."""
    made = tarfile.TarInfo(name)
    made.type = kind
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def tar(*entries: Entry | tuple[Entry, bytes]) -> bytes:
    """Make an archive of entries, those with content beside it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one in entries:
            info, data = one if isinstance(one, tuple) else (one, b"")
            if data:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def file(name: str, data: bytes = b"content\n", **fields: Any) -> tuple[Entry, bytes]:
    """Make a file of an archive."""
    return entry(name, tarfile.REGTYPE, **fields), data


def sha256(data: bytes) -> str:
    """Give a digest as manifests write it."""
    return hashlib.sha256(data).hexdigest()


def oci_layout(directory: Path, *layers: bytes, architecture: str = ARCHITECTURE) -> str:
    """Make an OCI layout with one image, tagged ``latest``; give the digest of its manifest."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(kind: str, data: bytes) -> dict[str, object]:
        (blobs / sha256(data)).write_bytes(data)
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": f"sha256:{sha256(data)}", "size": len(data)}

    diffs = [f"sha256:{sha256(layer)}" for layer in layers]
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diffs}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [blob("layer.v1.tar+gzip", gzip.compress(layer, mtime=0)) for layer in layers],
    }
    top = blob("manifest.v1+json", json.dumps(manifest).encode())
    top["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    return str(top["digest"])


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def http_server(answers: Mapping[str, bytes | Answer], *, namespace: int | None = None) -> Iterator[str]:
    """Serve contents by path on a loopback interface for the block; give the server's address.

    ``namespace``: descriptor of the network namespace to serve in, if it is not our own.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            if answer is None:
                self.send_error(404)
            elif callable(answer):
                answer(self)
            else:
                send(self, answer)

        def log_message(self, *args: object) -> None:
            pass

    def listen() -> ThreadingHTTPServer:
        return ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    with listen() if namespace is None else netns.call_in(namespace, listen) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def send(request: BaseHTTPRequestHandler, data: bytes, *, cut: int | None = None, begin: int = 0) -> None:
    """Answer with data from ``begin`` on, and end the connection after ``cut`` bytes of it."""
    request.send_response(206 if begin else 200)
    if begin:
        request.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
    request.send_header("Content-Length", str(len(data) - begin))
    request.end_headers()
    request.wfile.write(data[begin:] if cut is None else data[begin : begin + cut])


def simplestreams(
    versions: Mapping[str, Sequence[Mapping[str, object]]], *, alias: str = "tiny/1", arch: str = ARCHITECTURE
) -> dict[str, bytes | Answer]:
    """Make the index of an image server with one product. Shape: items by the name of their version."""
    product = {
        "aliases": f"{alias},{alias}/default",
        "arch": arch,
        "os": "Tiny",
        "versions": {name: {"items": {str(item["ftype"]): item for item in items}} for name, items in versions.items()},
    }
    images = {"format": "products:1.0", "datatype": "image-downloads", "products": {f"tiny:1:{arch}": product}}
    listed = {"format": "products:1.0", "datatype": "image-downloads", "path": "streams/v1/images.json"}
    index = {"format": "index:1.0", "index": {"images": listed}}
    return {
        "/streams/v1/index.json": json.dumps(index).encode(),
        "/streams/v1/images.json": json.dumps(images).encode(),
    }
