"""Filters `vstack.cluster.http_url` and `vstack.cluster.libpq_url`; what they do is in module_utils/addresses.py."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.vstack.cluster.plugins.module_utils.addresses import http_url, libpq_url


class FilterModule:
    """Found by Ansible under this name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        return {"http_url": http_url, "libpq_url": libpq_url}
