"""A static web server on 127.0.0.1 that keeps a list of what was asked of it."""

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Served(NamedTuple):
    """A running server: its URL (no trailing slash) and the paths requested so far, in order."""

    url: str
    requests: list[str]


@contextlib.contextmanager
def serve(folder: Path, *, appendable: frozenset[str] = frozenset()) -> Iterator[Served]:
    """Serve `folder` until the block ends.

    A PUT appends its body to one of the `appendable` file names (how a page hands back its results);
    every other PUT is refused.
    """
    requests: list[str] = []
    handler = partial(_Handler, directory=str(folder), requests=requests, appendable=appendable)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{server.server_port}", requests)
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(
        self, *args: object, directory: str, requests: list[str], appendable: frozenset[str]
    ) -> None:
        self.requests = requests
        self.appendable = appendable
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.path.lstrip("/")
        if name not in self.appendable:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        with (Path(self.directory) / name).open("ab") as stream:
            stream.write(body)
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def end_headers(self) -> None:
        # A browser's cache would make the second load of a model look faster than the first.
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        del code, size
        self.requests.append(self.path)

    def log_message(self, format: str, *args: object) -> None:
        del format, args
