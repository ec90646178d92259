"""A proxy before a registry that is as far away as it is told to be.

Bytes arrive in order and late by half of the round trip, in each direction; the first bytes of a connection are late by a
whole one more, which is what opening a connection takes. Nothing else of a long way is there: no loss, no limit of
bandwidth, no slow start. What is under way on a connection has a bound, as it has in a network.
"""

import asyncio
import collections

from loop_thread import LoopThread

# How many bytes may be under way in one direction of a connection. Chosen: 20 ms at 6 Gbit/s.
UNDER_WAY_BYTES = 16 << 20


class DelayingProxy(LoopThread):
    """A running proxy before `upstream` (HOST:PORT), `round_trip` seconds away from its clients."""

    def __init__(self, upstream, round_trip):
        self.round_trip = round_trip
        super().__init__(upstream)

    def listen(self):
        return self.loop.create_server(lambda: _Client(self), "127.0.0.1", 0)


class _Line:
    """One direction of a connection: keeps bytes until they are due."""

    def __init__(self, loop, delay, source):
        self.loop, self.delay, self.source = loop, delay, source
        self.sink = None
        self.pieces, self.bytes = collections.deque(), 0
        self.timer = None
        self.not_before, self.is_blocked = 0, False

    def connect(self, sink):
        self.sink = sink
        self._deliver()

    def take(self, piece):
        """Takes bytes, or None for the end."""
        due = max(self.loop.time() + self.delay, self.not_before)
        self.pieces.append((due, piece))
        self.bytes += len(piece or b"")
        if self.bytes > UNDER_WAY_BYTES and not self.source.is_closing():
            self.source.pause_reading()
        if not self.timer:
            self._deliver()

    def block(self, is_blocked):
        """Holds back what is due, because the other end does not read, or goes on."""
        self.is_blocked = is_blocked
        if not self.timer:
            self._deliver()

    def _deliver(self):
        self.timer = None
        while self.sink and self.pieces and not self.is_blocked:
            due, piece = self.pieces[0]
            if due > self.loop.time():
                self.timer = self.loop.call_at(due, self._deliver)
                return
            self.pieces.popleft()
            if piece is None:
                self.sink.close()
                return
            self.bytes -= len(piece)
            self.sink.write(piece)
            if self.bytes <= UNDER_WAY_BYTES and not self.source.is_closing():
                self.source.resume_reading()


class _End(asyncio.Protocol):
    """One end of a connection: `outgoing` takes what comes from it, `incoming` writes to it."""

    outgoing = incoming = None

    def data_received(self, data):
        self.outgoing.take(data)

    def connection_lost(self, _):
        self.outgoing.take(None)

    def pause_writing(self):
        self.incoming.block(True)

    def resume_writing(self):
        self.incoming.block(False)


class _Client(_End):
    """The end that a client sees."""

    def __init__(self, proxy):
        self.proxy = proxy

    def connection_made(self, transport):
        loop, round_trip = self.proxy.loop, self.proxy.round_trip
        self.outgoing = _Line(loop, round_trip / 2, transport)
        self.outgoing.not_before = loop.time() + round_trip * 3 / 2
        self.opening = loop.create_task(self._open(loop, transport))

    async def _open(self, loop, transport):
        try:
            await loop.create_connection(lambda: _Server(self, transport), self.proxy.host, int(self.proxy.port))
        except OSError:
            transport.close()


class _Server(_End):
    """The end that the registry sees."""

    def __init__(self, client, to_client):
        self.client, self.to_client = client, to_client

    def connection_made(self, transport):
        proxy = self.client.proxy
        self.outgoing = self.client.incoming = _Line(proxy.loop, proxy.round_trip / 2, transport)
        self.incoming = self.client.outgoing
        self.outgoing.connect(self.to_client)
        self.incoming.connect(transport)
