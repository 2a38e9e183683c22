"""The smart client: measures every node, picks one for each chunk, plays without stalls."""

from vstack.client.report import PlaybackReport
from vstack.client.smart_client import SmartClient

__all__ = ["PlaybackReport", "SmartClient"]
