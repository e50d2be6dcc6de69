"""Layers: deterministic tar streams with every entry kind a runtime has to apply, and their compressions.

The same calls give the same bytes on every machine (times, owners and the order of entries are fixed; zstd's bytes depend
on the version of the zstd command). What goes into which layer is catalog.py's.
"""

import gzip
import hashlib
import io
import subprocess
import tarfile

# The modification time of every entry: 2024-01-01 UTC.
EPOCH = 1704067200

# Media types of a layer by compression, for the two families of manifests. Docker's has none for zstd.
OCI_LAYER = {
    "none": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
DOCKER_LAYER = {
    "none": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


def digest(data):
    """The OCI digest of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """Collects entries in the order of the calls; parents are added as needed. Paths are relative to the root."""

    def __init__(self):
        self._entries = []
        self._directories = set()
        self._tar = None

    def directory(self, path, mode=0o755, uid=0, gid=0, xattrs=None):
        path = path.strip("/")
        if path and path not in self._directories:
            self._parents(path)
            self._directories.add(path)
            self._add(path, tarfile.DIRTYPE, mode, uid, gid, xattrs=xattrs)
        return self

    def file(self, path, data, mode=0o644, uid=0, gid=0, xattrs=None):
        data = data.encode() if isinstance(data, str) else data
        return self._add(path, tarfile.REGTYPE, mode, uid, gid, data=data, xattrs=xattrs)

    def hardlink(self, path, target):
        """A second name for a file of this layer. It repeats the file's mode and owner: appliers set them again."""
        target = target.lstrip("/")
        first = next(info for info, _ in self._entries if info.name == target)
        return self._add(path, tarfile.LNKTYPE, first.mode, first.uid, first.gid, link=target)

    def symlink(self, path, target):
        return self._add(path, tarfile.SYMTYPE, 0o777, link=target)

    def fifo(self, path, mode=0o644):
        return self._add(path, tarfile.FIFOTYPE, mode)

    def character_device(self, path, major, minor, mode=0o666):
        return self._add(path, tarfile.CHRTYPE, mode, device=(major, minor))

    def whiteout(self, path):
        """Removes what lower layers have at path."""
        head, _, tail = path.rpartition("/")
        return self.file(f"{head}/.wh.{tail}" if head else f".wh.{tail}", b"")

    def opaque(self, path):
        """Hides whatever lower layers have in the directory at path."""
        return self.directory(path).file(f"{path}/.wh..wh..opq", b"")

    def tar(self):
        """The uncompressed stream."""
        if self._tar is None:
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for info, data in self._entries:
                    archive.addfile(info, io.BytesIO(data))
            self._tar = stream.getvalue()
        return self._tar

    def diff_id(self):
        return digest(self.tar())

    def compressed(self, compression, level):
        """The stream as a blob: compression is none, gzip or zstd."""
        if compression == "none":
            return self.tar()
        if compression == "gzip":
            return gzip.compress(self.tar(), level, mtime=0)
        if compression == "zstd":
            command = ["zstd", "--quiet", "--stdout", f"-{level}"]
            return subprocess.run(command, input=self.tar(), stdout=subprocess.PIPE, check=True).stdout
        raise ValueError(f"no compression is called {compression!r}")

    def _parents(self, path):
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)

    def _add(self, path, kind, mode, uid=0, gid=0, data=b"", link="", device=(0, 0), xattrs=None):
        path = path.lstrip("/")
        self._parents(path)
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, uid, gid, EPOCH
        info.size, info.linkname, (info.devmajor, info.devminor) = len(data), link, device
        # Values have to be ASCII: tarfile writes pax records as text.
        info.pax_headers = {f"SCHILY.xattr.{name}": value.decode("ascii") for name, value in (xattrs or {}).items()}
        self._entries.append((info, data))
        return self
