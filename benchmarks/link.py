"""A slow link: forwards TCP to a server at a given rate and with a given delay, and counts bytes.

``python -m benchmarks.link HOST PORT --rate 200e6 --delay 0.01`` runs one in a process of its own,
so that it takes no time from the interpreter that is measured. All connections through it share
the link, as all connections of a machine share its network.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_ROOT = Path(__file__).parent.parent
_CHUNK = 32 << 10
_MOST_UNDER_WAY = 256
"""Chunks of one connection: more than the rate times the delay."""

_AHEAD_SECONDS = 0.05
"""How much a sender may have under way: what the buffers of a router hold."""


@dataclass(frozen=True)
class Carried:
    """Bytes that went over a link since it was made: of TCP's payload, without headers."""

    to_server: int
    to_client: int

    @property
    def both(self) -> int:
        return self.to_server + self.to_client


@dataclass(frozen=True)
class Link:
    """A running forwarder."""

    port: int
    _control: int

    def carried(self) -> Carried:
        """What it has carried by now."""
        with socket.create_connection(("127.0.0.1", self._control)) as asked:
            told = json.loads(asked.makefile().read())
        return Carried(told["to_server"], told["to_client"])

    def uri(self, uri: str) -> str:
        """The URI of the same database through the link."""
        parts = urlsplit(uri)
        login = parts.netloc.rpartition("@")[0]
        host = f"127.0.0.1:{self.port}"
        return urlunsplit(parts._replace(netloc=f"{login}@{host}" if login else host))


@contextmanager
def link(host: str, port: int, rate: float | None, delay: float) -> Iterator[Link]:
    """A forwarder to ``host``:``port``.

    :param rate: bits a second each way; None: as fast as it goes.
    :param delay: seconds each way.
    """
    command = [sys.executable, "-m", "benchmarks.link", host, str(port), "--delay", str(delay)]
    command += ["--rate", str(rate)] if rate is not None else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Link(told["port"], told["control"])
        finally:
            process.terminate()


@dataclass
class _Way:
    """One direction of the link, for all connections."""

    bytes_per_second: float | None
    delay: float
    carried: int = 0
    _free: float = 0.0

    def arrival(self, size: int, now: float) -> float:
        """When ``size`` more bytes will have arrived at the other end."""
        self.carried += size
        if self.bytes_per_second is None:
            return now + self.delay
        self._free = max(now, self._free) + size / self.bytes_per_second
        return self._free + self.delay

    def backlog(self, now: float) -> float:
        """Seconds until what was sent has left."""
        return self._free - now


@dataclass
class _Forwarder:
    host: str
    port: int
    up: _Way
    down: _Way
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs = await asyncio.open_connection(self.host, self.port)
        for stream in (writer, theirs[1]):
            stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(
            self._carry(reader, theirs[1], self.up), self._carry(theirs[0], writer, self.down)
        )

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way
    ) -> None:
        # Bounded, so that a receiver that reads slowly is felt by the sender.
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_UNDER_WAY)
        delivering = asyncio.ensure_future(self._deliver(under_way, writer))
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await under_way.put((way.arrival(len(data), clock()), data))
                if (ahead := way.backlog(clock()) - _AHEAD_SECONDS) > 0:
                    await asyncio.sleep(ahead)
        await under_way.put((clock() + way.delay, b""))
        await delivering

    @staticmethod
    async def _deliver(
        under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            when, data = await under_way.get()
            if (early := when - clock()) > 0:
                await asyncio.sleep(early)
            if not data:
                break
            # A receiver that has gone is sent no more, but its queue has to empty itself.
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = {"to_server": self.up.carried, "to_client": self.down.carried}
        writer.write(json.dumps(told).encode())
        await writer.drain()
        writer.close()


async def _serve(host: str, port: int, rate: float | None, delay: float) -> None:
    per_second = rate / 8 if rate is not None else None
    forwarder = _Forwarder(host, port, _Way(per_second, delay), _Way(per_second, delay))
    server = await asyncio.start_server(forwarder.accept, "127.0.0.1", 0)
    control = await asyncio.start_server(forwarder.tell, "127.0.0.1", 0)
    ports = [s.sockets[0].getsockname()[1] for s in (server, control)]
    print(json.dumps({"port": ports[0], "control": ports[1]}), flush=True)
    async with server, control:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.link", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, help="bits a second each way")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds each way")
    wanted = parser.parse_args()
    asyncio.run(_serve(wanted.host, wanted.port, wanted.rate, wanted.delay))


if __name__ == "__main__":
    main()
