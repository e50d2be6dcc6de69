"""A registry of our own on loopback (Debian's docker-registry) and a minimal client that pushes to it.

Everything lives in one folder: configuration, storage, certificate, password file, log, and state.json, which says how to
reach a running instance. Nothing here knows what the images contain.
"""

import base64
import ctypes
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import time
from pathlib import Path

from layer import digest

START_SECONDS = 10
STOP_SECONDS = 10
LISTENING = re.compile(r'listening on 127\.0\.0\.1:(\d+)')


class RegistryError(Exception):
    """What went wrong with the registry, for people."""


class Registry:
    """One instance in one folder."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.state = None
        path = self.folder / "state.json"
        if path.exists():
            state = json.loads(path.read_text())
            # A pid alone may be someone else's by now: its start time tells.
            if _start_time(state["pid"]) == state["started"]:
                self.state = state

    def start(self, port=0, user=None, tls=False):
        """Starts the registry unless it runs; port 0 takes a free one; user is "name:password"."""
        if self.state:
            wanted = {"user": user, "tls": tls, "port": port or self.state["port"]}
            different = [key for key, value in wanted.items() if self.state[key] != value]
            if different:
                raise RegistryError(f"a registry runs in {self.folder} with another {', '.join(different)}: stop it first")
            return
        (self.folder / "storage").mkdir(parents=True, exist_ok=True)
        config = self._configure(port, user, tls)
        log = self.folder / "registry.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(["docker-registry", "serve", str(config)], stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        self.state = {"pid": process.pid, "started": _start_time(process.pid), "port": self._await_port(process, log),
                      "user": user, "tls": tls}
        (self.folder / "state.json").write_text(json.dumps(self.state))

    def stop(self):
        """Ends the registry if it runs, and waits for its end; what it stores stays."""
        if self.state:
            os.kill(self.state["pid"], signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while _start_time(self.state["pid"]) == self.state["started"]:
                if time.monotonic() > deadline:
                    os.kill(self.state["pid"], signal.SIGKILL)
                time.sleep(0.02)
        self.state = None
        (self.folder / "state.json").unlink(missing_ok=True)

    @property
    def host(self):
        return f"127.0.0.1:{self.state['port']}"

    @property
    def url(self):
        return f"{'https' if self.state['tls'] else 'http'}://{self.host}"

    @property
    def authority(self):
        """The certificate to trust, or None."""
        return self.folder / "certificate.pem" if self.state["tls"] else None

    def write_hosts(self):
        """Writes <folder>/certs.d/<host>/hosts.toml and returns <folder>/certs.d, for a runtime's config_path."""
        root = self.folder / "certs.d"
        folder = root / self.host
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f'server = "{self.url}"', "", f'[host."{self.url}"]', '  capabilities = ["pull", "resolve"]']
        if self.authority:
            lines.append(f'  ca = "{self.authority}"')
        (folder / "hosts.toml").write_text("\n".join(lines) + "\n")
        return root

    def push(self, name, tag, image):
        """Uploads what the registry lacks of an image; children of an index before the index."""
        with Connection(self) as connection:
            for blob_digest, blob in image.blobs.items():
                connection.push_blob(name, blob_digest, blob)
            for media_type, document in image.children:
                connection.push_manifest(name, digest(document), media_type, document)
            connection.push_manifest(name, tag, image.media_type, image.document)

    def _configure(self, port, user, tls):
        config = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "storage")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}", "headers": {"X-Content-Type-Options": ["nosniff"]}},
        }
        if user:
            passwords = self.folder / "passwords"
            name, _, password = user.partition(":")
            passwords.write_text(f"{name}:{_bcrypt(password)}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(passwords)}}
        if tls:
            config["http"]["tls"] = {"certificate": str(self.folder / "certificate.pem"), "key": str(self.folder / "key.pem")}
            self._certify()
        # JSON is YAML, which the registry reads.
        path = self.folder / "registry.yml"
        path.write_text(json.dumps(config, indent=2))
        return path

    def _certify(self):
        if not (self.folder / "certificate.pem").exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                            "-days", "3650", "-subj", "/CN=test registry", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                            "-keyout", str(self.folder / "key.pem"), "-out", str(self.folder / "certificate.pem")],
                           check=True, capture_output=True)

    def _await_port(self, process, log):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            found = LISTENING.search(log.read_text())
            if found:
                return int(found.group(1))
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
            process.wait()
        raise RegistryError(f"docker-registry did not start: {log.read_text().strip()[-500:]}")


class Connection:
    """One HTTP connection to a registry."""

    def __init__(self, registry):
        host, port = "127.0.0.1", registry.state["port"]
        if registry.authority:
            context = ssl.create_default_context(cafile=str(registry.authority))
            self.http = http.client.HTTPSConnection(host, port, context=context)
        else:
            self.http = http.client.HTTPConnection(host, port)
        self.headers = {}
        if registry.state["user"]:
            self.headers["Authorization"] = "Basic " + base64.b64encode(registry.state["user"].encode()).decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def push_blob(self, name, blob_digest, blob):
        if self._send("HEAD", f"/v2/{name}/blobs/{blob_digest}").status == 200:
            return
        begun = self._send("POST", f"/v2/{name}/blobs/uploads/", expect=202)
        location = begun.getheader("Location")
        location += ("&" if "?" in location else "?") + "digest=" + blob_digest
        self._send("PUT", location[location.index("/v2/"):], blob, {"Content-Type": "application/octet-stream"}, 201)

    def push_manifest(self, name, reference, media_type, document):
        self._send("PUT", f"/v2/{name}/manifests/{reference}", document, {"Content-Type": media_type}, 201)

    def _send(self, method, path, body=None, headers=None, expect=None):
        self.http.request(method, path, body, {**self.headers, **(headers or {})})
        response = self.http.getresponse()
        text = response.read()
        if expect and response.status != expect:
            raise RegistryError(f"{method} {path}: {response.status} {text[:300].decode(errors='replace')}")
        return response


def _start_time(pid):
    """A process's start time in clock ticks since boot, or None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _bcrypt(password):
    """The registry takes bcrypt only, which the system's libcrypt can do and Python's library cannot."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    result = crypt(password.encode(), b"$2b$05$" + b"abcdefghijklmnopqrstuu")
    if not result or not result.startswith(b"$2b$"):
        raise RegistryError("the system's libcrypt has no bcrypt")
    return result.decode()
