"""What adds up over playbacks."""

from collections import Counter
from dataclasses import dataclass, field

from vstack.client.report import Figures


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over playbacks. `outcomes` counts downloads: ok, cancelled (another was faster), or the failure's name."""

    outcomes: Counter[str] = field(default_factory=Counter)
    downloaded_bytes: int = 0
    failovers: int = 0
    hedges: int = 0
    stalls: int = 0
    stall_s: float = 0.0

    @classmethod
    def of(cls, figures: Figures) -> "Totals":
        outcomes = Counter({str(reason): count for reason, count in figures.failures.items()})
        outcomes["ok"] = figures.successful
        outcomes["cancelled"] = figures.dropped
        return cls(
            outcomes=outcomes,
            downloaded_bytes=figures.downloaded_bytes,
            failovers=figures.failovers,
            hedges=figures.hedges,
            stalls=figures.buffer.stalls,
            stall_s=figures.buffer.stall_s,
        )

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            outcomes=self.outcomes + other.outcomes,
            downloaded_bytes=self.downloaded_bytes + other.downloaded_bytes,
            failovers=self.failovers + other.failovers,
            hedges=self.hedges + other.hedges,
            stalls=self.stalls + other.stalls,
            stall_s=self.stall_s + other.stall_s,
        )
