"""A job's pipes are closed once: a descriptor that is closed twice may be another thread's file the second time."""

import subprocess
import sys

PIPES = 2000
SCRIPT = f"""
import asyncio, os, threading, uvloop
from vstack.uploader.sandbox.running import _pipe

done, errors = threading.Event(), []

def open_and_close():
    while not done.is_set():
        try:
            descriptor = os.open("/dev/null", os.O_RDONLY)
            os.fstat(descriptor)
            os.close(descriptor)
        except OSError as error:
            errors.append(error)

async def main():
    for _ in range({PIPES}):
        async with _pipe() as (reader, end):
            end.close()
        await asyncio.sleep(0)

threads = [threading.Thread(target=open_and_close) for _ in range(3)]
for thread in threads:
    thread.start()
try:
    uvloop.run(main())
finally:
    done.set()
    for thread in threads:
        thread.join()
assert not errors, errors[:3]
"""


def test_pipes_leave_the_descriptors_of_other_threads_alone() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
