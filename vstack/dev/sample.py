"""A real video for those who have none at hand: moving picture and sound, the same bytes on every run."""

import asyncio
from pathlib import Path
from typing import Final

from vstack.errors import SettingsError

TIMEOUT_S: Final = 300.0
_SIZE: Final = "1280x720"
_FRAMES_PER_S: Final = 25
_KEY_FRAME_INTERVAL_S: Final = 2


async def make_sample(path: Path, *, ffmpeg: str, seconds: int = 30, mbps: float = 8.0) -> None:
    """Write an MP4 (H.264 and AAC) of about `mbps` to `path`, whole or not at all. SettingsError where ffmpeg fails."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        process = await asyncio.create_subprocess_exec(
            ffmpeg,
            *_args(seconds, mbps),
            f"file:{unfinished}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SettingsError(f"cannot run {ffmpeg}: {error.strerror}") from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, complaints = await process.communicate()
        if process.returncode != 0:
            raise SettingsError(f"ffmpeg made no video: {complaints.decode(errors='replace').strip()[-200:]}")
        unfinished.rename(path)
    except TimeoutError as error:
        raise SettingsError(f"ffmpeg made no video within {TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        unfinished.unlink(missing_ok=True)


def _args(seconds: int, mbps: float) -> list[str]:
    rate = f"{round(mbps * 1000)}k"
    picture = f"testsrc2=size={_SIZE}:rate={_FRAMES_PER_S}:duration={seconds}"
    args = ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", picture]
    args += ["-f", "lavfi", "-i", f"sine=frequency=440:beep_factor=4:sample_rate=48000:duration={seconds}"]
    args += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-threads", "1"]
    args += ["-g", str(_FRAMES_PER_S * _KEY_FRAME_INTERVAL_S)]
    # A constant rate: the test picture alone would not fill it.
    args += ["-b:v", rate, "-minrate", rate, "-maxrate", rate, "-bufsize", rate, "-x264-params", "nal-hrd=cbr"]
    args += ["-c:a", "aac", "-b:a", "128k", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]
    return [*args, "-movflags", "+faststart", "-f", "mp4"]
