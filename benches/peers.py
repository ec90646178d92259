"""Who pushes: violetd in its two ways, and every other tool that is on PATH.

Start from `find_sides`. A side opens a `session` with an empty registry and then pushes images, the same or others, as
often as it is told to; what it knows between two pushes is its own business and ends with the session.

The tools run with their defaults. Those that take one image at a time get them one after the other; those that take a
list get the list. All read the same OCI layout, except ocync, which copies only between registries: a second registry
holds the images for it, and its wall time includes what that one takes.
"""

import contextlib
import itertools
import json
import os
import shlex
import shutil
import subprocess

import layouts
from harness import Daemon, Failure, Registry, Usage, find_program, measure, run

# How many runs without work of the daemon are measured together: one takes less CPU time than the kernel's tick.
RUNS_WARM = 10


class Session:
    """A side before one registry."""

    def __init__(self, push, prepare=lambda images: None, push_warm=None):
        self.push, self.prepare, self.push_warm = push, prepare, push_warm or push


class Violetd:
    """The daemon, with the packages in its store: from the request for a run until the log says that it has ended."""

    name = "violetd"
    takes_lists = True
    version = None

    def __init__(self, options, inputs):
        self.binary, self.folder = options.violetd, options.work / "violetd"
        self.names = {images: f"bench{position}" for position, images in enumerate(inputs)}
        # Each session is one with a target that the daemon has never seen.
        self.targets = (f"bench-{number}" for number in itertools.count())
        with Daemon(self.binary, self.folder) as daemon:
            for images, name in self.names.items():
                daemon.ingest(images.package(options.violetd, options.work, name))

    @contextlib.contextmanager
    def session(self, address):
        target, running = next(self.targets), {}
        with contextlib.ExitStack() as stack:

            def prepare(images):
                """Lets the target have the packages up to this one."""
                stack.close()
                known = list(self.names.values())
                known = known[: known.index(self.names[images]) + 1]
                daemon = Daemon(self.binary, self.folder, address, json.dumps(known), target=target)
                running["daemon"] = stack.enter_context(daemon)

            def push(runs):
                daemon = running["daemon"]
                daemon.reset_peak()
                cpu = daemon.cpu()
                wall = sum(daemon.sync()[0] for _ in range(runs))
                return Usage(wall=wall / runs, cpu=(daemon.cpu() - cpu) / runs, memory=daemon.peak(), runs=runs)

            yield Session(lambda images: push(1), prepare, lambda images: push(RUNS_WARM))


class VioletdPush:
    """`violetd push` of the layout, without a daemon. What it knows between two pushes is in the user's cache."""

    name = "violetd push"
    takes_lists = True
    version = None

    def __init__(self, options, inputs):
        self.binary, self.work = options.violetd, options.work
        self.layouts = {images: _placed(images, options.work / f"placed{position}") for position, images in enumerate(inputs)}

    @contextlib.contextmanager
    def session(self, address):
        cache = self.work / "cache"
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}

        def push(images):
            command = [self.binary, "push", self.layouts[images], "--dest-repo", address, "--no-auth", "--plain", "--skip-crs"]
            return measure(*command, env=environment)

        try:
            yield Session(push)
        finally:
            shutil.rmtree(cache, ignore_errors=True)


class Tool:
    """A tool on PATH. `commands` says what pushes images to an address; `folder` is its own until the session ends."""

    name, package, version, takes_lists = "", "", ["--version"], False

    def __init__(self, options, inputs):
        self.options, self.inputs = options, inputs

    def commands(self, images, address, folder):
        raise NotImplementedError

    @contextlib.contextmanager
    def session(self, address):
        folder = self.options.work / "tool"
        folder.mkdir()
        # What the user has configured for the tool is none of our business, credentials least of all.
        home = {name: str(folder) for name in ["HOME", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"]}

        def push(images):
            script = folder / "push.sh"
            commands = self.commands(images, address, folder)
            script.write_text("".join(shlex.join(map(str, command)) + "\n" for command in commands))
            return measure("sh", "-eu", script, env={**os.environ, **home})

        try:
            yield Session(push)
        finally:
            shutil.rmtree(folder)


class Skopeo(Tool):
    """`skopeo copy --all`."""

    name, package = "skopeo", "skopeo"

    def commands(self, images, address, folder):
        for name, (repository, tag) in images.places().items():
            yield [
                *["skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"],
                *[f"oci:{images.layout}:{name}", f"docker://{address}/{repository}:{tag}"],
            ]


class SkopeoSync(Tool):
    """`skopeo sync` of a folder with one folder of files for each image, which is the one local form that it takes."""

    name, package, program, takes_lists = "skopeo sync", "skopeo", "skopeo", True

    def __init__(self, options, inputs):
        super().__init__(options, inputs)
        self.folders = {}
        for position, images in enumerate(inputs):
            self.folders[images] = options.work / f"dirs{position}"
            self.folders[images].mkdir()
            for name, (_, tag) in images.places().items():
                _write_dir_image(images, name, self.folders[images] / f"{name}:{tag}")

    def commands(self, images, address, folder):
        yield [
            *["skopeo", "--insecure-policy", "sync", "--all", "--src", "dir", "--dest", "docker"],
            *["--dest-tls-verify=false", self.folders[images], f"{address}/bench"],
        ]


class Crane(Tool):
    """`crane push` of a layout that has one image."""

    name, version = "crane", ["version"]

    def commands(self, images, address, folder):
        singles = self.options.work / f"crane{self.inputs.index(images)}"
        singles.mkdir(exist_ok=True)
        for name, (repository, tag) in images.places().items():
            yield ["crane", "push", "--insecure", _single(images, name, singles), f"{address}/{repository}:{tag}"]


class Regctl(Tool):
    """`regctl image copy`."""

    name, version = "regctl", ["version"]

    def commands(self, images, address, folder):
        for name, (repository, tag) in images.places().items():
            yield [
                *["regctl", "--host", f"reg={address},tls=disabled", "image", "copy"],
                *[f"ocidir://{images.layout}:{name}", f"{address}/{repository}:{tag}"],
            ]


class Regsync(Tool):
    """`regsync once`. Its configuration is YAML, of which JSON is a part."""

    name, version, takes_lists = "regsync", ["version"], True

    def commands(self, images, address, folder):
        steps = [
            {"source": f"ocidir://{images.layout}:{name}", "target": f"{address}/{repository}:{tag}", "type": "image"}
            for name, (repository, tag) in images.places().items()
        ]
        config = {"version": 1, "creds": [{"registry": address, "tls": "disabled"}], "sync": steps}
        yield ["regsync", "once", "-v", "warn", "-c", _write_json(folder / "regsync.yml", config)]


class Oras(Tool):
    """`oras cp`."""

    name, version = "oras", ["version"]

    def commands(self, images, address, folder):
        for name, (repository, tag) in images.places().items():
            source, destination = f"{images.layout}:{name}", f"{address}/{repository}:{tag}"
            yield ["oras", "cp", "--no-tty", "--from-oci-layout", source, "--to-plain-http", destination]


class Ocync(Tool):
    """`ocync sync` from another registry."""

    name, version, takes_lists = "ocync", ["version"], True

    def __init__(self, options, inputs):
        super().__init__(options, inputs)
        find_program("skopeo", "skopeo")
        self.source = Registry(options.registry, options.work / "ocync-source")
        options.stack.enter_context(self.source)
        filler = Skopeo(options, inputs)
        for images in inputs:
            with filler.session(self.source.address) as session:
                session.push(images)

    def commands(self, images, address, folder):
        registry = {name: {"url": f"http://{at}", "auth_type": "anonymous"} for name, at in self._ends(address)}
        mappings = [
            {"from": repository, "to": repository, "tags": {"glob": tag}} for repository, tag in images.places().values()
        ]
        config = {
            "global": {"cache_dir": str(folder / "cache")},
            "registries": registry,
            "defaults": {"source": "source", "targets": ["target"], "artifacts": {"enabled": False}},
            "mappings": mappings,
        }
        yield ["ocync", "--quiet", "sync", "-c", _write_json(folder / "ocync.yaml", config)]

    def _ends(self, address):
        return [("source", self.source.address), ("target", address)]


TOOLS = [Skopeo, SkopeoSync, Crane, Regctl, Regsync, Oras, Ocync]


def find_sides(options, inputs):
    """Returns violetd and the tools that are here, and the names of those that are not.

    For many images only what takes a list counts; `skopeo sync` is there for that and nothing else.
    """
    classes = [Violetd] + ([VioletdPush] if has_push(options.violetd) else [])
    absent = []
    for tool in TOOLS:
        if (tool is SkopeoSync) != bool(options.many) and tool in (Skopeo, SkopeoSync):
            continue
        if options.many and not tool.takes_lists:
            continue
        if shutil.which(getattr(tool, "program", tool.name)):
            classes.append(tool)
        else:
            absent.append(tool.name)
    if not any(issubclass(side, (Skopeo, SkopeoSync)) for side in classes):
        find_program("skopeo", "skopeo")
    return [side(options, inputs) for side in classes], absent


def has_push(violetd):
    """Returns whether this version has the command `push`."""
    asked = subprocess.run([violetd, "push", "--help"], stdin=subprocess.DEVNULL, capture_output=True)
    return asked.returncode == 0


def version_of(side):
    """Returns the first line that says a version, with the name."""
    program = getattr(side, "program", side.name)
    lines = [line.strip() for line in run(program, *side.version).splitlines() if any(map(str.isdigit, line))]
    line = lines[0] if lines else "version unknown"
    return line if program in line else f"{program} {line}"


def _write_json(path, document):
    path.write_text(json.dumps(document))
    return path


def _single(images, name, folder):
    """Makes a layout of one image out of one of many."""
    entries = [entry for entry in _entries(images) if entry["annotations"][layouts.NAME] == name]
    return _write_linked(images, folder / name, entries)


def _placed(images, folder):
    """Makes a layout whose images are named by where they go."""
    entries = _entries(images)
    for entry in entries:
        repository, tag = images.places()[entry["annotations"][layouts.NAME]]
        entry["annotations"] = {layouts.NAME: f"registry.example/{repository}:{tag}"}
    return _write_linked(images, folder, entries)


def _entries(images):
    return json.loads((images.layout / "index.json").read_text())["manifests"]


def _write_linked(images, folder, entries):
    """Makes a layout with the blobs of another one, unless it is there."""
    if not folder.exists():
        folder.mkdir()
        (folder / "blobs").symlink_to(images.layout / "blobs")
        (folder / "oci-layout").symlink_to(images.layout / "oci-layout")
        _write_json(folder / "index.json", {"schemaVersion": 2, "manifests": entries})
    return folder


def _write_dir_image(images, name, folder):
    """Writes an image in the form that skopeo calls `dir`."""
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    blobs = images.layout / "blobs" / "sha256"
    manifest = blobs / images.digests[name].partition(":")[2]
    document = json.loads(manifest.read_text())
    if "manifests" in document:
        raise Failure(f"expected an image for one platform, found an index: {name}")
    os.link(manifest, folder / "manifest.json")
    for part in [document["config"], *document["layers"]]:
        hexadecimal = part["digest"].partition(":")[2]
        os.link(blobs / hexadecimal, folder / hexadecimal)
