"""Fetch public data sets: resumable, checked by SHA-256, moved into place whole."""

import errno
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from renorm.data import store
from renorm.errors import DataError

__all__ = ["REMOTES", "Remote", "download", "fetch", "how_to_get"]

CHUNK = 1 << 18  # bytes per read
ATTEMPTS = 3  # connections per address before giving up; each goes on where the last broke off
TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class Remote:
    """A public file: its name here, the addresses that serve it, and its SHA-256."""

    file: str
    urls: tuple[str, ...]
    sha256: str


def _idx(folders: tuple[str, ...], digests: tuple[str, ...]) -> tuple[Remote, ...]:
    files = zip(store.IDX, digests, strict=True)
    return tuple(Remote(file, tuple(folder + file for folder in folders), digest) for file, digest in files)


# Of CIFAR-10 the binary version, never the Python one: that is a pickle, and reading it can run code.
REMOTES: dict[str, tuple[Remote, ...]] = {
    "mnist": _idx(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion-mnist": _idx(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    "cifar10": (
        Remote(
            "cifar-10-binary.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
}


def how_to_get(name: str) -> str:
    """What to do about a set that is not here.

    Example:
        >>> how_to_get("mnist"), how_to_get("clothing64")
        ('not here; `renorm data mnist` downloads it', 'not here, and no address serves it')
    """
    return f"not here; `renorm data {name}` downloads it" if name in REMOTES else "not here, and no address serves it"


def fetch(name: str) -> Path:
    """The folder of the public set ``name``, downloaded into the cache folder where it is not there yet.

    Where several processes run, let one fetch before the others load.

    Raises:
        DataError: If no public set has that name, or a download fails.
    """
    if name not in REMOTES:
        raise DataError(f"a set to download must be one of {', '.join(REMOTES)}, got {name!r}")
    if found := store.find(name):
        return found[0].parent
    folder = store.cache() / name
    for remote in REMOTES[name]:
        if not (folder / remote.file).is_file():
            download(remote, folder / remote.file)
    return folder


def download(remote: Remote, target: Path, *, timeout: float = TIMEOUT) -> None:
    """Download a file to ``target``, going on with ``target.part`` if an earlier attempt left one.

    ``target`` appears only when it is whole and its checksum is right.

    Raises:
        DataError: If no address answers, the disk is full, or the checksum is wrong (the part is deleted
            then).
    """
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _transfer(remote, part, timeout)
        digest = _sha256(part)
        if digest != remote.sha256:
            part.unlink()
            raise DataError(
                f"{target.name} must have the SHA-256 {remote.sha256[:12]}..., got {digest[:12]}...; "
                "the damaged download was deleted: try again"
            )
        part.replace(target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full; make room or set XDG_CACHE_HOME to another disk, then run again to go on"
        else:
            reason = f"{error.strerror or error}; check the folder, or set XDG_CACHE_HOME to another"
        raise DataError(f"cannot write {part}: {reason}") from None


def _transfer(remote: Remote, part: Path, timeout: float) -> None:
    """Bring ``part`` to its full length from the first address that serves it."""
    failures: list[str] = []
    for url in remote.urls:
        for _ in range(ATTEMPTS):
            try:
                if _receive(url, part, timeout):
                    return
                failures.append(f"{url} broke off after {part.stat().st_size} bytes")
            except _Unreachable as error:
                failures.append(f"{url} ({error})")
                break
    name = part.name.removesuffix(".part")
    raise DataError(
        f"cannot download {name} from {failures[-1]}; run again to go on, or put the file into "
        f"{part.parent}, or set RENORM_DATA to a folder that has {part.parent.name}/{name}"
    )


class _Unreachable(Exception):
    """An address does not answer or refuses; the next one may."""


def _receive(url: str, part: Path, timeout: float) -> bool:
    """One connection; says whether ``part`` is whole now."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "renorm", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing lies beyond what is here: whole, or wrong by its checksum
            return True
        raise _Unreachable(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _Unreachable(f"no connection: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Unreachable(f"no connection: {error}") from None
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if resumed else 0  # a server without ranges starts over
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        _append(response, part, have, total)
    return total is None or part.stat().st_size == total


def _append(response: http.client.HTTPResponse, part: Path, have: int, total: int | None) -> None:
    """Write what comes after the first ``have`` bytes of ``part``; a broken connection ends it quietly."""
    with part.open("ab") as file, _progress(part.name.removesuffix(".part"), have, total) as advance:
        file.truncate(have)
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, http.client.HTTPException):
                return
            if not chunk:
                return
            file.write(chunk)
            advance(len(chunk))


class _progress:
    """A bar on standard error; ``with _progress(...) as advance: advance(bytes)``."""

    def __init__(self, name: str, have: int, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task(name, total=total, completed=have)

    def __enter__(self) -> Callable[[int], None]:
        self.bar.start()
        return lambda count: self.bar.advance(self.task, count)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
