from __future__ import annotations

import argparse
import errno
import hashlib
import io
import re
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests
import yaml

from mtbert.data import download as module
from mtbert.data.download import Source, check, download, https_only, read_sources
from mtbert.errors import InputError
from mtbert.paths import conf_dir

CONTENT = "".join(f"{row}\tid{row}\ta sentence, naïve\t{row % 5}\n" for row in range(20_000)).encode()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under any path but /gone.csv; ``cut`` breaks an answer off at that byte of it."""

    daemon_threads = True
    cut: int | None = None
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []  # the Range of each request
        self.encodings: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        self.server.encodings.add(self.headers["Accept-Encoding"])
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if self.path == "/gone.csv":
            return self.send_error(404)
        if start >= len(CONTENT):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """As the command's own, but for plain http to this machine and no proxy."""
    with requests.Session() as plain:
        plain.trust_env = False
        yield plain


def source(address: str, file: str = "rows.csv", sha256: str = SHA256, git_blob: str = "") -> Source:
    return Source("sst", file, sha256, git_blob, f"{address}/{file}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("known", [{}, {"sha256": "", "git_blob": BLOB[:8]}])
def test_a_checked_file_appears_whole(server: Server, session: requests.Session, tmp_path: Path, known, capsys) -> None:
    download([source(server.address, **known)], tmp_path / "new" / "data", session)
    assert (tmp_path / "new" / "data" / "rows.csv").read_bytes() == CONTENT
    assert names(tmp_path / "new" / "data") == ["rows.csv"]
    assert server.asked == [None] and server.encodings == {"identity"}
    written = capsys.readouterr()
    assert written.out == "rows.csv: downloaded, checked\n"
    assert written.err == ""  # no progress bar where there is no terminal


def test_the_sum_of_a_file_without_one_is_printed(server, session, tmp_path: Path, capsys) -> None:
    download([source(server.address, sha256="")], tmp_path, session)
    assert f"sha256 {SHA256}, none on record" in capsys.readouterr().out


def test_a_right_file_is_not_fetched_again(server, session, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(CONTENT)
    download([source(server.address)], tmp_path, session, force=True)
    assert server.asked == []


def test_a_cut_download_goes_on_where_it_stopped(server, session, tmp_path: Path) -> None:
    server.cut = 300_000
    with pytest.raises(InputError, match=r"rows\.csv: the connection broke off; the same command goes on"):
        download([source(server.address)], tmp_path, session)
    assert names(tmp_path) == ["rows.csv.part"]
    came = (tmp_path / "rows.csv.part").stat().st_size
    assert 0 < came <= 300_000

    server.cut = None
    download([source(server.address)], tmp_path, session)
    assert server.asked == [None, f"bytes={came}-"]
    assert (tmp_path / "rows.csv").read_bytes() == CONTENT
    assert names(tmp_path) == ["rows.csv"]


def test_a_server_without_ranges_sends_the_whole_again(server, session, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "rows.csv.part").write_bytes(CONTENT[:1000])
    download([source(server.address)], tmp_path, session)
    assert (tmp_path / "rows.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
def test_a_part_as_long_as_the_file_is_fetched_anew(server, session, tmp_path: Path, part: bytes) -> None:
    (tmp_path / "rows.csv.part").write_bytes(part)
    download([source(server.address)], tmp_path, session)
    assert server.asked == [f"bytes={len(part)}-", None]
    assert (tmp_path / "rows.csv").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("known", "difference"),
    [
        ({"sha256": "0" * 64}, f"sha256 {SHA256}, expected {'0' * 64}"),
        ({"sha256": "", "git_blob": "00000000"}, f"git blob {BLOB[:8]}, expected 00000000"),
    ],
)
def test_wrong_content_is_removed_and_told(server, session, tmp_path: Path, known, difference: str) -> None:
    with pytest.raises(InputError, match=rf"rows\.csv: {difference}; what came was removed"):
        download([source(server.address, **known)], tmp_path, session)
    assert names(tmp_path) == []


def test_a_damaged_part_is_removed_so_that_the_next_try_succeeds(server, session, tmp_path: Path) -> None:
    (tmp_path / "rows.csv.part").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match="what came was removed"):
        download([source(server.address)], tmp_path, session)
    download([source(server.address)], tmp_path, session)
    assert (tmp_path / "rows.csv").read_bytes() == CONTENT


def test_a_missing_address_does_not_stop_the_other_files(server, session, tmp_path: Path, capsys) -> None:
    with pytest.raises(InputError) as error:
        download([source(server.address, "gone.csv"), source(server.address)], tmp_path, session)
    line = str(error.value)
    assert line.startswith(f"{server.address}/gone.csv: the server answers 404 Not Found; or put the file into")
    assert "scale=sample" in line and "\n" not in line
    assert names(tmp_path) == ["rows.csv"]
    assert "gone.csv: failed" in capsys.readouterr().out


def test_no_connection_stops_at_the_first_file(session, tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound, not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InputError) as error:
            download([source(address), source(address, "other.csv")], tmp_path, session)
    line = str(error.value)
    assert line.startswith(f"{address}/rows.csv: no connection; ")
    assert str(tmp_path) in line and "scale=sample" in line and "\n" not in line
    assert names(tmp_path) == []


class FullDisk(io.FileIO):
    """Takes the first 200,000 bytes."""

    def write(self, chunk) -> int:
        if self.tell() + len(chunk) > 200_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(chunk)


def test_a_full_disk_is_told_and_what_came_is_kept(server, session, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: FullDisk(path, mode))
        with pytest.raises(InputError, match=r"rows\.csv: disk full; the same command goes on from here") as error:
            download([source(server.address), source(server.address, "other.csv")], tmp_path, session)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == ["rows.csv.part"]
    came = (tmp_path / "rows.csv.part").stat().st_size
    download([source(server.address)], tmp_path, session)
    assert server.asked == [None, f"bytes={came}-"] and came > 0
    assert (tmp_path / "rows.csv").read_bytes() == CONTENT


def test_another_file_in_its_place_stays_without_force(server, session, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("mine")
    with pytest.raises(InputError, match=rf"rows\.csv: sha256 \w+, expected {SHA256}; --force replaces it"):
        download([source(server.address)], tmp_path, session)
    assert (tmp_path / "rows.csv").read_text() == "mine" and server.asked == []
    download([source(server.address)], tmp_path, session, force=True)
    assert (tmp_path / "rows.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("git_blob", ["", "00000000"])
def test_rows_of_ones_own_are_kept_where_no_sum_is_known(server, session, tmp_path: Path, git_blob, capsys) -> None:
    (tmp_path / "rows.csv").write_text("fewer rows, on purpose")
    rows = source(server.address, sha256="", git_blob=git_blob)
    download([rows], tmp_path, session)
    check([rows], tmp_path)
    assert (tmp_path / "rows.csv").read_text() == "fewer rows, on purpose" and server.asked == []
    assert capsys.readouterr().out.count("rows.csv: kept, ") == 2


def test_a_failed_replacement_leaves_the_old_file(server, session, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("mine")
    with pytest.raises(InputError, match=r"expected 0{64}; what came was removed"):
        download([source(server.address, sha256="0" * 64)], tmp_path, session, force=True)
    assert (tmp_path / "rows.csv").read_text() == "mine"


def test_the_command_takes_no_http_address(server, tmp_path: Path) -> None:
    with https_only() as session, pytest.raises(InputError, match=r"rows\.csv: not an https address"):
        download([source(server.address)], tmp_path, session)
    assert server.asked == [] and names(tmp_path) == []


class Elsewhere(requests.adapters.BaseAdapter):
    """Answers every request with a redirect."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location

    def send(self, request, **_) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url, response.request = 302, request.url, request
        response.headers["Location"] = self.location
        response.raw = io.BytesIO()
        return response

    def close(self) -> None:
        pass


def test_the_command_is_not_led_from_https_to_http(server, tmp_path: Path) -> None:
    with https_only() as session:
        session.mount("https://", Elsewhere(f"{server.address}/rows.csv"))
        with pytest.raises(InputError, match=r"https://example\.org/rows\.csv: not an https address"):
            download([source("https://example.org")], tmp_path, session)
    assert server.asked == [] and names(tmp_path) == []


def test_check_names_what_is_missing(tmp_path: Path, capsys) -> None:
    (tmp_path / "rows.csv").write_bytes(CONTENT)
    check([source("https://example.org")], tmp_path)
    with pytest.raises(InputError, match=r"other\.csv: no such file; `mtbert data` downloads it from https://example"):
        check([source("https://example.org"), source("https://example.org", "other.csv")], tmp_path)
    assert capsys.readouterr().out.splitlines()[1:] == ["rows.csv: there, checked", "other.csv: missing"]


def test_the_command(server, session, tmp_path: Path, monkeypatch, capsys) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    monkeypatch.setattr(module, "https_only", lambda: session)
    monkeypatch.setattr(module, "read_sources", lambda datasets: [Source("sick", "a.csv", SHA256, "", server.address)])
    monkeypatch.setenv("MTBERT_DATA", str(tmp_path / "of the environment"))
    assert module.main(parser.parse_args(["sick"])) == 0
    assert (tmp_path / "of the environment" / "a.csv").read_bytes() == CONTENT
    assert module.main(parser.parse_args(["--folder", str(tmp_path / "named")])) == 0
    assert (tmp_path / "named" / "a.csv").read_bytes() == CONTENT
    assert "CC BY-NC-SA" in capsys.readouterr().out
    monkeypatch.setenv("MTBERT_DATA", "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^data/a\.csv: no such file"):
        module.main(parser.parse_args(["--check"]))
    assert not (tmp_path / "data").exists()


def test_every_file_of_a_dataset_config_has_an_address() -> None:
    for path in (conf_dir() / "dataset").glob("*.yaml"):
        files = {file for split in yaml.safe_load(path.read_text())["files"].values() for file in split}
        assert files <= {known.file for known in read_sources([path.stem])}, path.name


def test_sources_are_well_formed() -> None:
    sources = read_sources()
    assert len({known.file for known in sources}) == len(sources) == 13
    for known in sources:
        assert known.url.startswith("https://") and known.url.endswith(f"/{known.file}")
        assert re.fullmatch(r"([0-9a-f]{64})?", known.sha256) and re.fullmatch(r"[0-9a-f]*", known.git_blob)
    assert [known.file for known in sources if not known.sha256] == ["quora-train.csv", "quora-test-student.csv"]


def test_an_unknown_dataset_is_named() -> None:
    with pytest.raises(InputError, match="no dataset 'stss'; did you mean 'sts'"):
        read_sources(["stss"])


def test_sums_are_those_of_the_real_files(shared: Path) -> None:
    there = [known for known in read_sources() if known.sha256]
    check(there, shared / "data")
