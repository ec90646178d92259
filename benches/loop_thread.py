"""A server on loopback whose event loop runs in a thread of its own."""

import asyncio
import threading


class LoopThread:
    """A server in front of `upstream` (HOST:PORT), at a port that was free. Subclasses have `listen`, which starts it."""

    def __init__(self, upstream):
        self.host, _, self.port = upstream.rpartition(":")
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=[started], daemon=True)
        self.thread.start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(self.listen())
        self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
