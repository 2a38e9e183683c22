"""Answer on many TCP ports of all addresses: every line is sent back. Usage: listen.py PORT ..."""

# ruff: noqa: INP001 - a program of its own, copied to a host

import asyncio
import socket
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def main(ports: list[int]) -> None:
    for port in ports:
        await asyncio.start_server(
            echo, sock=socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        )
    await asyncio.get_running_loop().create_future()


asyncio.run(main([int(port) for port in sys.argv[1:]]))
