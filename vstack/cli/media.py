"""`vstack media-job`: what systemd starts for every connection to vstack-media.socket."""

import argparse
import sys

from vstack.uploader.sandbox import job


def run(options: argparse.Namespace) -> int:
    """Serve the one request on standard input, a connected socket."""
    return job.main(sys.stdin.fileno(), {"ffmpeg": options.ffmpeg, "ffprobe": options.ffprobe})
