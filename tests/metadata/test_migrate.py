"""`vstack admin migrate`: the schema before the services, as an upgrade wants it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vstack.metadata.postgres import statements

pytestmark = pytest.mark.cluster


def migrate(tmp_path: Path, database_url: str, *options: str) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "metadata.toml"
    config.write_text(f'database_url = "{database_url}"\ncluster_key_file = "not-needed"\n', encoding="utf-8")
    command = [sys.executable, "-m", "vstack", "admin", "migrate", "--config", str(config), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_an_empty_database_gets_every_migration_once(tmp_path: Path, database_url: str) -> None:
    first = migrate(tmp_path, database_url, "--json")
    assert json.loads(first.stdout)["applied"] == [version for version, _, _ in statements.migrations()]
    assert "up to date" in migrate(tmp_path, database_url).stdout


def test_a_database_that_is_away_is_one_line(tmp_path: Path) -> None:
    away = migrate(tmp_path, "postgresql://vstack@127.0.0.1:1/vstack")
    assert away.returncode == 1
    assert away.stderr.count("\n") == 1
    assert "the database cannot be reached" in away.stderr
