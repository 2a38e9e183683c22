"""The commands of scripts/lab as anybody would give them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND_S = 900


@dataclass(frozen=True)
class Lab:
    name: str

    def words(self, *words: str) -> list[str]:
        return [str(ROOT / "scripts/lab"), "--name", self.name, *words]

    def attempt(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*words), check=False, capture_output=True, text=True, input=stdin, timeout=COMMAND_S
        )

    def __call__(self, *words: str, stdin: str = "") -> str:
        """A command that must succeed; what it printed."""
        done = self.attempt(*words, stdin=stdin)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def on(self, host: str, script: str) -> str:
        """A shell script on a host; what it printed."""
        return self("shell", host, "bash", "-euo", "pipefail", "-s", stdin=script).strip()

    def state_of(self, host: str) -> str:
        """What `list` says of a host of this lab."""
        lines = self("list").partition(f"{self.name} (namespace ")[2].splitlines()[1:]
        rows = (line.split() for line in lines)
        return next(row[2] for row in rows if row[0] == host)
