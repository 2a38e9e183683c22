"""The command line: what a person reads, what a program reads, and one line for whatever goes wrong."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from vstack import __version__
from vstack.cli import main
from vstack.cli.output import duration, size

VIDEO: dict[str, object] = {
    "video_id": "11111111-2222-4333-8444-555555555555",
    "title": "A [bold]title[/bold]",
    "duration_sec": 3725.4,
    "total_chunks": 60,
    "status": "active",
    "created_at": "2024-11-06T10:30:00.000Z",
    "view_count": 3,
    "size_bytes": 125_000_000,
}
NODE: dict[str, object] = {
    "node_url": "http://127.0.0.1:8081",
    "node_id": "node-1",
    "status": "down",
    "last_heartbeat": None,
    "disk_usage_percent": 45.25,
    "chunk_count": 1250,
    "version": "1.0.0",
    "host": "host-1",
}


class FakeMetadata(BaseHTTPRequestHandler):
    """Answers with what `answers` holds for "METHOD path"; 404 otherwise."""

    answers: ClassVar[dict[str, object]] = {}

    def do_GET(self) -> None:
        known = self.answers.get(f"{self.command} {self.path.partition('?')[0]}", KeyError)
        body = json.dumps({"detail": "no such video"} if known is KeyError else known).encode()
        self.send_response(404 if known is KeyError else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    answers = {
        "GET /videos": [VIDEO],
        "GET /nodes/all": {"nodes": [NODE]},
        f"DELETE /video/{VIDEO['video_id']}": None,
    }
    monkeypatch.setattr(FakeMetadata, "answers", answers)
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeMetadata) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> str:
    """A URL at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def one_line(text: str) -> str:
    assert text.startswith("vstack")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text.strip()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["upload", "file.mp4"],
        ["play"],
        ["storage"],
        ["dev"],
        ["dev", "up", "--nodes", "many"],
        ["play", "x", "--speed", "fast"],
        ["videos", "--unknown"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "--help" in one_line(capsys.readouterr().err)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"vstack {__version__}\n"


def test_videos_as_a_table_and_as_json(metadata: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["videos", "--metadata", metadata]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["ID", "TITLE", "LENGTH", "CHUNKS", "SIZE", "STATUS", "VIEWS", "CREATED"]
    assert "A [bold]title[/bold]" in row, "a title is text, not markup"
    assert "1:02:05" in row
    assert "125.0 MB" in row
    assert main(["videos", "--metadata", metadata, "--json"]) == 0
    (video,) = json.loads(capsys.readouterr().out)
    assert video == VIDEO


def test_nodes_as_a_table_and_as_json(metadata: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "--metadata", metadata]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["node-1", "http://127.0.0.1:8081", "down", "host-1", "45.2", "%", "1250", "never"]
    assert main(["nodes", "--metadata", metadata, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0]["node_id"] == "node-1"


def test_delete(metadata: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delete", str(VIDEO["video_id"]), "--metadata", metadata]) == 0
    assert capsys.readouterr().out == ""
    assert main(["delete", "unknown", "--metadata", metadata]) == 1
    assert one_line(capsys.readouterr().err) == "vstack: no such video"
    assert main(["delete", "../etc", "--metadata", metadata]) == 1
    assert "a video id must be" in one_line(capsys.readouterr().err)


def test_the_environment_names_the_service(
    metadata: str, nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VSTACK_METADATA", f"{nobody}, {metadata}")
    assert main(["videos", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


@pytest.mark.parametrize("command", [["videos"], ["nodes"], ["delete", "x"], ["play", "x"]])
def test_a_service_that_is_away_is_one_line(
    command: list[str], nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--metadata", nobody]) == 1
    assert nobody.removeprefix("http://") in one_line(capsys.readouterr().err)


def test_an_upload_that_cannot_be(nobody: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", str(tmp_path / "none.mp4"), "--title", "T", "--uploader", nobody]) == 1
    assert "none.mp4: No such file" in one_line(capsys.readouterr().err)
    (tmp_path / "file.mp4").write_bytes(b"x")
    assert main(["upload", str(tmp_path / "file.mp4"), "--title", "T", "--uploader", nobody, "--patience", "0"]) == 1
    assert nobody.removeprefix("http://") in one_line(capsys.readouterr().err)


def test_check_config_prints_what_a_file_amounts_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text("k" * 32)
    file = tmp_path / "metadata.toml"
    file.write_text(
        f'service = "metadata"\ndatabase_url = "postgresql://u:hunter2@/v"\ncluster_key_file = "{tmp_path / "key"}"\n'
    )
    assert main(["check-config", str(file)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["service"], shown["port"], shown["database_url"]) == ("metadata", 8080, "postgresql://u:***@/v")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "`service` must be one of"),
        ('service = "client"\nprot = 1', "unknown field `prot`"),
        ('service = "metadata"', "missing required field"),
        ('service = "metadata"\ndatabase_url = ""\ncluster_key_file = "/none"', "cannot read the cluster key"),
    ],
)
def test_a_wrong_config_is_one_line(
    tmp_path: Path, text: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.toml"
    file.write_text(text)
    assert main(["check-config", str(file)]) == 1
    assert sentence in one_line(capsys.readouterr().err)


def test_a_service_refuses_the_file_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.toml"
    file.write_text('service = "client"\n')
    assert main(["storage", "--config", str(file)]) == 1
    assert "the file of a client service" in one_line(capsys.readouterr().err)


def test_dev_up_says_in_one_line_what_is_in_its_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["dev", "up", "--data-dir", str(tmp_path / "file")]) == 1
    assert "cannot use the data directory" in one_line(capsys.readouterr().err)
    assert main(["dev", "up", "--data-dir", str(tmp_path), "--nodes", "0"]) == 1
    assert "1 to 64 storage nodes" in one_line(capsys.readouterr().err)


def test_figures_for_people() -> None:
    assert [size(value) for value in (0, 999, 1000, 2_097_152, 5e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.1 MB",
        "5000.0 TB",
    ]
    assert [duration(value) for value in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]
