"""The test images: what each contains and why it exists.

CATALOG maps an image's name to a function that builds it; nothing is built before it is asked for. Every image gets the tag
"v1". What a test may expect in the mounted root filesystem of `layers*` is in LAYERS_EXPECT.
"""

import json
import os
import random
import subprocess
import tempfile
from dataclasses import dataclass, field

from layer import DOCKER_LAYER, OCI_LAYER, Layer, digest

CREATED = "2024-01-01T00:00:00Z"
SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nkevel:x:1000:1000::/home/kevel:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nkevel:x:1000:\nextra:x:2000:kevel\nnogroup:x:65534:\n"
# cap_net_bind_service, permitted, as a version 2 security.capability value.
BIND_SERVICE = b"\x01\x00\x00\x02\x00\x04\x00\x00" + b"\x00" * 12

MANIFEST = {"oci": "application/vnd.oci.image.manifest.v1+json",
            "docker": "application/vnd.docker.distribution.manifest.v2+json"}
INDEX = {"oci": "application/vnd.oci.image.index.v1+json",
         "docker": "application/vnd.docker.distribution.manifest.list.v2+json"}
CONFIG = {"oci": "application/vnd.oci.image.config.v1+json",
          "docker": "application/vnd.docker.container.image.v1+json"}


@dataclass
class Image:
    """One tag: the top document, and every blob and manifest below it."""

    media_type: str
    document: bytes
    blobs: dict = field(default_factory=dict)
    # Manifests below an index: [(media type, bytes)], to be pushed before the index.
    children: list = field(default_factory=list)
    layers: list = field(default_factory=list)
    config_digest: str = ""
    expect: dict = field(default_factory=dict)


def manifest(layers, config=None, family="oci", compression="gzip", level=6, architecture="amd64", expect=None):
    """A single-platform image; config is the part under "config" of the image configuration."""
    types = OCI_LAYER if family == "oci" else DOCKER_LAYER
    image = Image(MANIFEST[family], b"", expect=expect or {})
    for layer in layers:
        blob = layer.compressed(compression, level)
        image.blobs[digest(blob)] = blob
        image.layers.append({"mediaType": types[compression], "digest": digest(blob), "size": len(blob)})
    document = _json({
        "architecture": architecture, "os": "linux", "created": CREATED,
        "config": {"Env": [SEARCH_PATH], "Cmd": ["/bin/sh"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id() for layer in layers]},
        "history": [{"created": CREATED, "created_by": f"layer {n}"} for n in range(len(layers))],
    })
    image.config_digest = digest(document)
    image.blobs[image.config_digest] = document
    image.document = _json({
        "schemaVersion": 2, "mediaType": MANIFEST[family],
        "config": {"mediaType": CONFIG[family], "digest": image.config_digest, "size": len(document)},
        "layers": image.layers,
    })
    return image


def index(images, family="oci"):
    """An index (manifest list) over {architecture: image}."""
    entries, result = [], Image(INDEX[family], b"")
    for architecture, image in images.items():
        result.blobs.update(image.blobs)
        result.children.append((image.media_type, image.document))
        entries.append({"mediaType": image.media_type, "digest": digest(image.document), "size": len(image.document),
                        "platform": {"architecture": architecture, "os": "linux"}})
    result.document = _json({"schemaVersion": 2, "mediaType": INDEX[family], "manifests": entries})
    return result


def busybox():
    """The lowest layer: a static busybox with all its applets as hard links, and the files that users need."""
    if not hasattr(busybox, "layer"):
        path = os.environ.get("BUSYBOX", "/bin/busybox")
        with open(path, "rb") as file:
            layer = Layer().file("bin/busybox", file.read(), 0o755)
        applets = subprocess.run([path, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        for applet in sorted(set(applets) - {"busybox", "init", "linuxrc"}):
            layer.hardlink(f"bin/{applet}", "bin/busybox")
        for name in ("dev", "proc", "sys", "run", "var", "home"):
            layer.directory(name)
        layer.directory("root", 0o700).directory("tmp", 0o1777).directory("home/kevel", 0o755, 1000, 1000)
        busybox.layer = layer.file("etc/passwd", PASSWD).file("etc/group", GROUP)
    return busybox.layer


LAYERS_EXPECT = {
    "files": {"data/kept": "1", "data/changed": "3", "data/hard": "1", "opaque/new": "2", "was-file/inside": "2",
              "was-dir": "3", "data/back": "3", "long/" + "n" * 120: "2", "data/n\u00e4me": "2"},
    "absent": ["data/removed", "gone", "opaque/old", "was-dir/inside", "data/.wh.removed", "opaque/.wh..wh..opq"],
    "hardlinks": [["data/kept", "data/hard"]],
    "symlinks": {"data/link": "kept", "data/dangling": "/nowhere"},
    "xattrs": {"data/tool": {"user.kevel": "test", "security.capability": BIND_SERVICE.hex()}},
    "modes": {"data/tool": "4755", "data/pipe": "644", "tmp": "1777", "private": "700"},
    "owners": {"private": [1000, 2000], "data/owned": [1000, 1000]},
    "devices": {"data/null": [1, 3]},
}


def layered(**options):
    """Three layers over busybox that hold every kind of entry and every way for one layer to change another."""
    first = busybox()
    second = (Layer().file("data/kept", "1").hardlink("data/hard", "data/kept").file("data/changed", "1")
              .file("data/removed", "1").file("data/back", "1").file("gone/deep/file", "1").file("opaque/old", "1")
              .file("was-file", "1").file("was-dir/inside", "1").symlink("data/link", "kept")
              .symlink("data/dangling", "/nowhere").fifo("data/pipe").character_device("data/null", 1, 3)
              .file("data/owned", "1", 0o640, 1000, 1000).directory("private", 0o700, 1000, 2000)
              .file("data/tool", "1", 0o4755, xattrs={"security.capability": BIND_SERVICE}))
    third = (Layer().whiteout("data/removed").whiteout("data/back").whiteout("gone").opaque("opaque")
             .file("opaque/new", "2").directory("was-file").file("was-file/inside", "2")
             .file("long/" + "n" * 120, "2").file("data/n\u00e4me", "2")
             .file("data/tool", "2", 0o4755, xattrs={"user.kevel": b"test", "security.capability": BIND_SERVICE}))
    fourth = Layer().file("data/changed", "3").file("data/back", "3").file("was-dir", "3")
    return manifest([first, second, third, fourth], expect=LAYERS_EXPECT, **options)


def configured():
    """An image whose configuration says everything that one can say."""
    return manifest([busybox()], {
        "User": "kevel:extra", "Env": [SEARCH_PATH, "GREETING=hello world", "EMPTY="], "WorkingDir": "/home/kevel",
        "Entrypoint": ["/bin/sh", "-c", "echo \"$GREETING $(id -un):$(id -gn) $(pwd) $0 $*\""], "Cmd": ["one", "two"],
        "StopSignal": "SIGQUIT", "Volumes": {"/data": {}, "/var/cache": {}},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Labels": {"org.example.label": "value"},
    })


def pause():
    """The sandbox image: one static program, built from pause.c beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        program, source = os.path.join(folder, "pause"), os.path.join(os.path.dirname(__file__), "pause.c")
        subprocess.run(["gcc", "-O2", "-static", "-s", "-o", program, source], check=True)
        with open(program, "rb") as file:
            layer = Layer().file("pause", file.read(), 0o755)
    return manifest([layer], {"Entrypoint": ["/pause"], "Cmd": None, "User": "65535:65535"})


def artifact():
    """No image, but files that were put into a registry like one; one of them does not say what it is called."""
    result, empty = Image(MANIFEST["oci"], b""), b"{}"
    for title, data in (("model.txt", b"weights\n"), ("deep/notes.txt", b"notes\n"), (None, b"anonymous\n")):
        result.blobs[digest(data)] = data
        result.layers.append({"mediaType": "application/vnd.example.model", "digest": digest(data), "size": len(data),
                              **({"annotations": {"org.opencontainers.image.title": title}} if title else {})})
    result.config_digest = digest(empty)
    result.blobs[result.config_digest] = empty
    result.document = _json({
        "schemaVersion": 2, "mediaType": MANIFEST["oci"], "artifactType": "application/vnd.example.model",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": result.config_digest, "size": 2},
        "layers": result.layers,
    })
    return result


def foreign(architecture):
    """An image for another architecture: a marker instead of programs, so that choosing it is noticed."""
    return manifest([Layer().file("architecture", architecture)], architecture=architecture)


def bulk(layers, size, seed=0, **options):
    """busybox under `layers` - 1 layers (or one big one) of files of up to 1 MiB, half of it incompressible; size in bytes.
    Images of different seeds share no layer but busybox."""
    count = max(layers - 1, 1)
    stack = [busybox()]
    for n in range(count):
        source, layer, rest, name = random.Random(seed + n), Layer(), size // count, 0
        while rest > 0:
            length = min(rest, source.choice((4 << 10, 64 << 10, 256 << 10, 1 << 20)))
            noise = source.randbytes(length // 2)
            layer.file(f"bulk/{n}/{name // 64}/{name}", noise + b"the quick brown fox " * ((length - len(noise)) // 20))
            rest, name = rest - length, name + 1
        stack.append(layer)
    return manifest(stack, **{"level": 6, **options})


# Built unless --only says otherwise.
CATALOG = {
    "busybox": lambda: manifest([busybox()]),
    "layers": layered,
    "layers-zstd": lambda: layered(compression="zstd", level=3),
    "layers-plain": lambda: layered(compression="none"),
    "layers-docker": lambda: layered(family="docker"),
    "layers-docker-plain": lambda: layered(family="docker", compression="none"),
    "configured": configured,
    "pause": pause,
    "artifact": artifact,
    "multi": lambda: index({"arm64": foreign("arm64"), "amd64": manifest([busybox()])}),
    "multi-docker": lambda: index({"arm64": manifest([Layer().file("architecture", "arm64")], family="docker",
                                                     architecture="arm64"),
                                   "amd64": manifest([busybox()], family="docker")}, family="docker"),
    "arm64-only": lambda: index({"arm64": foreign("arm64")}),
}

# Built only when named, or with --bench, which takes a minute of CPU. The bulk images take twice 40 MiB of a node's disk each.
BENCH = {
    "bulk-1": lambda: bulk(2, 40 << 20, seed=3000, compression="none"),
    "bulk-2": lambda: bulk(2, 40 << 20, seed=3100, compression="none"),
    "bulk-3": lambda: bulk(2, 40 << 20, seed=3200, compression="none"),
    "bench-layers": lambda: bulk(20, 120 << 20),
    "bench-layers-zstd": lambda: bulk(20, 120 << 20, seed=1000, compression="zstd", level=3),
    "bench-single": lambda: bulk(1, 300 << 20, seed=2000, level=1),
}


def _json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
