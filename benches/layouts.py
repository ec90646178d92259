"""OCI layouts that the benchmarks make themselves: from a seed, so that every machine has the same bytes.

Start from `Layout`, which writes one; the functions below it make those of a benchmark.

Every layer is a tar file of one entry that looks random, inside of gzip that stores instead of compressing: nothing on
the way can make it smaller, and tools that compress what is not compressed leave it alone.
"""

import gzip
import hashlib
import io
import json
import os
import random
import tarfile

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME = "org.opencontainers.image.ref.name"

MIB = 1 << 20
# The set by which pushers were compared when the goals were set: see docs/benchmarks.md.
FOUR_LAYER_BYTES = 32 * MIB
# The layer of a tiny image. Chosen: the number of requests matters, not their bytes.
TINY_LAYER_BYTES = 1 << 10
# What is new in a second version, by bytes and by images: one part in twenty.
CHANGED_PARTS = 20


class Layout:
    """An OCI layout that is being written into a new folder."""

    def __init__(self, folder):
        self.folder, self.entries = folder, []
        self.blobs = folder / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)

    def put(self, content, media_type):
        """Writes a blob and returns the pointer to it."""
        digest = hashlib.sha256(content).hexdigest()
        (self.blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def put_json(self, document, media_type):
        return self.put(json.dumps(document).encode(), media_type)

    def layer(self, seed, size):
        """Writes a layer with one file of so many bytes. Returns the pointer to it, and its digest before compression."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            entry = tarfile.TarInfo(f"data/{seed}")
            entry.size = size
            archive.addfile(entry, io.BytesIO(random.Random(seed).randbytes(size)))
        diff_id = hashlib.sha256(tar.getbuffer()).hexdigest()
        return self.put(gzip.compress(tar.getbuffer(), 0, mtime=0), LAYER_TYPE), f"sha256:{diff_id}"

    def image(self, name, layers):
        """Writes an image for one platform of what `layer` has returned."""
        diff_ids = [diff_id for _, diff_id in layers]
        config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        config = self.put_json(config, CONFIG_TYPE)
        layers = [layer for layer, _ in layers]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
        self.add(name, self.put_json(manifest, MANIFEST_TYPE))

    def add(self, name, descriptor):
        """Names an image of which all blobs are there."""
        self.entries.append({**descriptor, "annotations": {NAME: name}})

    def finish(self):
        """Makes the folder a layout, and returns it."""
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return self.folder


def write_four(folder):
    """Makes four images, each of two layers that all share and of two of its own."""
    layout = Layout(folder)
    shared = [layout.layer(f"shared-{at}", FOUR_LAYER_BYTES) for at in range(2)]
    for image in range(4):
        own = [layout.layer(f"own-{image}-{at}", FOUR_LAYER_BYTES) for at in range(2)]
        layout.image(f"image{image}", shared + own)
    return layout.finish()


def write_many(folder, images, first=0):
    """Makes images of one layer, which no other image has. `first` is the number of the first."""
    layout = Layout(folder)
    for image in range(first, first + images):
        layout.image(f"tiny{image:05}", [layout.layer(f"tiny-{image}", TINY_LAYER_BYTES)])
    return layout.finish()


def write_random(folder, images):
    """Makes images of four layers of 256 MB, which no other image has."""
    layout = Layout(folder)
    for image in range(images):
        layout.image(f"random{image}", [layout.layer(f"random-{image}-{at}", 256_000_000) for at in range(4)])
    return layout.finish()


def write_sparse(folder, size):
    """Makes an image of one layer of zeros that takes no space on the disk. Returns the layout and the layer's digest."""
    layout = Layout(folder)
    path = folder / "layer"
    with open(path, "wb") as file:
        file.truncate(size)
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(MIB):
            hasher.update(piece)
    digest = hasher.hexdigest()
    os.rename(path, layout.blobs / digest)
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{digest}", "size": size}
    layout.image("sparse", [(layer, f"sha256:{digest}")])
    return layout.finish(), digest


def write_second_version(first, folder):
    """Makes a layout in which one image in twenty, at least one, has one more layer: together a twentieth of the bytes.

    Returns the layout and the names of the images that differ.
    """
    layout = Layout(folder)
    total = 0
    for blob in (first / "blobs" / "sha256").iterdir():
        # A layout that was given may be on another file system.
        os.symlink(blob.resolve(), layout.blobs / blob.name)
        total += blob.stat().st_size
    entries = json.loads((first / "index.json").read_text())["manifests"]
    count = max(1, round(len(entries) / CHANGED_PARTS))
    changed = [entry["annotations"][NAME] for entry in entries[:count]]
    for position, entry in enumerate(entries):
        name = entry["annotations"][NAME]
        if name in changed:
            layer = layout.layer(f"second-{position}", total // CHANGED_PARTS // count)
            entry = _with_layer(layout, entry, layer)
        layout.add(name, entry)
    return layout.finish(), changed


def _with_layer(layout, descriptor, layer):
    """Returns the pointer to an image, or to an index of images, with one layer more."""
    document = json.loads((layout.blobs / descriptor["digest"].partition(":")[2]).read_text())
    if "manifests" in document:
        document["manifests"] = [_with_layer(layout, child, layer) for child in document["manifests"]]
    else:
        config = json.loads((layout.blobs / document["config"]["digest"].partition(":")[2]).read_text())
        config["rootfs"]["diff_ids"].append(layer[1])
        if "history" in config:
            config["history"].append({"created_by": "second version"})
        document["config"] = layout.put_json(config, document["config"]["mediaType"])
        document["layers"].append({**layer[0], "mediaType": _layer_type(document)})
    return {**descriptor, **layout.put_json(document, descriptor["mediaType"])}


def _layer_type(manifest):
    """Returns the media type of a gzipped layer among the others of an image."""
    types = [layer["mediaType"] for layer in manifest["layers"] if layer["mediaType"].endswith("gzip")]
    return types[0] if types else LAYER_TYPE
