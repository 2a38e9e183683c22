"""What may stand for the URL of a service: everything that passes can be parsed and connected to."""

from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from vstack.ids import BaseUrl

GOOD = [
    "http://127.0.0.1:8081",
    "https://storage-1.example.org",
    "http://a_b:65535",
    "http://[::1]:80",
    "http://localhost",
]
BAD = [
    "",
    "storage:8081",
    "ftp://a",
    "http://",
    "http://a/",
    "http://a?x",
    "http://a\n",
    "http://a\x00",
    "http://u:p@a",
    "http://a..b",
    "http://.",
    "http://-a",
    "http://" + "a" * 64,
    "http://a]b",
    "http://[g]",
    "http://a:0",
    "http://a:99999",
    "http://a:" + "1" * 300,
    "http://ümlaut",
]


@pytest.mark.parametrize("text", GOOD)
def test_urls_of_services(text: str) -> None:
    assert msgspec.convert(text, BaseUrl) == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_none(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, BaseUrl)


@given(st.text(alphabet="ab1.-_:[]/\n", max_size=80).map("http://".__add__))
def test_what_passes_can_be_used(text: str) -> None:
    try:
        msgspec.convert(text, BaseUrl)
    except msgspec.ValidationError:
        return
    if "[" not in text:
        assert urlsplit(text).port is None or URL(text).host
        assert urlsplit(text).hostname
        (urlsplit(text).hostname or "").encode("idna")
