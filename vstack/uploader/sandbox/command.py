"""The command line and the surroundings of ffmpeg and ffprobe. Imported by every job, so it imports next to nothing.

Invariant: whoever asks for a run, the guards stand before the input, and the input is the descriptor that was passed.
"""

from collections.abc import Sequence
from typing import Final, Literal

ToolName = Literal["ffmpeg", "ffprobe"]

THREADS: Final = 4
"""Threads of one decoder or encoder: a job must not take a whole machine, nor its address space depend on the cores."""

INPUT: Final = "file:/proc/self/fd/0"
"""Standard input opened anew, by which it can be sought in. (ffmpeg's own `fd:` is younger than what Debian 12 has.)"""

_GUARD: Final = (
    *("-v", "error"),
    *("-protocol_whitelist", "file,pipe"),
    *("-format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv"),
)
"""Without both lists a playlist renamed .mp4 makes them open what it names."""

_BEFORE_INPUT: Final[dict[str, tuple[str, ...]]] = {
    "ffmpeg": ("-nostdin", *_GUARD, "-threads", str(THREADS)),
    "ffprobe": _GUARD,
}

# Without a bound on arenas glibc reserves 64 MiB of address space for each thread.
ENVIRONMENT: Final = {"LC_ALL": "C", "AV_LOG_FORCE_NOCOLOR": "1", "MALLOC_ARENA_MAX": "2"}


def command(tool: str, program: str, args: Sequence[str]) -> list[str]:
    """`program`, which is a `tool`, on the file that is its standard input; `args` are options after the input."""
    return [program, *_BEFORE_INPUT[tool], "-i", INPUT, *args]
