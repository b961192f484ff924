"""A network link that can be made to fail: a proxy between the product and a server.

A process of its own (`python -m tests.faults.link HOST TARGET`), so that it carries the load
without slowing the harness down.  It prints the port that it listens on, then takes commands on
stdin: `flow`, `stall` (nothing comes through, nothing is closed: a cut cable), `refuse` (all
connections closed, new ones too), `delay SECONDS` (each piece of data comes later).
"""

import asyncio
import contextlib
import os
import sys

PIECE = 65536


class Link:
    """One proxy: every connection to it is one to the target."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.refusing = False
        self.delay_s = 0.0
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either end closes it."""
        if self.refusing:
            writer.transport.abort()
            return
        await self.flowing.wait()
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        self.writers |= {writer, far_writer}
        ways = [self._carry(reader, far_writer), self._carry(far_reader, writer)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        self.writers -= {writer, far_writer}
        for end in (writer, far_writer):
            end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.target.startswith("/"):
            return await asyncio.open_unix_connection(self.target)
        host, port = self.target.rsplit(":", 1)
        return await asyncio.open_connection(host, int(port))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                await self.flowing.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()

    def obey(self, command: str, *words: str) -> None:
        """Do what a line on stdin says."""
        self.delay_s = float(words[0]) if command == "delay" else 0.0
        self.refusing = command == "refuse"
        if command == "stall":
            self.flowing.clear()
        else:
            self.flowing.set()
        if self.refusing:
            for writer in self.writers:
                writer.transport.abort()


async def main(host: str, target: str) -> None:
    """Serve until stdin ends."""
    link = Link(target)
    server = await asyncio.start_server(link.serve, host, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    while line := await commands.readline():
        link.obey(*line.decode().split())
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
