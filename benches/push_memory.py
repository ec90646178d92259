"""Memory of the daemon when it pushes what is large, or much, to a registry that throws away what it gets (sink.py).

The large layer is a file of zeros that takes no space. It is put into the daemon's store as it is, and a package that
expects it names it, so that nothing but the push has to read it.
"""

import os
import re
import shutil
import sys

import harness
import layouts
from harness import HERE, MB, Daemon, Failure, Images, Server

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Images of one package. Chosen: the command line that makes one has to fit.
IMAGES_OF_PACKAGE = 1000
# What is asked for.
ASKED_MIB = 64


class SinkServer(Server):
    """sink.py in a process of its own."""

    def __init__(self, folder):
        super().__init__([sys.executable, HERE / "sink.py"], folder / "sink.log")
        _, line = self.wait_for("listening on ")
        self.address = line.split()[-1]


def measure_memory(options):
    """Returns the section that the result belongs to, and the report."""
    started = harness.version_of(options.violetd), os.getloadavg()
    folder = options.work / "violetd"
    if options.large:
        section, what, how, store = "push, large", f"one layer of {options.large}", f" --large {options.large}", store_large
    else:
        section, what, how, store = "push, planned", f"{options.planned} images", f" --planned {options.planned}", store_many
    if options.write:
        harness.split_at_section(options.write, section)
    store(options, folder)
    options.rounds = 1
    rows = list(run_twice(options, folder, what))
    facts = harness.machine_facts(options, started, how)
    header = ["", "wall s", "MB/s", "CPU s", "at start MiB", "peak MiB (VmHWM)", "asked: below", "requests"]
    return section, harness.report_text(facts, header, rows)


def run_twice(options, folder, what):
    """Yields the row of a run that sends everything, and of one that finds everything there."""
    with SinkServer(options.work) as sink, Daemon(options.violetd, folder, sink.address) as daemon:
        at_start = daemon.peak()
        for state in ["cold", "warm"]:
            cpu = daemon.cpu()
            wall, said = daemon.sync()
            yield [
                f"{what}, {state}",
                f"{wall:.2f}",
                f"{said['bytes_sent'] / MB / wall:.0f}",
                f"{daemon.cpu() - cpu:.2f}",
                f"{at_start / (1 << 20):.1f}",
                f"{daemon.peak() / (1 << 20):.1f}",
                str(ASKED_MIB),
                str(said["requests"]),
            ]


def store_large(options, folder):
    """Gives the daemon's store one image with a large layer."""
    found = re.fullmatch(r"(\d+)([KMG]?)", options.large)
    if not found:
        raise Failure(f"expected a size such as 10G, found `{options.large}`")
    size = int(found[1]) * UNITS[found[2]]
    layout, digest = layouts.write_sparse(options.work / "layout", size)
    inventory = options.work / "known.inventory"
    inventory.write_text(f"violetd inventory 1\nsha256:{digest} {size}\n")
    package = Images(layout).package(options.violetd, options.work, base=inventory)
    with Daemon(options.violetd, folder):
        pass  # Makes the folders of the store.
    place = folder / "state" / "blobs" / "sha256" / digest[:2] / digest
    os.rename(layout / "blobs" / "sha256" / digest, place)
    if place.stat().st_blocks > 1024:
        raise Failure(f"expected a sparse file in {place}, found one of {place.stat().st_blocks} blocks")
    with Daemon(options.violetd, folder) as daemon:
        daemon.ingest(package)


def store_many(options, folder):
    """Gives the daemon's store many images, in packages."""
    for number in range(0, options.planned, IMAGES_OF_PACKAGE):
        print(f"making images from {number}", file=sys.stderr)
        layout = options.work / "layout"
        count = min(IMAGES_OF_PACKAGE, options.planned - number)
        layouts.write_many(layout, count, number)
        name = f"bench{number // IMAGES_OF_PACKAGE}"
        package = Images(layout).package(options.violetd, options.work, name)
        with Daemon(options.violetd, folder) as daemon:
            daemon.ingest(package)
        shutil.rmtree(layout)
