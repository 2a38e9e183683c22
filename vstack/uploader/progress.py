"""How far an upload is, as one number from 0 to 100. Pure.

Invariants: within a phase the number stays inside the phase's range, whose upper end belongs to the next phase; it is
100 only when the upload is completed; `advance` never lets it fall. Phases follow each other in the order of RANGES.
"""

from typing import Final

from vstack.wire.uploader import UploadPhase

RANGES: Final[dict[UploadPhase, tuple[int, int]]] = {
    "uploading": (0, 10),
    "processing": (10, 20),
    "chunking": (20, 40),
    "registering": (40, 50),
    "uploading_chunks": (50, 90),
    "finalizing": (90, 100),
}
"""First percent of each phase, and the first percent of the next."""


def is_past(phase: UploadPhase, current: UploadPhase) -> bool:
    """Whether an upload that has come to `current` has left `phase` behind; nothing is said of ends."""
    order = tuple(RANGES)
    return phase in order and current in order and order.index(phase) < order.index(current)


def percent(phase: UploadPhase, fraction: float = 0.0) -> int:
    """The progress of a phase of which `fraction` (0 to 1, clamped) is done."""
    first, end = RANGES[phase]
    done = min(1.0, max(0.0, fraction))
    return min(end - 1, first + int(done * (end - first)))


def advance(current: int, phase: UploadPhase, fraction: float = 0.0) -> int:
    """The progress after more work in `phase`; a failure leaves it where it was."""
    if phase == "completed":
        return 100
    if phase == "failed":
        return current
    return max(current, percent(phase, fraction))
