"""`vstack admin migrate`: the schema before the services, as an upgrade wants it."""

import json
from pathlib import Path

import pytest

from vstack.cli import main
from vstack.metadata import statements

pytestmark = pytest.mark.cluster


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> Path:
    path = tmp_path / "metadata.toml"
    path.write_text(f'database_url = "{database_url}"\ncluster_key_file = "not-needed"\n', encoding="utf-8")
    return path


def test_an_empty_database_gets_every_migration_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admin", "migrate", "--config", str(config), "--json"]) == 0
    applied = json.loads(capsys.readouterr().out)["applied"]
    assert applied == [version for version, _, _ in statements.migrations()]
    assert main(["admin", "migrate", "--config", str(config)]) == 0
    assert "up to date" in capsys.readouterr().out


def test_a_database_that_is_away_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "metadata.toml"
    config.write_text(
        'database_url = "postgresql://vstack@127.0.0.1:1/vstack"\ncluster_key_file = "not-needed"\n', encoding="utf-8"
    )
    assert main(["admin", "migrate", "--config", str(config)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the database cannot be reached" in error
