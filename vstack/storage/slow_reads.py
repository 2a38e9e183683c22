"""The log of slow reads."""

import time
from typing import Final

import structlog

TARGET_S: Final = 0.010
INTERVAL_S: Final = 1.0

log = structlog.get_logger()


class SlowReads:
    """Logs reads above TARGET_S, at most one line per INTERVAL_S: under overload every read is slow."""

    def __init__(self) -> None:
        self._quiet_until = 0.0
        self._suppressed = 0

    def note(self, chunk_id: str, elapsed_s: float) -> None:
        """Take a read that lasted `elapsed_s`; a line tells how many slow ones went by since the last line."""
        if elapsed_s <= TARGET_S:
            return
        now = time.monotonic()
        if now < self._quiet_until:
            self._suppressed += 1
            return
        log.warning("slow_read", chunk_id=chunk_id, elapsed_ms=round(elapsed_s * 1000, 1), also_slow=self._suppressed)
        self._quiet_until, self._suppressed = now + INTERVAL_S, 0
