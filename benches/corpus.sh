#!/usr/bin/env bash
# The whole way of a real corpus: package, drop, two real registries, a second version, a run with nothing to do.
#
#   benches/corpus.sh [--binary FILE] [--keep] LAYOUT_DIR
#
# LAYOUT_DIR is an OCI image layout whose images have names, or a folder with such a layout in `all`. Every image gets a
# repository of its own, so that what images share has to be mounted. The second version adds one layer to a third of
# the images, together a tenth of the bytes of the first.
#
# Each figure is printed as `name value unit`. Exit code 1: a digest on a registry differs from the layout, or the
# daemon took more memory than it may. Needs the Debian packages curl, docker-registry, jq, python3 and skopeo, and
# about six times the corpus in TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/.."

# What the daemon may take at its peak, whatever the size of the package. The goal of the project.
memory_max_kib=$((100 * 1024))

binary="" keep=0 source=""
while [ $# -gt 0 ]; do
  case $1 in
    --binary) binary=$2; shift 2 ;;
    --keep) keep=1; shift ;;
    -*) echo "error: unknown option $1" >&2; exit 64 ;;
    *) source=$1; shift ;;
  esac
done
[ -n "$source" ] || { echo "usage: benches/corpus.sh [--binary FILE] [--keep] LAYOUT_DIR" >&2; exit 64; }
[ -f "$source/index.json" ] || source=$source/all
[ -f "$source/index.json" ] || { echo "error: expected an OCI image layout in ${source%/all}, found no index.json" >&2; exit 66; }
source=$(cd "$source" && pwd)
for tool in curl docker-registry jq python3 skopeo; do
  command -v "$tool" >/dev/null || { echo "error: expected $tool on PATH" >&2; exit 69; }
done
if [ -z "$binary" ]; then
  target=${CARGO_TARGET_DIR:-target}
  binary=$target/release/violetd
  [ -x "$binary" ] || binary=$target/debug/violetd
fi
[ -x "$binary" ] || { echo "error: expected the program in $binary; cargo build --release" >&2; exit 66; }

work=$(mktemp -d "${TMPDIR:-/tmp}/violetd-corpus.XXXXXX")
pids=() daemon="" failed=0
finish() {
  code=$?
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  [ "$code" -eq 0 ] || tail -n 20 "$work/violetd.log" >&2 2>/dev/null || true
  if [ "$keep" = 1 ]; then echo "kept: $work" >&2; else rm -rf "$work"; fi
  exit "$code"
}
trap finish EXIT

figure() { printf '%-44s %14s %s\n' "$1" "$2" "$3"; }
calculate() { python3 -c "print($1)"; }
seconds_between() { # Two RFC 3339 times
  python3 -c '
import sys
from datetime import datetime
begin, end = (datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00") for text in sys.argv[1:])
print("%.3f" % (end - begin).total_seconds())' "$1" "$2"
}
now() { date --utc +%Y-%m-%dT%H:%M:%S.%6NZ; }
wait_for() { # SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt "$end" ] || { echo "error: gave up waiting for: $*" >&2; return 1; }
    kill -0 "${daemon:-$$}" || { echo "error: the daemon ended" >&2; return 1; }
    sleep 0.1
  done
}
# The last line of the log with a message, as JSON.
logged() { jq -c --arg message "$1" 'select(.message == $message)' "$work/violetd.log" | tail -n 1; }
has_logged() { [ "$(jq -c --arg message "$1" 'select(.message == $message)' "$work/violetd.log" | wc -l)" -ge "$2" ]; }
last_runs() { "$binary" targets --output json | jq -c '.[].last_run.started_at'; }
have_run_since() { [ "$(sort <(last_runs) <(echo "$1") | uniq -d | wc -l)" -eq 0 ]; }

# Writes the second version of the layout: links to all blobs, and a further layer for a third of the images.
write_second_version() {
  python3 - "$source" "$work/second" <<'PYTHON'
import gzip, hashlib, io, json, os, random, sys, tarfile

first, second = sys.argv[1:]
blobs = os.path.join(second, "blobs", "sha256")
os.makedirs(blobs)
total = 0
for name in os.listdir(os.path.join(first, "blobs", "sha256")):
    path = os.path.join(first, "blobs", "sha256", name)
    total += os.path.getsize(path)
    os.symlink(path, os.path.join(blobs, name))

def put(content, media_type):
    digest = hashlib.sha256(content).hexdigest()
    with open(os.path.join(blobs, digest), "wb") as file:
        file.write(content)
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(content)}

def get(descriptor):
    with open(os.path.join(blobs, descriptor["digest"].removeprefix("sha256:")), "rb") as file:
        return json.load(file)

def layer(seed, size):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        entry = tarfile.TarInfo("opt/second-version")
        entry.size = size
        archive.addfile(entry, io.BytesIO(random.Random(seed).randbytes(size)))
    packed = gzip.compress(raw.getvalue(), 1, mtime=0)
    return put(packed, "application/vnd.oci.image.layer.v1.tar+gzip"), "sha256:" + hashlib.sha256(raw.getvalue()).hexdigest()

def add_layer(descriptor, new, diff_id):
    document = get(descriptor)
    if "manifests" in document:
        document["manifests"] = [add_layer(child, new, diff_id) for child in document["manifests"]]
    else:
        config = get(document["config"])
        config["rootfs"]["diff_ids"].append(diff_id)
        config.setdefault("history", []).append({"created_by": "second version"})
        document["config"] = put(json.dumps(config).encode(), document["config"]["mediaType"])
        document["layers"].append(new)
    changed = put(json.dumps(document).encode(), descriptor["mediaType"])
    return {**descriptor, **changed}

with open(os.path.join(first, "index.json")) as file:
    index = json.load(file)
count = max(1, len(index["manifests"]) // 3)
for position in range(count):
    new, diff_id = layer(position, total // 10 // count)
    index["manifests"][position] = add_layer(index["manifests"][position], new, diff_id)
with open(os.path.join(second, "index.json"), "w") as file:
    json.dump(index, file)
with open(os.path.join(second, "oci-layout"), "w") as file:
    file.write('{"imageLayoutVersion": "1.0.0"}')
PYTHON
}

# Prints `NAME DIGEST` of each image of a layout.
list_images() { jq -r '.manifests[] | "\(.annotations["org.opencontainers.image.ref.name"]) \(.digest)"' "$1/index.json"; }

# The place of an image: a changed one gets a new tag, one that stays keeps its own.
place() { # NAME DIGEST
  if list_images "$source" | grep -qxF "$1 $2"; then echo "corpus/$1:first"; else echo "corpus/$1:second"; fi
}

make_package() { # LAYOUT VERSION
  # The first image stands for the bundle of an operator, so that there are resources to publish.
  local layout=$1 version=$2 arguments=() name digest option=--artifact
  while read -r name digest; do
    arguments+=("$option" "registry.example/$(place "$name" "$digest")=oci:$layout:$name")
    option=--image
  done < <(list_images "$layout")
  "$binary" create "$work/$version/corpus" --package-version "$version" "${arguments[@]}" >/dev/null 2>&1
  "$binary" package "$work/$version/corpus" --output "$work/corpus-$version.tgz" >/dev/null 2>&1
}

start_registry() { # NAME
  local name=$1 port
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  printf -v "port_$name" %s "$port"
  mkdir "$work/registry-$name"
  cat > "$work/registry-$name.yml" <<YAML
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry-$name}}
http: {addr: "127.0.0.1:$port"}
YAML
  docker-registry serve "$work/registry-$name.yml" > "$work/registry-$name.log" 2>&1 &
  pids+=($!)
  wait_for 30 curl --silent --fail "http://127.0.0.1:$port/v2/"
}

start_daemon() {
  cat > "$work/violetd.toml" <<TOML
state_dir = "$work/state"

[log]
format = "json"

[admin]
socket = "$work/admin.sock"

[[drop]]
path = "$work/drop"
policy = "none"
settle = "1ms"
TOML
  local name port
  for name in primary standby; do
    port=port_$name
    cat >> "$work/violetd.toml" <<TOML

[[target]]
name = "$name"
role = "$name"

[target.registry]
address = "127.0.0.1:${!port}"
plain_http = true
no_auth = true

[target.platform]
kind = "directory"
path = "$work/resources-$name"
pull_registry = "platform.example"
TOML
  done
  export VIOLETD_CONFIG="$work/violetd.toml"
  mkdir "$work/drop"
  "$binary" serve > "$work/violetd.log" 2>&1 &
  daemon=$!
  pids+=("$daemon")
  wait_for 30 "$binary" status
}

cpu_seconds() { # of a process, its threads included
  local ticks
  ticks=$(sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }')
  calculate "$ticks / $(getconf CLK_TCK)"
}
process_io() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$daemon/io"; }

# Drops a package and prints what it took.
run_version() { # VERSION NUMBER
  local version=$1 number=$2 dropped line cpu written name
  cpu=$(cpu_seconds "$daemon")
  written=$(process_io wchar)
  dropped=$(now)
  mv "$work/corpus-$version.tgz" "$work/drop/"
  wait_for 120 has_logged "package is ready" "$number"
  wait_for 120 "$binary" status --check
  line=$(logged "package is ready")
  figure "$version.drop_to_ready" "$(seconds_between "$dropped" "$(jq -r .timestamp <<<"$line")")" s
  figure "$version.store_written" "$(jq -r .new_bytes <<<"$line")" bytes
  figure "$version.store_known" "$(jq -r .known_bytes <<<"$line")" bytes
  figure "$version.daemon_written_and_sent" $(($(process_io wchar) - written)) bytes
  figure "$version.daemon_cpu" "$(calculate "round($(cpu_seconds "$daemon") - $cpu, 2)")" s
  for name in primary standby; do
    print_run "$version" "$name" "$dropped"
  done
  figure "$version.memory_peak_so_far" "$(peak_kib)" KiB
}

print_run() { # PREFIX TARGET [DROPPED]
  local run key
  run=$("$binary" targets --output json | jq -c --arg name "$2" '.[] | select(.name == $name) | .last_run')
  [ -z "${3:-}" ] || figure "$1.$2.drop_to_in_sync" "$(seconds_between "$3" "$(jq -r .finished_at <<<"$run")")" s
  figure "$1.$2.run" "$(seconds_between "$(jq -r .started_at <<<"$run")" "$(jq -r .finished_at <<<"$run")")" s
  for key in requests retries images_wanted images_pushed blobs_sent blobs_mounted blobs_skipped resources_wanted resources_applied; do
    figure "$1.$2.$key" "$(jq -r ".counts.$key" <<<"$run")" "$(sed 's/.*_//; s/^\(sent\|mounted\|skipped\)$/blobs/; s/^\(wanted\|pushed\|applied\)$/items/' <<<"$key")"
  done
  figure "$1.$2.bytes_sent" "$(jq -r .counts.bytes_sent <<<"$run")" bytes
}

peak_kib() { awk '/^VmHWM/ { print $2 }' "/proc/$daemon/status"; }

# Prints the digests of an image's manifests: the outermost one and those below it.
list_manifests() { # LAYOUT DIGEST
  echo "$2"
  jq -r '.manifests[]?.digest' "$1/blobs/sha256/${2#sha256:}"
}

# Compares what both registries hold with a layout.
compare() { # LAYOUT VERSION
  local layout=$1 version=$2 name image digest place reference manifest found port equal=0 different=0
  for name in primary standby; do
    port=port_$name
    while read -r image digest; do
      place=$(place "$image" "$digest")
      while read -r manifest; do
        # The outermost manifest by its tag, those below it by digest.
        reference=$place
        [ "$manifest" = "$digest" ] || reference=${place%:*}@$manifest
        found=sha256:$(skopeo inspect --raw --tls-verify=false "docker://127.0.0.1:${!port}/$reference" | sha256sum | cut -d' ' -f1)
        if [ "$found" = "$manifest" ]; then equal=$((equal + 1)); else
          different=$((different + 1)); echo "error: $name $reference: expected $manifest, found $found" >&2
        fi
      done < <(list_manifests "$layout" "$digest")
    done < <(list_images "$layout")
  done
  figure "$version.manifests_equal" $equal manifests
  figure "$version.manifests_different" $different manifests
  compare_blobs "$layout" "$version"
  [ $different -eq 0 ] || failed=1
}

# Hashes what the registries have on their disks.
compare_blobs() { # LAYOUT VERSION
  local name path hex equal=0 different=0
  for name in primary standby; do
    for path in "$1"/blobs/sha256/*; do
      hex=${path##*/}
      path=$work/registry-$name/docker/registry/v2/blobs/sha256/${hex:0:2}/$hex/data
      if [ -f "$path" ] && [ "$(sha256sum < "$path" | cut -d' ' -f1)" = "$hex" ]; then equal=$((equal + 1)); else
        different=$((different + 1)); echo "error: $name: blob $hex is missing or differs" >&2
      fi
    done
  done
  figure "$2.blobs_equal" $equal blobs
  figure "$2.blobs_different" $different blobs
  [ $different -eq 0 ] || failed=1
}

figure machine.cores "$(nproc)" cores
figure machine.load "$(cut -d' ' -f1 /proc/loadavg)" processes
write_second_version
make_package "$source" first
make_package "$work/second" second
figure first.images "$(list_images "$source" | wc -l)" images
figure first.package "$(stat --format %s "$work/corpus-first.tgz")" bytes
figure second.package "$(stat --format %s "$work/corpus-second.tgz")" bytes
start_registry primary
start_registry standby
start_daemon
figure daemon.memory_at_start "$(peak_kib)" KiB

run_version first 1
compare "$source" first
run_version second 2
compare "$work/second" second

before=$(last_runs)
"$binary" sync 2>/dev/null
wait_for 60 have_run_since "$before"
for name in primary standby; do print_run idle "$name"; done

figure daemon.memory_peak "$(peak_kib)" KiB
figure daemon.memory_max "$memory_max_kib" KiB
figure machine.load_at_end "$(cut -d' ' -f1 /proc/loadavg)" processes
if [ "$(peak_kib)" -gt "$memory_max_kib" ]; then
  echo "error: the daemon took $(peak_kib) KiB, expected at most $memory_max_kib" >&2
  failed=1
fi
exit $failed
