"""A proxy before a registry that counts requests and the bytes of their bodies.

It passes plain HTTP/1.1 on as it comes, `Host` included, so that the registry behind names itself by the proxy's address.
"""

import asyncio
import collections

from loop_thread import LoopThread

# How much is read at a time.
PIECE_BYTES = 256 << 10
# The first byte of a TLS connection (RFC 8446, section 5.1).
TLS_HANDSHAKE = b"\x16"


class CountingProxy(LoopThread):
    """A running proxy before `upstream` (HOST:PORT)."""

    def __init__(self, upstream):
        self.requests = collections.Counter()
        self.bytes_sent = 0
        super().__init__(upstream)

    def listen(self):
        return asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)

    def take(self):
        """Returns the number of requests and the bytes sent since the last call."""
        taken = sum(self.requests.values()), self.bytes_sent
        self.requests.clear()
        self.bytes_sent = 0
        return taken

    async def _serve(self, client, to_client):
        server, to_server = await asyncio.open_connection(self.host, int(self.port))
        answers = asyncio.ensure_future(self._pass_on(server, to_client))
        try:
            while first := await client.read(1):
                if first == TLS_HANDSHAKE:
                    return  # skopeo tries TLS first, and waits for an answer
                head = first + await client.readuntil(b"\r\n\r\n")
                self.requests[head.split(b" ", 1)[0].decode()] += 1
                to_server.write(head)
                await self._pass_body(head, client, to_server)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client has closed the connection.
        finally:
            to_server.close()
            answers.cancel()
            to_client.close()

    async def _pass_body(self, head, client, to_server):
        headers = dict(
            (name.strip().lower(), value.strip())
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        )
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            size = None
            while size != 0:
                line = await client.readuntil(b"\r\n")
                size = int(line.split(b";")[0], 16)
                to_server.write(line)
                await self._pass_bytes(size, client, to_server)
                to_server.write(await client.readuntil(b"\r\n"))
        else:
            await self._pass_bytes(int(headers.get(b"content-length", 0)), client, to_server)

    async def _pass_bytes(self, left, client, to_server):
        while left > 0:
            piece = await client.read(min(left, PIECE_BYTES))
            if not piece:
                raise asyncio.IncompleteReadError(piece, left)
            left -= len(piece)
            self.bytes_sent += len(piece)
            to_server.write(piece)
            await to_server.drain()

    async def _pass_on(self, server, to_client):
        try:
            while piece := await server.read(PIECE_BYTES):
                to_client.write(piece)
                await to_client.drain()
        except ConnectionError:
            pass  # The client has closed the connection.
        to_client.close()
