"""The machine's own apt sources, narrowed to its distribution: hosts get what the machine itself could get.

Pure: text in, text out. Both formats of sources.list(5) are read and handed on as they stand.
"""

import re
from dataclasses import dataclass

_POCKETS = ("", "-updates", "-security")


@dataclass(frozen=True, slots=True)
class Sources:
    """What of the machine's sources is the distribution itself."""

    one_line: str  # for a .list file
    deb822: str  # for a .sources file
    mirror: str | None  # of the release itself: what debootstrap needs


def distribution_sources(files: dict[str, str], codename: str) -> Sources:
    """From the sources files (name to text) those entries whose suites are the release, its updates and security."""
    suites = {codename + pocket for pocket in _POCKETS}
    lines: list[str] = []
    stanzas: list[str] = []
    mirrors: list[str] = []
    for name, text in sorted(files.items()):
        if name.endswith(".sources"):
            for stanza in re.split(r"\n\s*\n", text):
                fields = _fields(stanza)
                named = set(fields.get("suites", "").split())
                if "deb" in fields.get("types", "").split() and named and named <= suites and _enabled(fields):
                    stanzas.append(stanza.strip("\n"))
                    if codename in named:
                        mirrors += fields["uris"].split()
        else:
            for line in text.splitlines():
                match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s", line)
                if match and match[2] in suites:
                    lines.append(line)
                    if match[2] == codename:
                        mirrors.append(match[1])
    return Sources(
        one_line="".join(f"{line}\n" for line in lines),
        deb822="\n\n".join(stanzas) + "\n" if stanzas else "",
        mirror=mirrors[0] if mirrors else None,
    )


def _enabled(fields: dict[str, str]) -> bool:
    return fields.get("enabled", "yes").lower() not in {"no", "false", "0"}


def _fields(stanza: str) -> dict[str, str]:
    """Field names in lower case. A value goes on in lines that begin with a blank; comments are no part of it."""
    fields: dict[str, str] = {}
    current = None
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace() and current is not None:
            fields[current] += "\n" + line.strip()
        elif ":" in line:
            current, _, value = line.partition(":")
            current = current.lower()
            fields[current] = value.strip()
    return fields
