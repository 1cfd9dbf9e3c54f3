"""gs:// through gcsfs, against a server here that speaks the part of Google's protocol in use."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

from robotics.data.rlds.fake import fake_dataset
from robotics.data.windows import WindowDataset

pytestmark = pytest.mark.extra("gcs")
SIZE = (16, 20)


class Bucket(BaseHTTPRequestHandler):
    """Objects by name: their list, their metadata, and ranges of their bytes."""

    objects: dict[str, bytes]
    sent: list[int]

    def do_GET(self):
        address = urlsplit(self.path)
        _, _, name = address.path.partition("/o/")
        name, query = unquote(name), parse_qs(address.query)
        if address.path.endswith("/o"):
            prefix = query.get("prefix", [""])[0]
            found = [self._row(each) for each in self.objects if each.startswith(prefix)]
            self._answer(200, json.dumps({"items": found}).encode())
        elif name not in self.objects:
            self._answer(404, b"{}")
        elif query.get("alt") == ["media"] or address.path.startswith("/download/"):
            self._media(self.objects[name])
        else:
            self._answer(200, json.dumps(self._row(name)).encode())

    def _media(self, data):
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last or len(data)) + 1]
        self.sent.append(len(part))
        self._answer(206, part, f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")

    def _row(self, name):
        size = str(len(self.objects[name]))
        return {"name": name, "bucket": "bucket", "size": size, "generation": "7", "etag": "e"}

    def _answer(self, status, body, content_range=None):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """(a data set, the handler of a bucket that holds it as gs://bucket/set)."""
    import fsspec
    from gcsfs.core import GCSFileSystem

    local = fake_dataset(tmp_path / "set", (4, 5, 6), shard_episodes=2)
    objects = {f"set/{path.name}": path.read_bytes() for path in local.iterdir() if path.is_file()}
    handler = type("Handler", (Bucket,), {"objects": objects, "sent": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    # Else gcsfs looks for credentials on the network, and asks over gRPC what kind of bucket it is.
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    usual = fsspec.get_filesystem_class("gs")
    fsspec.register_implementation("gs", GCSFileSystem, clobber=True)
    GCSFileSystem.clear_instance_cache()  # those made before know another address
    yield local, handler
    GCSFileSystem.clear_instance_cache()
    fsspec.register_implementation("gs", usual, clobber=True)
    server.shutdown()
    server.server_close()


def test_windows_of_a_bucket_are_those_of_the_disk(cloud, tmp_path):
    local, _ = cloud
    options = dict(decoded=False, progress=False)
    there = WindowDataset("gs://bucket/set", SIZE, cache_dir=tmp_path / "there", **options)
    here = WindowDataset(local, SIZE, cache_dir=tmp_path / "here", **options)
    assert len(there) == len(here) > 0
    one, other = there.batch(range(3)), here.batch(range(3))
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_one_window_takes_a_part_of_the_bytes(cloud, tmp_path):
    _, handler = cloud
    there = WindowDataset(
        "gs://bucket/set", SIZE, cache_dir=tmp_path / "there", decoded=False, progress=False
    )
    handler.sent.clear()
    there.batch([0])
    whole = sum(len(data) for name, data in handler.objects.items() if "-of-" in name)
    assert 0 < sum(handler.sent) < whole / 4


def test_a_data_set_that_is_not_there_is_named(cloud, tmp_path):
    with pytest.raises(ValueError, match="gs://bucket/other"):
        WindowDataset("gs://bucket/other", SIZE, cache_dir=tmp_path, progress=False)
