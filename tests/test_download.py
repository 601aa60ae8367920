"""Downloads from a server on this machine: resumed, checked, and refused in one line."""

import errno
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from renorm.data import download as download_module
from renorm.data import store
from renorm.data.download import REMOTES, Remote, download, fetch
from renorm.errors import DataError

CONTENT = bytes(i * i % 251 for i in range(600_000))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT. ``/broken`` hangs up half-way through what was asked, ``/plain`` knows no ranges."""

    log: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.log.append((self.path, asked))
        if self.path == "/absent":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.path != "/plain" else 0
        body = CONTENT[start:]
        if not body:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/broken" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.log = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own and no other place with data."""
    monkeypatch.setattr(store, "roots", lambda: [store.cache()])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "renorm"


def remote(server: http.server.HTTPServer, *paths: str, sha256: str = DIGEST) -> Remote:
    return Remote("file", tuple(f"http://127.0.0.1:{server.server_port}{path}" for path in paths), sha256)


def test_a_download_is_whole_and_leaves_no_part(server, tmp_path):
    target = tmp_path / "new" / "file"
    download(remote(server, "/file"), target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert server.log == [("/file", None)]


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    target = tmp_path / "file"
    Path(f"{target}.part").write_bytes(CONTENT[:200_000])
    download(remote(server, "/file"), target)
    assert target.read_bytes() == CONTENT
    assert server.log == [("/file", "bytes=200000-")]


def test_a_connection_that_breaks_is_taken_up_again_then_given_up_with_its_part_kept(server, tmp_path):
    target, part = tmp_path / "file", tmp_path / "file.part"
    with pytest.raises(DataError, match="broke off after 525000 bytes; run again to go on"):
        download(remote(server, "/broken"), target)
    # Each of the three connections brings half of what is missing: 1/2 + 1/4 + 1/8 of 600 000 bytes.
    assert [asked for _, asked in server.log] == [None, "bytes=300000-", "bytes=450000-"]
    assert part.read_bytes() == CONTENT[:525_000]
    download(remote(server, "/file"), target)
    assert target.read_bytes() == CONTENT
    assert not part.exists()


def test_a_server_without_ranges_starts_over(server, tmp_path):
    target = tmp_path / "file"
    Path(f"{target}.part").write_bytes(b"something else")
    download(remote(server, "/plain"), target)
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_only_checked(server, tmp_path):
    target = tmp_path / "file"
    Path(f"{target}.part").write_bytes(CONTENT)
    download(remote(server, "/file"), target)
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_deletes_the_part(server, tmp_path):
    with pytest.raises(DataError, match=r"must have the SHA-256 0{12}\.\.\., got .* deleted: try again"):
        download(remote(server, "/file", sha256="0" * 64), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_the_second_address_serves_what_the_first_does_not(server, tmp_path):
    download(remote(server, "/absent", "/file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_absent_file_is_reported_with_the_way_out(server, tmp_path):
    with pytest.raises(DataError, match=r"cannot download file .*/absent \(HTTP 404.*RENORM_DATA") as raised:
        download(remote(server, "/absent"), tmp_path / "file")
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_no_connection_is_reported_with_the_way_out(server, tmp_path):
    nowhere = Remote("file", ("http://127.0.0.1:9/file",), DIGEST)
    with pytest.raises(DataError, match=r"no connection: .*refused.*put the file into"):
        download(nowhere, tmp_path / "file")


def test_a_full_disk_is_reported_and_the_part_kept(server, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download_module, "_append", full)
    with pytest.raises(DataError, match="the disk is full; make room"):
        download(remote(server, "/file"), tmp_path / "file")


def test_fetch_downloads_what_is_missing_and_only_that(server, empty_store, monkeypatch):
    files = tuple(Remote(file, (f"http://127.0.0.1:{server.server_port}/{file}",), DIGEST) for file in store.IDX)
    monkeypatch.setitem(REMOTES, "mnist", files)
    assert store.where("mnist") is None
    assert fetch("mnist") == empty_store / "mnist"
    assert store.where("mnist") == str(empty_store / "mnist")
    (empty_store / "mnist" / store.IDX[2]).unlink()
    fetch("mnist")
    fetch("mnist")
    assert [path for path, _ in server.log] == [f"/{file}" for file in (*store.IDX, store.IDX[2])]


def test_fetch_names_the_sets_it_knows():
    with pytest.raises(DataError, match="must be one of mnist, fashion-mnist, cifar10, got 'imagenet'"):
        fetch("imagenet")


def test_the_python_version_of_cifar10_is_never_fetched():
    assert all("python" not in url for entries in REMOTES.values() for entry in entries for url in entry.urls)
