"""What the benchmarks share: running and measuring programs, the servers, the input, the report.

Start from `ingest` or `push`, which say what is compared. Nothing but Python 3.9 and Linux is needed here.

Where the figures come from:

- Wall time is CLOCK_MONOTONIC, from the act that starts the work until its end is seen. The daemon's end is the arrival
  of a log line, so nothing polls it while it works.
- CPU time and bytes written of a command are its resource usage (wait4, children included); those of the daemon and of
  the registry are /proc/PID/stat and /proc/PID/io, before and after.
- Memory is the peak resident set of the largest process: VmHWM of the daemon, ru_maxrss of a command. A command cannot
  show less than the bare interpreter that it was forked from; such a figure is marked with `<`.
- Each figure is the median of all rounds by itself. Sides take turns within a round, so that both meet the same
  disturbances, and the file system is synced before each.
"""

import argparse
import datetime
import http.client
import json
import os
import pathlib
import platform
import queue
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import layouts

# How long anything may take that must happen. Chosen, not measured.
PATIENCE_SECONDS = 600

HERE = pathlib.Path(__file__).resolve().parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MB = 1_000_000

# The images that are built where no layout is given: each is the base layer and one layer of these Debian packages.
BASE_PACKAGES = "bash,coreutils,ca-certificates"
IMAGES = {"python": "python3", "nginx": "nginx-light", "git": "git,openssh-client", "perl": "perl,libwww-perl"}


class Failure(Exception):
    """A benchmark that cannot go on."""


class Usage:
    """What one piece of work took."""

    def __init__(self, **figures):
        self.figures = figures

    def __getitem__(self, name):
        return self.figures.get(name)


def median(usages, name):
    """Returns the median of one figure, or None where a round lacks it."""
    values = [usage[name] for usage in usages]
    return None if None in values or not values else statistics.median(values)


# Programs


def find_program(name, package):
    found = shutil.which(name)
    if not found:
        raise Failure(f"expected `{name}` on PATH; on Debian: apt-get install {package}")
    return found


def run(*command, **options):
    """Runs a command that is part of the preparation, and returns what it printed."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def measure(*command, **options):
    """Runs a command to be measured."""
    return Usage(**json.loads(run(sys.executable, "-I", "-S", HERE / "measure.py", *command, **options)))


class Server:
    """A child process that logs to standard error; its lines arrive with the time at which they did."""

    def __init__(self, command, log_path, environment=None):
        self.name = pathlib.Path(command[0]).name
        self.log_path = log_path
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with open(self.log_path, "ab") as log:
            for line in self.process.stderr:
                self.lines.put((time.monotonic(), line.decode(errors="replace")))
                log.write(line)
        self.lines.put((time.monotonic(), None))

    def wait_for(self, text):
        """Waits for a log line that contains `text`, and returns when it came and the line."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                at, line = self.lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failure(f"{self.name} did not say `{text}` in {PATIENCE_SECONDS} s, see {self.log_path}") from None
            if line is None:
                raise Failure(f"{self.name} ended before it said `{text}`, see {self.log_path}")
            if text in line:
                return at, line

    def cpu(self):
        """Returns the CPU time used so far, in seconds."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def written(self):
        """Returns the bytes so far that are bound for the disk."""
        return self._figure("io", "write_bytes")

    def peak(self):
        """Returns the largest resident set since `reset_peak`, in bytes."""
        return self._figure("status", "VmHWM") * 1024

    def reset_peak(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _figure(self, file, name):
        text = pathlib.Path(f"/proc/{self.process.pid}/{file}").read_text()
        return int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def unit_environment():
    """Returns the environment that the systemd unit gives to the daemon."""
    unit = HERE.parent / "systemd" / "violetd.service"
    return dict(re.findall(r"^Environment=(\w+)=(\S*)$", unit.read_text(), re.MULTILINE))


class Daemon(Server):
    """violetd, with one drop folder and one target, as the systemd unit starts it.

    Never runs by itself: only when it is asked to.
    """

    CONFIG = """\
state_dir = "{dir}/state"
admin.socket = "{dir}/admin.sock"
log.format = "json"

[[drop]]
path = "{dir}/drop"
policy = "none"
settle = "1ms"
after_ready = "keep"

[[target]]
name = "{target}"
packages = {packages}
role = "primary"
schedule = "0 0 1 1 *"
on_ready = false
catch_up = false

[target.registry]
address = "{registry}"
plain_http = true
no_auth = true
"""

    def __init__(self, binary, folder, registry="127.0.0.1:1", packages='["*"]', more="", target="bench"):
        (folder / "drop").mkdir(parents=True, exist_ok=True)
        config = folder / "violetd.toml"
        config.write_text(self.CONFIG.format(dir=folder, registry=registry, packages=packages, target=target) + more)
        self.folder, self.target = folder, target
        self.socket = folder / "admin.sock"
        super().__init__([binary, "serve", "--config", config], folder / "violetd.log", unit_environment())
        self.wait_for("daemon is ready")

    def ingest(self, package):
        """Drops a package by renaming it, and waits until it is ready."""
        staged = self.folder / package.name
        os.link(package, staged)
        cpu, written = self.cpu(), self.written()
        start = time.monotonic()
        staged.rename(self.folder / "drop" / package.name)
        end, line = self.wait_for("package is ready")
        usage = Usage(
            wall=end - start, cpu=self.cpu() - cpu, memory=self.peak(), written=self.written() - written
        )
        return usage, json.loads(line)

    def sync(self):
        """Asks for a run of the target and waits for its end. Returns its wall time and what the daemon says of it."""
        start = time.monotonic()
        connection = UnixConnection(self.socket)
        connection.request("POST", f"/v1/targets/{self.target}/sync")
        answer = connection.getresponse()
        if answer.status >= 300:
            raise Failure(f"violetd answered {answer.status} to a sync: {answer.read().decode()}")
        answer.read()
        connection.close()
        end, line = self.wait_for("run ends")
        said = json.loads(line)
        if said["outcome"] != "in_sync":
            raise Failure(f"the run was no success, see {self.log_path}: {line}")
        return end - start, said


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Registry(Server):
    """docker-registry with empty storage, without TLS and login, at a port that was free."""

    CONFIG = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {dir}/storage}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}
http: {{addr: "127.0.0.1:0"}}
"""

    def __init__(self, binary, folder):
        folder.mkdir()
        config = folder / "registry.yml"
        config.write_text(self.CONFIG.format(dir=folder))
        super().__init__([binary, "serve", config], folder / "registry.log")
        _, line = self.wait_for("listening on ")
        self.address = re.search(r"listening on ([0-9.:]+)", line)[1]

    def digest_of(self, repository, tag):
        connection = http.client.HTTPConnection(self.address)
        connection.request("HEAD", f"/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST_TYPES})
        answer = connection.getresponse()
        connection.close()
        return answer.headers["Docker-Content-Digest"]


MANIFEST_TYPES = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


# Input


class Images:
    """The images of an OCI layout, and where they go: bench/NAME, by one tag or another."""

    def __init__(self, layout, tags=None):
        self.layout = layout
        index = json.loads((layout / "index.json").read_text())
        self.digests = {entry["annotations"][layouts.NAME]: entry["digest"] for entry in index["manifests"]}
        for name in self.digests:
            if not re.fullmatch(r"[a-z0-9]+([._-][a-z0-9]+)*", name):
                raise Failure(f"expected images named by lower-case letters and digits, found `{name}` in {layout}")
        self.tags = tags or {}
        blobs = [entry.stat().st_size for entry in (layout / "blobs" / "sha256").iterdir()]
        self.blob_count, self.bytes = len(blobs), sum(blobs)

    def places(self):
        """Returns where each image goes: its repository and tag, by name."""
        return {name: (f"bench/{name}", self.tags.get(name, "v1")) for name in self.digests}

    def check(self, registry):
        """Fails unless the registry holds every image, to the byte."""
        for name, (repository, tag) in self.places().items():
            found = registry.digest_of(repository, tag)
            if found != self.digests[name]:
                raise Failure(f"expected {repository}:{tag} to be {self.digests[name]}, found {found}")

    def package(self, violetd, work, name="bench", base=None):
        """Makes a package of all images, without the blobs that are in the inventory `base`."""
        sources = []
        for image, (repository, tag) in self.places().items():
            sources += ["--image", f"registry.example/{repository}:{tag}=oci:{self.layout}:{image}"]
        run(violetd, "create", work / name, "--package-version", "v1", "--type", "images", *sources)
        path = work / f"{name}.tgz"
        run(violetd, "package", work / name, "--output", path, *(["--base", base] if base else []))
        return path


def build_layout(work):
    """Builds images that share a base layer, out of Debian packages."""
    find_program("mmdebstrap", "mmdebstrap")
    find_program("umoci", "umoci")
    layout = work / "layout"

    def layer(name, packages):
        tar = work / f"{name}.tar"
        run("mmdebstrap", "--quiet", "--variant=extract", f"--include={packages}", "bookworm", tar)
        return tar

    base = layer("base", BASE_PACKAGES)
    run("umoci", "init", "--layout", layout)
    for name, packages in IMAGES.items():
        run("umoci", "new", "--image", f"{layout}:{name}")
        run("umoci", "raw", "add-layer", "--image", f"{layout}:{name}", base)
        run("umoci", "raw", "add-layer", "--image", f"{layout}:{name}", layer(name, packages))
    run("umoci", "gc", "--layout", layout)
    return layout


def layout_of(options):
    """Returns the images to work on: those that were given, random ones, or ones out of Debian packages."""
    if options.layout:
        return options.layout.resolve()
    if options.random:
        return layouts.write_random(options.work / "layout", max(1, round(options.random)))
    return build_layout(options.work)


# Report


def parser_of(description):
    """Returns the options that all benchmarks of images have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    binary = os.environ.get("VIOLETD", target / "release" / "violetd")
    parser.add_argument("--violetd", default=binary, type=pathlib.Path, help="the program; also VIOLETD (default: %(default)s)")
    parser.add_argument("--layout", type=pathlib.Path, help="OCI layout with named images; otherwise built by mmdebstrap")
    parser.add_argument("--random", type=float, metavar="GB", help="random images of so many gigabytes instead")
    parser.add_argument("--rounds", default=5, type=int, help="how often each side runs (default: %(default)s)")
    parser.add_argument("--work", type=pathlib.Path, help="where to work: the disk that is measured (default: TMPDIR)")
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE", help="put the result into this Markdown file")
    return parser


def report_text(facts, header, rows):
    """Returns the report in Markdown."""
    return "".join(f"- {fact}\n" for fact in facts) + "\n" + table_text(header, rows)


def table_text(header, rows):
    """Returns a table in Markdown."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []

    def line(cells):
        first, *rest = [cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(cells, widths))]
        return "| " + " | ".join([first, *rest]) + " |"

    lines.append(line(header))
    lines.append("|" + "|".join("-" * (width + 2) if at == 0 else "-" * (width + 1) + ":" for at, width in enumerate(widths)) + "|")
    lines += [line(row) for row in rows]
    return "\n".join(lines) + "\n"


def write_section(path, name, text):
    """Replaces what stands between the marks of a section, and nothing else."""
    before, _, after = split_at_section(path, name)
    path.write_text(f"{before}\n{text}\n{after}")


def split_at_section(path, name):
    """Returns a document up to the mark at which a section begins, the section, and the rest from the mark at its end.

    To be called before anything is measured: hours of work should not end with a mark that is missing.
    """
    document = path.read_text()
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found_begin, rest = document.partition(begin)
    section, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise Failure(f"expected the marks `{begin.strip()}` and `{end}` in {path}")
    return before + begin, section, end + after


def seconds(usages, name="wall"):
    """Returns a median with the range, in seconds."""
    values = [usage[name] for usage in usages]
    digits = 3 if statistics.median(values) < 0.1 else 2
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def number(value, digits=2):
    if value is None:
        return "-"
    return f"{value:.{3 if digits == 2 and value < 0.1 else digits}f}"


def megabytes(value):
    return number(value if value is None else value / MB, 1 if value is not None and value < 10 * MB else 0)


def memory(usages):
    """Returns a median of memory, or the least that could be measured where it is less."""
    value, floor = median(usages, "memory"), median(usages, "floor") or 0
    return f"< {megabytes(floor)}" if value <= floor else megabytes(value)


def version_of(violetd):
    """Returns the version, with the beginning of a digest that tells builds of one version apart."""
    digest = run("sha256sum", violetd)[:12]
    return f"{run(violetd, '--version').strip()} (binary {digest})"


def machine_facts(options, started, how="", programs=()):
    """Says on what, with what and when it was measured."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    model = cpu[1] if cpu else platform.machine()
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    kind = run("df", "--output=fstype", options.work).split()[-1]
    version, load_before = started
    versions = [version]
    versions += [run(*command).splitlines()[0].strip() for command in programs]
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return [
        f"{today}, `benches/{pathlib.Path(sys.argv[0]).name}{how}`, median of {options.rounds}",
        f"{os.cpu_count()} cores {model}, {ram:.0f} GiB, Linux {platform.release()}, {kind};"
        f" load average {load_before[0]:.1f} before, {os.getloadavg()[0]:.1f} after",
        "; ".join(versions),
    ]


def facts(options, images, programs, started):
    """Says, besides, what the input was."""
    how = " --layout DIR" if options.layout else f" --random {options.random:g}" if options.random else ""
    said = machine_facts(options, started, how, programs)
    return [*said, f"{len(images.digests)} images, {images.blob_count} blobs, {images.bytes / MB:.0f} MB"]


def main(name, description, bench):
    """Runs one benchmark: `bench(options, images)` returns programs to name, header and rows."""
    options = parser_of(description).parse_args()
    try:
        if not os.access(options.violetd, os.X_OK):
            raise Failure(f"expected violetd at {options.violetd}; cargo build --release, or set VIOLETD")
        options.violetd = options.violetd.resolve()
        started = version_of(options.violetd), os.getloadavg()
        with tempfile.TemporaryDirectory(prefix="violetd-bench.", dir=options.work) as work:
            options.work = pathlib.Path(work)
            images = Images(layout_of(options))
            programs, header, rows = bench(options, images)
            text = report_text(facts(options, images, programs, started), header, rows)
        print(text, end="")
        if options.write:
            write_section(options.write, f"{name}, random" if options.random else name, text)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0
