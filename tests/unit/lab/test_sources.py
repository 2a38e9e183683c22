"""The machine's apt sources, narrowed to its distribution."""

from scripts.lab_lib.packages import wanted_packages
from scripts.lab_lib.sources import distribution_sources

DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
"""


def test_the_newer_format_keeps_its_stanzas_as_they_stand() -> None:
    sources = distribution_sources({"debian.sources": DEB822}, "bookworm")
    assert sources.mirror == "http://mirror.example/debian"
    assert sources.deb822 == DEB822
    assert not sources.one_line


def test_sources_of_others_and_of_other_releases_are_left_out() -> None:
    files = {
        "sources.list": (
            "# deb http://old.example/debian bookworm main\n"
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n"
            "deb-src http://mirror.example/debian bookworm main\n"
            "deb http://mirror.example/debian trixie main\n"
            "deb http://mirror.example/security bookworm-security main\n"
        ),
        "vendor.list": "deb http://vendor.example/apt bookworm-pgdg main\n",
        "vendor.sources": "Types: deb\nURIs: http://vendor.example\nSuites: nodistro\nComponents: main\n",
        "off.sources": "Enabled: no\n" + DEB822,
        "source.sources": DEB822.replace("deb deb-src", "deb-src"),
    }
    sources = distribution_sources(files, "bookworm")
    assert sources.one_line == (
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main\n"
        "deb http://mirror.example/security bookworm-security main\n"
    )
    assert "vendor.example" not in sources.deb822
    assert "http://mirror.example/debian" not in sources.deb822
    assert sources.mirror == "http://mirror.example/debian"


def test_a_machine_without_a_mirror_of_its_release_has_none() -> None:
    assert distribution_sources({"debian.sources": DEB822}, "trixie").mirror is None


def test_the_list_of_packages_has_comments() -> None:
    assert wanted_packages("# a\n\nb  # why\n a\nb\n") == ["a", "b"]
