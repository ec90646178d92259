"""A registry that keeps digests and throws bytes away: for more data than a disk has room for.

    python3 benches/sink.py        prints `listening on HOST:PORT`

It is as strict as one that keeps what it gets: a blob counts only if its bytes have the digest that the request names, a
chunk only if it begins where the last one ended, a manifest only if all that it names is there. It has one store for all
repositories, mounts whatever it holds, and cannot go on with a chunk that was cut.
"""

import hashlib
import http.server
import json
import re
import sys
import threading
import urllib.parse
import uuid

PIECE_BYTES = 1 << 20
UPLOADS = re.compile(r"/v2/(.+)/blobs/uploads/([0-9a-f-]*)$")
BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})$")
MANIFEST = re.compile(r"/v2/(.+)/manifests/([^/]+)$")


class Upload:
    """What has come of one blob."""

    def __init__(self):
        self.hash, self.size = hashlib.sha256(), 0


class Sink(http.server.BaseHTTPRequestHandler):
    """One connection. What is known is shared by all of them; each change is one step for the interpreter."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = PIECE_BYTES
    uploads, blobs, manifests = {}, {}, {}

    def do_HEAD(self):
        path = urllib.parse.urlsplit(self.path).path
        if found := BLOB.match(path):
            size = self.blobs.get(found[2])
            self.answer(404 if size is None else 200, length=size)
        elif found := MANIFEST.match(path):
            manifest = self.manifests.get(self.key(found))
            if manifest is None:
                return self.answer(404)
            digest, media_type, size = manifest
            self.answer(200, {"Docker-Content-Digest": digest, "Content-Type": media_type}, size)
        else:
            self.answer(404)

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        found = UPLOADS.match(path)
        upload = found and self.uploads.get(found[2])
        if upload:
            self.answer(204, {"Range": f"0-{max(0, upload.size - 1)}", "Location": path})
        else:
            self.answer(200 if path == "/v2/" else 404)

    def do_POST(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        found = UPLOADS.match(url.path)
        self.drain()
        if not found:
            return self.answer(404)
        digest = query.get("mount", [""])[0]
        if digest in self.blobs:
            return self.answer(201, {"Location": f"/v2/{found[1]}/blobs/{digest}", "Docker-Content-Digest": digest})
        name = str(uuid.uuid4())
        self.uploads[name] = Upload()
        self.answer(202, {"Location": f"/v2/{found[1]}/blobs/uploads/{name}", "Range": "0-0", "Docker-Upload-UUID": name})

    def do_PATCH(self):
        path = urllib.parse.urlsplit(self.path).path
        found = UPLOADS.match(path)
        upload = found and self.uploads.get(found[2])
        if not upload:
            return self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
        asked = re.match(r"(?:bytes )?(\d+)-", self.headers.get("Content-Range", f"{upload.size}-"))
        if not asked or int(asked[1]) != upload.size:
            return self.refuse(416, "BLOB_UPLOAD_INVALID")
        if self.headers.get("Content-Type") != "application/octet-stream":
            return self.refuse(500, "UNKNOWN")
        if not self.take(found[2], upload):
            return
        self.answer(202, {"Location": path, "Range": f"0-{upload.size - 1}", "Docker-Upload-UUID": found[2]})

    def do_PUT(self):
        url = urllib.parse.urlsplit(self.path)
        if found := UPLOADS.match(url.path):
            self.put_blob(found, urllib.parse.parse_qs(url.query).get("digest", [""])[0])
        elif found := MANIFEST.match(url.path):
            self.put_manifest(found)
        else:
            self.refuse(404, "UNSUPPORTED")

    def do_DELETE(self):
        found = UPLOADS.match(urllib.parse.urlsplit(self.path).path)
        gone = self.uploads.pop(found[2], None) if found else None
        self.answer(204 if gone else 404)

    def put_blob(self, found, digest):
        upload = self.uploads.get(found[2])
        if not upload:
            return self.refuse(404, "BLOB_UPLOAD_UNKNOWN")
        if not self.take(found[2], upload):
            return
        self.uploads.pop(found[2], None)
        if f"sha256:{upload.hash.hexdigest()}" != digest:
            return self.refuse(400, "DIGEST_INVALID")
        self.blobs[digest] = upload.size
        self.answer(201, {"Location": f"/v2/{found[1]}/blobs/{digest}", "Docker-Content-Digest": digest})

    def put_manifest(self, found):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        document = json.loads(content)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        parts = [document["config"], *document["layers"]] if "config" in document else []
        children = document.get("manifests", [])
        is_whole = all(part["digest"] in self.blobs for part in parts)
        if not is_whole or not all((found[1], child["digest"]) in self.manifests for child in children):
            return self.refuse(400, "MANIFEST_BLOB_UNKNOWN")
        known = digest, self.headers["Content-Type"], len(content)
        self.manifests[self.key(found)] = self.manifests[found[1], digest] = known
        self.answer(201, {"Location": f"/v2/{found[1]}/manifests/{digest}", "Docker-Content-Digest": digest})

    def key(self, found):
        return found[1], urllib.parse.unquote(found[2])

    def pieces(self):
        """Yields the body."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while left := int(self.rfile.readline().split(b";")[0], 16):
                while left and (piece := self.rfile.read(min(left, PIECE_BYTES))):
                    left -= len(piece)
                    yield piece
                if left:
                    raise ConnectionError
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read1(min(left, PIECE_BYTES))
            if not piece:
                raise ConnectionError
            left -= len(piece)
            yield piece

    def take(self, name, upload):
        """Adds the body to an upload; one that is cut ends the upload. Returns whether it is whole."""
        try:
            for piece in self.pieces():
                upload.hash.update(piece)
                upload.size += len(piece)
        except OSError:
            self.uploads.pop(name, None)
            self.close_connection = True
            return False
        return True

    def drain(self):
        for _ in self.pieces():
            pass

    def refuse(self, status, code):
        # What is left of the body would be taken for the next request.
        self.close_connection = True
        self.answer(status, {"Connection": "close"}, body=json.dumps({"errors": [{"code": code}]}).encode())

    def answer(self, status, headers=(), length=None, body=b""):
        self.send_response_only(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass  # The client has gone.


def main():
    http.server.ThreadingHTTPServer.request_queue_size = 128
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    print("listening on %s:%d" % server.server_address, file=sys.stderr, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
