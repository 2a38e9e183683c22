"""How addresses of the inventory are written in URLs."""

from psycopg.conninfo import conninfo_to_dict

from tests.unit.ansible.collection import addresses
from vstack.settings import MetadataSettings


def test_http_url_puts_ipv6_in_brackets() -> None:
    assert addresses.http_url("192.0.2.7", 8080) == "http://192.0.2.7:8080"
    assert addresses.http_url("store1.example.org", 8081) == "http://store1.example.org:8081"
    assert addresses.http_url("2001:db8::7", 8080) == "http://[2001:db8::7]:8080"


def test_libpq_understands_the_url_of_several_databases() -> None:
    parsed = conninfo_to_dict(addresses.libpq_url(["192.0.2.7", "2001:db8::8", "db3.example.org"]))
    assert parsed == {
        "user": "vstack",
        "dbname": "vstack",
        "host": "192.0.2.7,2001:db8::8,db3.example.org",
        "port": "5432,5432,5432",
        "target_session_attrs": "read-write",
    }


def test_the_metadata_service_takes_the_url() -> None:
    url = addresses.libpq_url(["192.0.2.7", "192.0.2.8"])
    assert MetadataSettings(database_url=url, cluster_key_file="cluster.key").database_url == url
