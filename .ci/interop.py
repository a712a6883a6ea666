#!/usr/bin/env python3
"""imgpull against real software: docker-registry, nginx, tinyproxy, dockerd, podman, containerd and skopeo.

    python3 .ci/interop.py              every check
    python3 .ci/interop.py NAME …       some of them: see the functions marked @check

Runs as root on Debian; a missing tool is an error that names its package. All servers listen on loopback and end with
this script, and so does its temporary directory. $IMGPULL_CACHE may name a directory that keeps what debootstrap makes.
"""

import base64
import collections
import contextlib
import glob
import gzip
import hashlib
import http.server
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

IMGPULL = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "imgpull.py")
MIB = 1024 * 1024

TOOLS = [  # command, Debian package
    ("docker-registry", "docker-registry"), ("skopeo", "skopeo"), ("podman", "podman"), ("dockerd", "docker.io"),
    ("docker", "docker.io"), ("containerd", "containerd"), ("ctr", "containerd"), ("runc", "runc"),
    ("nginx", "nginx-light"), ("htpasswd", "apache2-utils"), ("tinyproxy", "tinyproxy"), ("openssl", "openssl"),
    ("debootstrap", "debootstrap"), ("busybox", "busybox-static"), ("/usr/bin/time", "time"),
    ("dpkg", "dpkg"), ("tar", "tar"), ("unshare", "util-linux"), ("mount", "mount")]

CHECKS = collections.OrderedDict()
FAILURES = []


class Fault(Exception):
    """What a check saw was not what it should see."""


def check(function):
    CHECKS[function.__name__] = function
    return function


@contextlib.contextmanager
def case(title):
    """One line of the report: `with case("…") as saw: saw("what came out")`; an exception is a failed case."""
    seen, start = [], time.time()
    try:
        yield seen.append
    except Exception as error:  # anything at all that goes wrong here is this case's result
        FAILURES.append(title)
        print("FAILED  %s: %s: %s" % (title, type(error).__name__, " | ".join([str(error)] + seen)), flush=True)
    else:
        print("ok      %s: %s (%.1f s)" % (title, "; ".join(seen), time.time() - start), flush=True)


def same(what, got, wanted):
    if got != wanted:
        raise Fault("%s is %r, not %r" % (what, got, wanted))


# ---------------------------------------------------------------------------------------------------------------------
# Programs and servers

Ran = collections.namedtuple("Ran", "code out err")


def run(args, wanted=0, stdin=b"", env=None):
    """Run a program to its end; `wanted` is the exit code it must have, or None for any."""
    process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    out, err = (data.decode("utf-8", "replace") for data in process.communicate(stdin))
    if wanted is not None and process.returncode != wanted:
        raise Fault("%s: exit %s: %s" % (" ".join(args), process.returncode, (err + out).strip()[-2000:]))
    return Ran(process.returncode, out, err)


def one_line(text):
    return " / ".join(line.strip() for line in text.splitlines() if line.strip())[-300:]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(MIB), b""):
            digest.update(chunk)
    return digest.hexdigest()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path


class Lab:
    """A temporary directory and the servers started in it; both are gone when the `with` block ends."""

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="interop-", dir="/tmp")  # sockets and podman want short paths
        self.servers = []
        self.made = {}
        self.logs = {}  # {port: path} of what the server on a port prints
        self.home = self.path("home", "")
        self.program = shutil.copy(IMGPULL, self.path("alone", ""))  # one file is all that it takes
        # One environment for every program: nothing of the user's configuration or proxies comes in.
        keep = ("PATH", "LANG", "TERM")
        self.env = dict({name: os.environ[name] for name in keep if name in os.environ}, HOME=self.home,
                        TMPDIR=self.path("tmp", ""))
        return self

    def __exit__(self, *_):
        for server in reversed(self.servers):
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        with open("/proc/self/mountinfo") as file:
            mounts = [line.split()[4] for line in file]
        for mount in reversed(mounts):
            if mount.startswith(self.directory + "/"):
                subprocess.call(["umount", "-l", mount])
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, *names):
        """A path in the laboratory; its directory is made (end with "" for a directory)."""
        path = os.path.join(self.directory, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def once(self, make, *args):
        """make(self, *args), the first time; after that, what it gave then."""
        key = (make,) + args
        if key not in self.made:
            self.made[key] = make(self, *args)
        return self.made[key]

    def serve(self, args, ready, seconds=20):
        """Start a server and wait until ready() is true."""
        log = self.path("logs", "%d-%s" % (len(self.servers), os.path.basename(args[0])))
        with open(log, "wb") as file:
            server = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=self.env,
                                      start_new_session=True)
        self.servers.append(server)
        deadline = time.time() + seconds
        while not ready():
            if server.poll() is not None or time.time() > deadline:
                with open(log) as file:
                    raise Fault("%s did not start: %s" % (args[0], file.read()[-2000:]))
            time.sleep(0.05)
        return log

    def serve_port(self, args, port):
        def ready():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        self.logs[port] = self.serve(args, ready)

    def imgpull(self, *args, **options):
        """Run imgpull; options: python, env (added to the environment), wanted, stdin, host (whose private places)."""
        env = dict(self.env, **options.get("env", {}))
        command = [options.get("python", sys.executable), self.program] + list(args)
        if "host" in options:
            command = self.private(command, options["host"].home)
        return run(command, options.get("wanted", 0), options.get("stdin", b""), env)

    def private(self, command, *names):
        """A command with places of its own for what podman and skopeo remember: any layer they saw, and logins."""
        binds = []
        for place in ("/var/lib/containers", "/run/containers"):
            os.makedirs(place, exist_ok=True)
            binds.append("mount --bind '%s' %s" % (self.path(*names + ("own" + place, "")), place))
        return ["unshare", "--mount", "sh", "-c", " && ".join(binds) + " && exec \"$@\"", "sh"] + command

    def skopeo(self, *args):
        return run(self.private(["skopeo", "--insecure-policy"]) + list(args), env=self.env)


class Relay:
    """A TCP relay to a registry that counts what it hands to the client, at `rate` bytes a second at most.

    With `cut` set, every connection breaks once so many bytes have passed, and new ones break at once.
    """

    def __init__(self, port, rate=None, cut=None):
        self.target, self.rate, self.cut = ("127.0.0.1", port), rate, cut
        self.sent = 0
        self.lock = threading.Lock()
        self.free_at = 0.0
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client = self.listener.accept()[0]
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # what waits here is counted already
            upstream = socket.create_connection(self.target)
            for source, sink, counted in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, counted), daemon=True).start()

    def _pump(self, source, sink, counted):
        with contextlib.suppress(OSError):
            for data in iter(lambda: source.recv(65536), b""):
                if counted and not self._pass(len(data)):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass(self, size):
        with self.lock:
            self.sent += size
            now = time.time()
            if self.rate:
                self.free_at = max(self.free_at, now) + size / self.rate
            wait = self.free_at - now
            cut = self.cut is not None and self.sent > self.cut
        if wait > 0:
            time.sleep(wait)
        return not cut


# ---------------------------------------------------------------------------------------------------------------------
# Images

# What the checks pull: repository:tag -> (format, {platform: layers}); None is this host's platform.
# Layers: busybox, minbase, text:NAME (one small file), noise:NAME:MIB (one file that does not compress).
IMAGES = {
    "busybox:oci": ("oci", {None: ["busybox", "text:motd"]}),
    "busybox:v2s2": ("v2s2", {None: ["busybox", "text:v2s2"]}),
    "library/busybox:hub": ("oci", {None: ["busybox", "text:hub"]}),
    "minbase:1": ("oci", {None: ["minbase"]}),
    "proxy/library/busybox:hub": ("oci", {None: ["busybox", "text:proxy"]}),
    "mini:1": ("oci", {None: ["busybox", "text:mini"]}),
    "thrice:1": ("oci", {None: ["busybox", "text:a", "text:a", "text:b", "text:a"]}),
    "sixty:1": ("oci", {None: ["text:%d" % number for number in range(60)]}),
    "stream:1": ("oci", {None: ["busybox", "noise:stream:24", "text:stream"]}),
    "many:index": ("oci", {None: ["busybox", "text:own"], "linux/s390x": ["text:s390x"], "linux/arm/v7": ["text:arm"]}),
    "many:list": ("v2s2", {None: ["busybox", "text:own2"], "linux/s390x": ["text:s390x"]}),
    "giant:1": ("oci", {None: ["noise:giant:1024"]}),
    "parts:1": ("oci", {None: ["noise:%d:%d" % (number, size) for number, size in enumerate([160, 80, 40, 40])]}),
    "app:1": ("oci", {None: ["busybox", "noise:base:48", "text:shared", "text:one"]}),
    "app:2": ("oci", {None: ["busybox", "noise:base:48", "text:shared", "text:two", "noise:two:8"]}),
}

Layer = collections.namedtuple("Layer", "digest size diff_id")


class Hashing:
    """A file that hashes and counts what passes through it."""

    def __init__(self, file):
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, data):
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self):
        self.file.flush()

    @property
    def digest(self):
        return "sha256:" + self.hash.hexdigest()


def own_architecture():
    return run(["dpkg", "--print-architecture"]).out.strip()


def add_file(tar, name, data, mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), mode, 1700000000
    tar.addfile(info, io.BytesIO(data))


def fill_busybox(tar):
    path = shutil.which("busybox")
    with open(path, "rb") as file:
        add_file(tar, "bin/busybox", file.read(), 0o755)
    for name in sorted(run([path, "--list"]).out.split()):
        if name != "busybox":
            link = tarfile.TarInfo("bin/" + name)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    add_file(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")


def minbase_archive(lab):
    """The tar of a debootstrap of what this host's own apt is set to: same mirror, same suite."""
    cached = os.path.join(os.environ.get("IMGPULL_CACHE") or lab.path("cache"), "minbase.tar")
    if not os.path.exists(cached):
        targets = run(["apt-get", "indextargets", "--format", "$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)"]).out
        suite, mirror = [line.split()[2:] for line in targets.splitlines() if line.startswith("Packages main")][0]
        root = lab.path("minbase")
        run(["debootstrap", "--variant=minbase", suite, root, mirror])
        os.makedirs(os.path.dirname(cached), exist_ok=True)
        run(["tar", "--sort=name", "--numeric-owner", "--one-file-system", "-C", root, "-cf", cached + ".new", "."])
        os.rename(cached + ".new", cached)
        shutil.rmtree(root)
    return cached


def file_of(spec):
    """The path of a file that is in this layer and no other."""
    kind, _, rest = spec.partition(":")
    return {"busybox": "bin/busybox", "minbase": "etc/debian_version", "text": "layers/%s.txt" % rest,
            "noise": "noise/" + rest.partition(":")[0]}[kind]


def fill(lab, spec, raw):
    """Write the tar that `spec` describes."""
    kind, _, rest = spec.partition(":")
    if kind == "minbase":
        with open(lab.once(minbase_archive), "rb") as file:
            shutil.copyfileobj(file, raw, MIB)
        return
    with tarfile.open(fileobj=raw, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        if kind == "busybox":
            fill_busybox(tar)
        elif kind == "text":
            add_file(tar, file_of(spec), ("layer %s\n" % rest).encode())
        else:
            source = random.Random(spec)
            for part in range(0, int(rest.partition(":")[2]), 8):
                data = source.getrandbits(8 * 8 * MIB).to_bytes(8 * MIB, "little")
                add_file(tar, file_of(spec) + (".%d" % part if part else ""), data)


def store(lab, data):
    """Put a small blob into the OCI layout."""
    digest = hashlib.sha256(data).hexdigest()
    with open(lab.path("layout", "blobs", "sha256", digest), "wb") as file:
        file.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def layer(lab, spec):
    """Put a layer into the OCI layout, gzip-compressed, noise hardly so (it would only cost time)."""
    temporary = lab.path("layout", "layer")
    with open(temporary, "wb") as file:
        packed = Hashing(file)
        with gzip.GzipFile("", "wb", 0 if spec.startswith("noise") else 1, packed, mtime=0) as unpacked:
            raw = Hashing(unpacked)
            fill(lab, spec, raw)
    os.rename(temporary, lab.path("layout", "blobs", "sha256", packed.digest[len("sha256:"):]))
    return Layer(packed.digest, packed.size, raw.digest)


def manifest(lab, platform, specs, name):
    """Put a manifest and its config into the OCI layout; give its descriptor."""
    platform = dict(zip(("os", "architecture", "variant"), platform.split("/")))
    layers = [lab.once(layer, spec) for spec in specs]
    config = dict(platform, created="2024-01-01T00:00:00Z", rootfs={
        "type": "layers", "diff_ids": [each.diff_id for each in layers]}, history=[
        {"created": "2024-01-01T00:00:00Z", "created_by": spec} for spec in specs], config={
        "Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"], "Labels": {"interop": name}})
    kind = "application/vnd.oci.image."
    body = {"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
            "config": dict(store(lab, json.dumps(config).encode()), mediaType=kind + "config.v1+json"),
            "layers": [{"mediaType": kind + "layer.v1.tar+gzip", "digest": each.digest, "size": each.size}
                       for each in layers]}
    return dict(store(lab, json.dumps(body).encode()), mediaType=body["mediaType"], platform=platform)


def image(lab, name):
    """Build an image of the table, push it to the plain registry, and give `repository:tag` back."""
    build(lab, name, *IMAGES[name])
    return name


def build(lab, name, format_, platforms):
    """Build an image, and push it to the plain registry as `name`."""
    descriptors = [manifest(lab, platform or "linux/" + own_architecture(), specs, name)
                   for platform, specs in platforms.items()]
    top = descriptors[0]
    if len(descriptors) > 1:
        kind = "application/vnd.oci.image.index.v1+json"
        # As buildkit does: an entry of no platform that is no image.
        attestation = dict(manifest(lab, "unknown/unknown", ["text:attestation"], name),
                           annotations={"vnd.docker.reference.type": "attestation-manifest",
                                        "vnd.docker.reference.digest": descriptors[0]["digest"]})
        body = {"schemaVersion": 2, "mediaType": kind, "manifests": descriptors + [attestation]}
        top = dict(store(lab, json.dumps(body).encode()), mediaType=kind)
    push(lab, top, name, format_)


def push(lab, top, name, format_):
    """Have skopeo push what is in the OCI layout under `top` to the plain registry."""
    top = dict(top, annotations={"org.opencontainers.image.ref.name": "it"})
    layout = lab.path("layout", "")
    write(layout + "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
    write(layout + "index.json", json.dumps({"schemaVersion": 2, "manifests": [top]}))
    lab.skopeo("copy", "--quiet", "--all", "--format", format_, "--dest-tls-verify=false",
               "oci:%s:it" % layout.rstrip("/"), "docker://127.0.0.1:%d/%s" % (lab.once(plain_registry), name))


# What an image is, read from the registry without imgpull's help. `digest` is what the tag stands for.
Truth = collections.namedtuple("Truth", "name digest manifest config diff_ids label layers size")


def truth(lab, name, called=None):
    """What the plain registry holds under `name`, and the name that its archive must carry."""
    repository, _, tag = name.partition("@" if "@" in name else ":")
    base = "http://127.0.0.1:%d/v2/%s/" % (lab.once(plain_registry), repository)
    types = ["application/vnd.oci.image.%s.v1+json" % kind for kind in ("index", "manifest")]
    types += ["application/vnd.docker.distribution.%s.v2+json" % kind for kind in ("manifest.list", "manifest")]

    def get(path):
        with urllib.request.urlopen(urllib.request.Request(base + path, headers={"Accept": ", ".join(types)})) as got:
            data = got.read()
        return "sha256:" + hashlib.sha256(data).hexdigest(), json.loads(data.decode())

    digest, body = get("manifests/" + tag)
    child = digest
    if "manifests" in body:
        child, body = get("manifests/" + body["manifests"][0]["digest"])
    config, content = get("blobs/" + body["config"]["digest"])
    layers = [each["digest"] for each in body["layers"]]
    return Truth(called or "127.0.0.1:%d/%s" % (lab.once(plain_registry), name), digest, child, config,
                 content["rootfs"]["diff_ids"], content["config"]["Labels"]["interop"], layers,
                 sum({each["digest"]: each["size"] for each in body["layers"]}.values()))


# ---------------------------------------------------------------------------------------------------------------------
# Registries, and what stands in front of them


def registry(lab, name, storage, tls=None, auth=None, proxy=None):
    """A docker-registry on a free port."""
    port = free_port()
    config = {"version": "0.1", "log": {"level": "error"},
              "storage": {"filesystem": {"rootdirectory": lab.path(storage, "")}},
              "http": {"addr": "127.0.0.1:%d" % port, "secret": "interop"}}
    if tls:
        config["http"]["tls"] = tls
    if auth:
        config["auth"] = auth
    if proxy:
        config["proxy"] = {"remoteurl": proxy}
    path = write(lab.path("registries", name + ".yml"), json.dumps(config))  # JSON is YAML
    lab.serve_port(["docker-registry", "serve", path], port)
    return port


def requested(lab, port):
    """What the registry on a port has been asked for, without the method: its access log."""
    time.sleep(0.2)  # a request is logged once it is answered
    with open(lab.logs[port]) as file:
        return re.findall('"(?:GET|HEAD) (/v2/[^ ]+) HTTP', file.read())


def plain_registry(lab):
    """Where the images are pushed; the other registries serve the same storage."""
    return registry(lab, "plain", "storage")


def authority(lab):
    """A private CA with a server's and a client's certificate, and a self-signed one for tokens: their directory."""
    directory = lab.path("certificates", "")

    def make(name, *arguments):
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=interop " + name,
             "-keyout", directory + name + ".key", "-out", directory + name + ".crt"] + list(arguments))

    make("ca")
    make("token")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
                            ("client", "extendedKeyUsage=clientAuth")):
        request, extensions = directory + name + ".csr", write(directory + name + ".ext", extension)
        run(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=interop " + name,
             "-keyout", directory + name + ".key", "-out", request])
        run(["openssl", "x509", "-req", "-in", request, "-days", "30", "-CA", directory + "ca.crt",
             "-CAkey", directory + "ca.key", "-CAcreateserial", "-extfile", extensions,
             "-out", directory + name + ".crt"])
    return directory


def server_tls(lab):
    directory = lab.once(authority)
    return {"certificate": directory + "server.crt", "key": directory + "server.key"}


def tls_registry(lab):
    return registry(lab, "tls", "storage", server_tls(lab))


def mtls_registry(lab):
    return registry(lab, "mtls", "storage", dict(server_tls(lab), clientcas=[lab.once(authority) + "ca.crt"]))


def htpasswd_registry(lab):
    path = lab.path("registries", "htpasswd")
    write(path, run(["htpasswd", "-Bbn", "alice", "s3cret"]).out)
    return registry(lab, "htpasswd", "storage", server_tls(lab), {"htpasswd": {"realm": "interop", "path": path}})


def mirror_registry(lab):
    return registry(lab, "mirror", "mirrored", proxy="http://127.0.0.1:%d" % lab.once(plain_registry))


def serve_http(handler, context=None, **attributes):
    """A server in this process: its port; `attributes` are set on a subclass of `handler`."""
    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), type("Handler", (handler,), attributes))
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


class AnyMirror(http.server.BaseHTTPRequestHandler):
    """A mirror that is told the registry as ociregistry is: in the path, or as ?ns=.

    Both at once, or neither, are a 400.
    `source` (the port of the registry that has it all) and `asked` are set on a subclass.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.asked.append(self.path)
        path, _, query = self.path.partition("?")
        inside = re.match("/v2/(localhost|[^/]+[.:][^/]+)/", path)
        if ("ns" in urllib.parse.parse_qs(query)) == bool(inside):
            return self.answer(400, {}, b"which registry?")
        path = "/v2/" + path[inside.end() if inside else len("/v2/"):]
        headers = {name: self.headers[name] for name in ("Accept", "Range") if name in self.headers}
        url = "http://127.0.0.1:%d%s" % (self.source, path)
        request = urllib.request.Request(url, headers=headers, method=self.command)
        with contextlib.closing(urllib.request.build_opener(AnyStatus).open(request)) as got:
            return self.answer(got.status, got.headers, got.read())

    do_HEAD = do_GET

    def answer(self, status, headers, body):
        self.send_response(status)
        for name in ("Content-Type", "Content-Range", "Docker-Content-Digest"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", headers.get("Content-Length", str(len(body))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class AnyStatus(urllib.request.HTTPErrorProcessor):
    """Has urllib hand on an answer whatever its status is."""

    def http_response(self, request, response):
        return response


def any_mirror(lab):
    """The port of an AnyMirror, and the list of what it has been asked for."""
    asked = []
    return serve_http(AnyMirror, source=lab.once(plain_registry), asked=asked), asked


class Tokens(http.server.BaseHTTPRequestHandler):
    """A token server that signs real JWTs; `lab` and `asked` are set on a subclass."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.asked.append(query)
        given = base64.b64decode(self.headers.get("Authorization", "").partition(" ")[2])
        status, answer = 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong user or password"}]}
        if given == b"alice:s3cret":
            status, answer = 200, {"token": sign(self.lab)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def sign(lab):
    """A JWT that lets its bearer pull busybox, as docker-registry's token authentication wants it."""
    def packed(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    directory, now = lab.once(authority), int(time.time())
    with open(directory + "token.crt") as file:
        certificate = "".join(line.strip() for line in file if "-----" not in line)
    header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
    claims = {"iss": "interop", "sub": "alice", "aud": "real-registry", "exp": now + 300, "nbf": now - 10, "iat": now,
              "jti": str(random.random()),
              "access": [{"type": "repository", "name": "busybox", "actions": ["pull"]}]}
    message = b".".join(packed(json.dumps(part).encode()) for part in (header, claims))
    path = lab.path("registries", "jwt")
    with open(path, "wb") as file:
        file.write(message)
    signature = subprocess.check_output(["openssl", "dgst", "-sha256", "-sign", directory + "token.key", path])
    return (message + b"." + packed(signature)).decode()


def token_registry(lab):
    """A docker-registry with token authentication: its port, and the list of queries that the token server got."""
    directory, asked = lab.once(authority), []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if hasattr(ssl, "PROTOCOL_TLS_SERVER") else ssl.PROTOCOL_TLS)
    context.load_cert_chain(directory + "server.crt", directory + "server.key")
    port = serve_http(Tokens, context, lab=lab, asked=asked)
    auth = {"token": {"realm": "https://127.0.0.1:%d/token" % port, "service": "real-registry",
                      "issuer": "interop", "rootcertbundle": directory + "token.crt"}}
    return registry(lab, "token", "storage", server_tls(lab), auth), asked


def nginx(lab):
    """nginx that asks for a client certificate, in front of the plain registry."""
    port, directory, home = free_port(), lab.once(authority), lab.path("nginx", "")
    temporary = "".join("%s_temp_path %s%s;" % (name, home, name)
                        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = write(home + "conf", """
        daemon off; pid %(home)spid; error_log %(home)serror.log; worker_processes 1; events {}
        http { access_log off; %(temporary)s
          server { listen 127.0.0.1:%(port)d ssl;
            ssl_certificate %(directory)sserver.crt; ssl_certificate_key %(directory)sserver.key;
            ssl_client_certificate %(directory)sca.crt; ssl_verify_client on;
            location / { proxy_pass http://127.0.0.1:%(plain)d; proxy_set_header Host $http_host; } } }
        """ % {"home": home, "temporary": temporary, "port": port, "directory": directory,
               "plain": lab.once(plain_registry)})
    os.chmod(lab.directory, 0o755)  # nginx's worker is another user
    lab.serve_port(["nginx", "-c", config, "-e", home + "error.log"], port)
    return port


def tinyproxy(lab):
    """tinyproxy that wants a user and password: its port, and its log, to see that it was used."""
    port, log = free_port(), lab.path("tinyproxy", "log")
    config = write(lab.path("tinyproxy", "conf"), "\n".join([
        "Port %d" % port, "Listen 127.0.0.1", "Timeout 60", "LogFile \"%s\"" % log, "LogLevel Connect",
        "MaxClients 50", "Allow 127.0.0.1", "BasicAuth bob pr0xy", "ConnectPort %d" % lab.once(tls_registry)]))
    lab.serve_port(["tinyproxy", "-d", "-c", config], port)
    return port, log


# ---------------------------------------------------------------------------------------------------------------------
# Loaders: each has take(archive, truths), which loads an archive and raises a Fault unless what came out is right


def right(title, seen, image_truth):
    """Compare (config, diff_ids, label) that a loader shows with those of the registry."""
    same(title, seen, (image_truth.config, image_truth.diff_ids, image_truth.label))


def read_files(root, paths):
    contents = []
    for path in paths:
        with open(os.path.join(root, path), "rb") as file:
            contents.append(file.read())
    return contents


class Runtime:
    """What docker, podman and containerd have in common: calling one runs its client.

    `stdin` and `fetch` are its commands to load from stdin and to pull from a registry.
    """

    def __init__(self, lab, name):
        self.lab, self.home = lab, lab.path(name or type(self).__name__.lower(), "")

    def __call__(self, *args, **options):
        return run(self.client + list(args), env=self.lab.env, **options)

    def is_up(self):
        return os.path.exists(self.home + "sock") and self("version", wanted=None).code == 0

    def take(self, path, truths):
        """Load an archive, see that its images came out right, and forget them: nothing is left for the next one."""
        said = self.load(path)
        try:
            for one in truths:
                self.look(one)
        finally:
            for one in truths:
                self.forget(one)
        return said


class Docker(Runtime):
    """A dockerd of its own."""

    stdin, fetch = ["load"], ["pull", "--quiet"]

    def __init__(self, lab, name=None):
        super().__init__(lab, name)
        home = self.home
        self.client = ["docker", "-H", "unix://%ssock" % home]
        lab.serve(["dockerd", "--config-file", write(home + "daemon.json", "{}"), "--storage-driver", "vfs",
                   "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", home + "data",
                   "--exec-root", home + "exec", "--pidfile", home + "pid", "-H", "unix://%ssock" % home], self.is_up)

    def load(self, path):
        return one_line(self("load", "-q", "-i", path).out)

    def look(self, one):
        tagged = "@" not in one.name
        seen = json.loads(self("image", "inspect", one.name if tagged else one.config).out)[0]
        right("docker's image", (seen["Id"], seen["RootFS"]["Layers"], seen["Config"]["Labels"]["interop"]), one)
        short = re.sub("^docker.io/(library/)?", "", one.name)
        same("docker's name for it", seen["RepoTags"], [short] if tagged else [])

    def read(self, one, paths):
        """The content of files of an image."""
        container, contents = self("create", one.config, "sh").out.strip(), []
        for path in paths:
            data = subprocess.check_output(self.client + ["cp", container + ":/" + path, "-"], env=self.lab.env)
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                contents.append(tar.extractfile(tar.next()).read())
        self("rm", container)
        return contents

    def forget(self, one):
        self("image", "rm", "-f", one.config)

    def holds(self, one):
        return self("image", "inspect", one.config, wanted=None).code == 0


class Podman(Runtime):
    """podman with a storage of its own; its images are called by the digest of their config, without `sha256:`."""

    stdin, fetch = ["load"], ["pull", "--quiet", "--tls-verify=false"]
    load = Docker.load

    def __init__(self, lab, name=None):
        super().__init__(lab, name)
        home = self.home
        self.client = lab.private(["podman", "--root", home + "root", "--runroot", home + "run", "--tmpdir",
                                   home + "tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
                                   "--events-backend", "file"], home)

    def look(self, one):
        tagged = "@" not in one.name
        seen = json.loads(self("image", "inspect", one.name if tagged else one.config[7:]).out)[0]
        right("podman's image", ("sha256:" + seen["Id"], seen["RootFS"]["Layers"],
                                 seen["Config"]["Labels"]["interop"]), one)
        same("podman's names for it", seen["RepoTags"], [one.name] if tagged else [])

    def read(self, one, paths):
        contents = read_files(self("image", "mount", one.config[7:]).out.strip(), paths)
        self("image", "umount", one.config[7:])
        return contents

    def forget(self, one):
        self("image", "rm", "-f", one.config[7:])

    def holds(self, one):
        return self("image", "exists", one.config[7:], wanted=None).code == 0


class Containerd(Runtime):
    """A containerd of its own."""

    stdin = ["images", "import", "--snapshotter", "native", "-"]
    fetch = ["images", "pull", "--plain-http", "--snapshotter", "native"]

    def __init__(self, lab, name=None):
        super().__init__(lab, name)
        self.client = ["ctr", "-a", self.home + "sock", "-n", "interop"]
        config = write(self.home + "config.toml", """
            version = 2
            root = "%(home)sroot"
            state = "%(home)sstate"
            disabled_plugins = ["io.containerd.grpc.v1.cri"]
            [grpc]
            address = "%(home)ssock"
            [ttrpc]
            address = "%(home)sttrpc"
            """ % {"home": self.home})
        lab.serve(["containerd", "-c", config], self.is_up)

    def load(self, path):
        return one_line(self("images", "import", "--snapshotter", "native", path).out)

    def names(self, one):
        rows = [line.split() for line in self("images", "ls").out.splitlines()[1:]]
        return [row[0] for row in rows if row[2] == one.digest]

    def look(self, one):
        same("containerd's names for it", self.names(one), [one.name])
        status = self("images", "check", "--snapshotter", "native", "name==" + one.name).out.splitlines()[1].split()
        blobs = len(one.layers) + 1
        same("containerd's check", status[3:5] + status[-1:], ["complete", "(%d/%d)" % (blobs, blobs), "true"])
        config = json.loads(self("content", "get", one.config).out)
        right("containerd's image", (one.config, config["rootfs"]["diff_ids"],
                                     config["config"]["Labels"]["interop"]), one)

    def read(self, one, paths):
        # A directory of its own: ctr names the snapshot after it, and would mount an earlier one
        # of that name that is still being cleared away.
        root = tempfile.mkdtemp(dir=self.lab.path("mounted", ""))
        self("images", "mount", "--snapshotter", "native", one.name, root)
        contents = read_files(root, paths)
        self("images", "unmount", "--rm", "--snapshotter", "native", root)
        return contents

    def forget(self, one):
        self("images", "rm", "--sync", *self.names(one))

    def holds(self, one):
        """It lists an image whose layers it lacks; what counts is whether it finds it complete."""
        row = self("images", "check", "--snapshotter", "native", "name==" + one.name).out.splitlines()[1:]
        return bool(row) and " complete " in row[0]


class Skopeo:
    """skopeo, through one of its transports."""

    def __init__(self, lab, transport):
        self.lab, self.transport = lab, transport
        self.tagged = False  # whether it has to be told which image, though there is only one

    def take(self, path, truths):
        for one in truths:
            source = self.transport + ":" + path
            if len(truths) > 1 or self.tagged:  # which: docker's by name, OCI's by tag, or by name if two have that tag
                tags = [each.name.rpartition(":")[2] for each in truths]
                tag = one.name.rpartition(":")[2]
                by_tag = self.transport == "oci-archive" and tags.count(tag) == 1
                source += ":" + (tag if by_tag else one.name)
            out = tempfile.mkdtemp(dir=self.lab.path("skopeo", ""))
            self.lab.skopeo("copy", "--quiet", source, "dir:" + out)
            with open(os.path.join(out, "manifest.json"), "rb") as file:
                data = file.read()
            body = json.loads(data.decode())
            with open(os.path.join(out, body["config"]["digest"][7:])) as file:
                config = json.load(file)
            right("skopeo's image", (body["config"]["digest"], config["rootfs"]["diff_ids"],
                                     config["config"]["Labels"]["interop"]), one)
            if self.transport == "oci-archive":
                same("skopeo's digest", "sha256:" + hashlib.sha256(data).hexdigest(), one.manifest)
            for each in body["layers"]:
                same("a layer's digest", sha256_of(os.path.join(out, each["digest"][7:])), each["digest"][7:])
            shutil.rmtree(out)
        return "copied and hashed"


def loaders(lab):
    return [("docker load", lab.once(Docker)), ("podman load", lab.once(Podman)),
            ("ctr images import", lab.once(Containerd)), ("skopeo docker-archive", Skopeo(lab, "docker-archive")),
            ("skopeo oci-archive", Skopeo(lab, "oci-archive"))]


# ---------------------------------------------------------------------------------------------------------------------
# The checks

# Title, images ("@" stands for one by its digest), options (OWN for this host's architecture).
ARCHIVES = [
    ("OCI", ["busybox:oci"], []),
    ("Docker schema 2", ["busybox:v2s2"], []),
    ("debootstrap", ["minbase:1"], []),
    ("index, this platform", ["many:index"], []),
    ("Docker list, this platform", ["many:list"], []),
    ("index, --platform all", ["many:index"], ["--platform", "all"]),
    ("several images", ["busybox:oci", "thrice:1", "many:index"], []),
    ("several images, OCI and Docker", ["busybox:oci", "thrice:1", "busybox:v2s2"], []),
    ("several images, one tag", ["mini:1", "thrice:1"], []),
    ("index, two platforms of three", ["many:index"], ["--platform", "linux/OWN,linux/s390x"]),
    ("by digest", ["busybox@"], []),
    ("a layer thrice", ["thrice:1"], []),
    ("60 layers", ["sixty:1"], [])]

REFUSALS = {  # what a loader is known not to do, and its words
    ("several images, OCI and Docker", "skopeo oci-archive"): "no descriptor found for reference"}


def archive(lab, names, options=(), port=None, **more):
    """Pull images of the table with imgpull: the archive's path, and what each image in it has to be."""
    port, truths = port or lab.once(plain_registry), []
    options = [option.replace("OWN", own_architecture()) for option in options]
    for name in names:
        one = truth(lab, lab.once(image, name.replace("@", ":oci")))
        if name.endswith("@"):
            one = truth(lab, name + one.digest)
        if not any(option == "all" or "," in option for option in options):  # one platform's manifest alone
            one = one._replace(digest=one.manifest)
        truths.append(one)
    path = lab.path("archives", "%d.tar" % len(os.listdir(lab.path("archives", ""))))
    references = [one.name.replace(":%d/" % lab.once(plain_registry), ":%d/" % port) for one in truths]
    lab.imgpull("--scheme", "http", *(options + references + [path]), **more)
    return path, truths


def intact(path, truths, omitted=()):
    """Hash every blob of an archive, and see that each image is all there."""
    found = set()
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.startswith("blobs/"):
                same(member.name, hashlib.sha256(tar.extractfile(member).read()).hexdigest(), member.name[-64:])
                found.add("sha256:" + member.name[-64:])
    for one in truths:
        missing = {one.digest, one.manifest, one.config}.union(one.layers) - found
        same("what is missing in " + path, missing, set(omitted).intersection(one.layers))


def interpreters():
    """The oldest and the newest Python here that imgpull is meant for."""
    found = {}
    home = os.path.expanduser("~")
    for path in [sys.executable] + glob.glob(home + "/.pyenv/versions/*/bin/python3") + glob.glob("/usr/bin/python3"):
        code = "import sys; print('%d %d %d' % sys.version_info[:3])"
        found[tuple(int(part) for part in run([path, "-c", code]).out.split())] = path
    usable = sorted(version for version in found if version >= (3, 6))
    return [(".".join(map(str, version)), found[version]) for version in (usable[0], usable[-1])]


@check
def loading(lab):
    """Archives of every kind, loaded by every loader."""
    for title, names, options in ARCHIVES:
        truths = []
        with case("%s: pulled" % title) as saw:
            path, truths = archive(lab, names, options)
            intact(path, truths)
            saw("%d bytes" % os.path.getsize(path))
        for loader, tool in loaders(lab) if truths else ():
            with case("%s: %s" % (title, loader)) as saw:
                try:
                    saw(tool.take(path, truths))
                except Fault as error:
                    if REFUSALS.get((title, loader), "no refusal") not in str(error):
                        raise
                    saw("refused, as known: " + one_line(str(error)))


@check
def some_platforms(lab):
    """Two platforms of three in one archive, with their index: who asks for one of them gets it."""
    path, (one,) = archive(lab, ["many:index"], ["--platform", "linux/OWN,linux/s390x"])
    containerd, skopeo = lab.once(Containerd), lab.private(["skopeo", "--insecure-policy"])
    imports, copy = containerd.client + ["images", "import"], ["copy", "--quiet", "oci-archive:" + path]
    for title, command, words in (
            ("ctr --platform", imports + ["--platform", "linux/s390x", "--snapshotter", "native", path], ""),
            ("ctr --platform, of the one left out", imports + ["--platform", "linux/arm/v7", path], "not found"),
            ("ctr --all-platforms", imports + ["--all-platforms", "--snapshotter", "native", path], "not found"),
            ("skopeo --override-arch", skopeo + ["--override-arch", "s390x"] + copy, ""),
            ("skopeo --override-arch, of the one left out", skopeo + ["--override-arch", "arm"] + copy, "no such file"),
            ("skopeo copy --all", skopeo + copy + ["--all"], "no such file")):
        with case(title) as saw:
            out = tempfile.mkdtemp(dir=lab.path("skopeo", ""))
            ran = run(command + ["dir:" + out] * (command[0] == "unshare"), env=lab.env, wanted=None)
            saw(one_line(ran.out + ran.err) or "taken")
            same("being refused", bool(ran.code), bool(words))
            same("the words for it", words in ran.err, True)
            containerd("images", "rm", "--sync", one.name)


@check
def fronts(lab):
    """Private CAs, client certificates, passwords and tokens, at real registries and nginx."""
    files = lab.once(authority)
    ca, client = ["--cacert", files + "ca.crt"], ["--cert", files + "client.crt", "--key", files + "client.key"]
    user, stranger = ["--user", "alice", "--password", "s3cret"], ["--user", "alice", "--password", "wr0ng"]
    plain, tls, mtls, htpasswd = (lab.once(make) for make in (plain_registry, tls_registry, mtls_registry,
                                                              htpasswd_registry))
    (token, asked), front = lab.once(token_registry), lab.once(nginx)
    rows = [  # title, port, options, environment, exit code, words to be seen on stderr
        ("http", plain, ["--scheme", "http"], {}, 0, ""),
        ("http registry on this host, nothing said", plain, [], {}, 0, ""),
        ("http registry asked over https", plain, ["-s", "https"], {}, 1, "--scheme http"),
        ("private CA", tls, ca, {}, 0, ""),
        ("private CA in SSL_CERT_FILE", tls, [], {"SSL_CERT_FILE": files + "ca.crt"}, 0, ""),
        ("private CA not given", tls, [], {}, 1, "--cacert"),
        ("--insecure", tls, ["--insecure"], {}, 0, "warning"),
        ("https registry asked over http", tls, ["--scheme", "http"], {}, 1, "leave out --scheme http"),
        ("client certificate", mtls, ca + client, {}, 0, ""),
        ("no client certificate", mtls, ca, {}, 1, "--cert"),
        ("client certificate at nginx", front, ca + client, {}, 0, ""),
        ("no client certificate at nginx", front, ca, {}, 1, "--cert"),
        ("htpasswd", htpasswd, ca + user, {}, 0, ""),
        ("htpasswd, --password-stdin", htpasswd, ca + ["--user", "alice", "--password-stdin"], {}, 0, ""),
        ("htpasswd, --token", htpasswd, ca + ["--token", base64.b64encode(b"alice:s3cret").decode()], {}, 0, ""),
        ("htpasswd, wrong password", htpasswd, ca + stranger, {}, 3, "no access"),
        ("htpasswd, nobody", htpasswd, ca, {}, 3, "--user"),
        ("token", token, ca + user, {}, 0, ""),
        ("token, --token", token, ca + ["--token", sign(lab)], {}, 0, ""),
        ("token, wrong password", token, ca + stranger, {}, 3, "no access"),
        ("token, nobody", token, ca, {}, 3, "--user")]
    one = truth(lab, lab.once(image, "busybox:oci"))
    for (version, python), (title, port, options, env, code, words) in itertools.product(interpreters(), rows):
        with case("Python %s, %s" % (version, title)) as saw:
            out = lab.path("fronts", "out.tar")
            ran = lab.imgpull("127.0.0.1:%d/busybox:oci" % port, out, *options, env=env, wanted=code,
                              stdin=b"s3cret\n", python=python)
            saw(one_line(ran.err) or "pulled")
            if words not in ran.err or "Traceback" in ran.err or "s3cret" in ran.err or "wr0ng" in ran.err:
                raise Fault("not what stderr should say")
            same("what is left behind", os.listdir(os.path.dirname(out)), [] if code else ["out.tar"])
            if code == 0:
                intact(out, [one])
                os.remove(out)
    same("the token server's queries with a scope", {"repository%3Abusybox%3Apull" in query.replace(":", "%3A")
                                                     for query in asked}, {True})


@check
def logins(lab):
    """A host set up by docker login, podman login and certs.d pulls with no options at all."""
    port = lab.once(htpasswd_registry)
    host, files, home = "127.0.0.1:%d" % port, lab.once(authority), lab.path("settled", "")
    certificates = lab.path("settled", ".config", "containers", "certs.d", host, "")
    shutil.copy(files + "ca.crt", certificates)
    login = ["login", "--username", "alice", "--password-stdin"]
    docker, podman, podmans = lab.once(Docker), lab.once(Podman), home + "containers/auth.json"
    podman(*login, "--tls-verify=false", host, stdin=b"s3cret")
    docker("--config", home + ".docker", *login, host, stdin=b"s3cret")
    podman(*login, "--tls-verify=false", "--authfile", podmans, host, stdin=b"s3cret")
    one, out = truth(lab, lab.once(image, "busybox:oci")), home + "out.tar"
    for title, env, code in (
            ("docker login", {"HOME": home}, 0),
            ("docker login, $DOCKER_CONFIG", {"HOME": home, "DOCKER_CONFIG": home + ".docker"}, 0),
            ("podman login", {"HOME": home, "DOCKER_CONFIG": "/nowhere"}, 0),
            ("podman login, $XDG_RUNTIME_DIR",
             {"HOME": home, "DOCKER_CONFIG": "/nowhere", "XDG_RUNTIME_DIR": home}, 0),
            ("podman login, $REGISTRY_AUTH_FILE",
             {"HOME": home, "DOCKER_CONFIG": "/nowhere", "REGISTRY_AUTH_FILE": podmans}, 0),
            ("no login", {"HOME": home, "DOCKER_CONFIG": "/nowhere"}, 3)):
        with case(title) as saw:
            places = {"host": podman} if title == "podman login" else {}
            ran = lab.imgpull(host + "/busybox:oci", out, env=env, wanted=code, **places)
            saw(one_line(ran.err) or "pulled")
            if code == 0:
                intact(out, [one])
                os.remove(out)
    shutil.rmtree(certificates)
    certificates = lab.path("settled", ".config", "containers", "certs.d", "127.0.0.1:%d" % lab.once(mtls_registry), "")
    for source, name in (("ca.crt", "ca.crt"), ("client.crt", "client.cert"), ("client.key", "client.key")):
        shutil.copy(files + source, certificates + name)
    with case("client certificate in certs.d") as saw:
        lab.imgpull("127.0.0.1:%d/busybox:oci" % lab.once(mtls_registry), out, env={"HOME": home})
        intact(out, [one])
        saw("pulled")


@check
def proxies(lab):
    """tinyproxy with a password, plain and by CONNECT."""
    port, log = lab.once(tinyproxy)
    plain, tls, files = lab.once(plain_registry), lab.once(tls_registry), lab.once(authority)
    proxy, closed = "http://bob:pr0xy@127.0.0.1:%d" % port, "http://127.0.0.1:%d" % free_port()
    one = truth(lab, lab.once(image, "busybox:oci"))
    http_, https = ["--scheme", "http"], ["--cacert", files + "ca.crt"]
    for title, target, options, env, code, line in (
            ("http", plain, http_, {"http_proxy": proxy}, 0, "GET http://127.0.0.1:%d/v2/busybox/" % plain),
            ("https", tls, https, {"https_proxy": proxy}, 0, "CONNECT 127.0.0.1:%d " % tls),
            ("https, HTTPS_PROXY", tls, https, {"HTTPS_PROXY": proxy}, 0, "CONNECT 127.0.0.1:%d " % tls),
            ("all_proxy", tls, https, {"all_proxy": proxy}, 0, "CONNECT 127.0.0.1:%d " % tls),
            ("no_proxy", tls, https, {"https_proxy": closed, "no_proxy": "127.0.0.0/8"}, 0, ""),
            ("http, no password", plain, http_, {"http_proxy": proxy.replace("bob:pr0xy@", "")}, 3, "GET http://"),
            ("https, wrong password", tls, https, {"https_proxy": proxy.replace("pr0xy", "pr0")}, 3, "CONNECT 127.0"),
            ("proxy that is down", tls, https + ["--retries", "0"], {"https_proxy": closed}, 4, "")):
        with case(title) as saw:
            open(log, "w").close()
            out = lab.path("proxies", "out.tar")
            ran = lab.imgpull("127.0.0.1:%d/busybox:oci" % target, out, *options, env=env, wanted=code)
            with open(log) as file:
                used = file.read()
            saw(one_line(ran.err) or "pulled, tinyproxy saw %d requests" % used.count("Request (file"))
            if line not in used or (code and "proxy" not in ran.err) or "pr0" in ran.err.replace("proxy", ""):
                raise Fault("the proxy saw %r" % used)
            if code == 0:
                intact(out, [one])
                os.remove(out)


# Server, options, REF below the server, containerd's reference, the path of the mirror in its
# hosts.toml (None: without one), containerd's query.
MIRRORS = [
    ("docker-registry", ["--ns", "docker.io"], "busybox:hub", "docker.io/library/busybox:hub", "", "?ns=docker.io"),
    ("docker-registry", ["--ns", "Index.Docker.IO/"], "busybox:hub", "docker.io/library/busybox:hub", "",
     "?ns=docker.io"),
    ("docker-registry", ["--ns", "quay.io"], "library/busybox:hub", "quay.io/library/busybox:hub", "", "?ns=quay.io"),
    ("ociregistry", ["--ns", "docker.io"], "library/busybox:hub", "docker.io/library/busybox:hub", "", "?ns=docker.io"),
    ("ociregistry", ["--ns", "Quay.IO"], "library/busybox:hub", "quay.io/library/busybox:hub", "", "?ns=quay.io"),
    ("ociregistry", ["--ns", "quay.io"], "quay.io/library/busybox:hub", "quay.io/library/busybox:hub", None, ""),
    ("below a prefix", ["--name", "docker.io/library/busybox:hub"], "proxy/library/busybox:hub",
     "docker.io/library/busybox:hub", "/v2/proxy", "?ns=docker.io")]


def by_containerd(lab, host, reference, prefix):
    """Have containerd pull a reference from a mirror, which a hosts.toml names.

    prefix: the path before the repository there; None: no hosts.toml, but the registry's name
        stands in the path
    """
    containerd = lab.once(Containerd)
    if prefix is None:
        containerd(*containerd.fetch, "%s/%s" % (host, reference))
        return
    directory = lab.path("hosts", "")
    write(os.path.join(directory, reference.partition("/")[0], "hosts.toml"), """
        [host."http://%s%s"]
          capabilities = ["pull", "resolve"]
          override_path = %s
        """ % (host, prefix, "true" if prefix else "false"))
    containerd("images", "pull", "--hosts-dir", directory, "--snapshotter", "native", reference)


@check
def mirrors(lab):
    """A pull-through docker-registry, and a server as ociregistry: asked as containerd asks them."""
    any_port, any_asked = lab.once(any_mirror)
    docker, containerd = lab.once(Docker), lab.once(Containerd)
    servers = {"docker-registry": lab.once(mirror_registry), "ociregistry": any_port,
               "below a prefix": lab.once(plain_registry)}

    def asked(port):
        return list(any_asked) if port == any_port else requested(lab, port)

    for server, options, path, reference, prefix, query in MIRRORS:
        name = "proxy/library/busybox:hub" if prefix else "library/busybox:hub"
        port, tag = servers[server], "/manifests/hub"
        with case("%s, %s %s" % (server, " ".join(options), path)) as saw:
            host, one = "127.0.0.1:%d" % port, truth(lab, lab.once(image, name), reference)
            start = len(asked(port))
            by_containerd(lab, host, reference, prefix)
            pulled = one if prefix is not None else one._replace(name="%s/%s" % (host, reference))
            containerd.look(pulled)
            containerd.forget(pulled)
            middle = len(asked(port))
            out = lab.path("mirrors", "%d.tar" % len(os.listdir(lab.path("mirrors", ""))))
            lab.imgpull("--scheme", "http", *(options + ["%s/%s" % (host, path), out]))
            theirs, ours = set(asked(port)[start:middle]), set(asked(port)[middle:])
            same("containerd's queries", {each.partition(tag)[2] for each in theirs if tag in each}, {query})
            if "--name" in options:  # to a registry, not to a mirror: nothing is said of a namespace
                theirs, query = {each.partition("?")[0] for each in theirs}, ""
            same("what containerd does not ask for", ours - theirs, set())
            same("what imgpull does not ask for", {each.partition("/manifests/sha256:")[1] for each in theirs - ours},
                 {"/manifests/sha256:"})
            same("imgpull's queries", {"?" * bool(sign) + text for _, sign, text in
                                       (each.partition("?") for each in ours)}, {query})
            intact(out, [one])
            saw("%d requests, as containerd's" % len(ours))
            for tool in (docker, containerd):
                saw(tool.take(out, [one]))
    with case("the registry in the path and in the query at once") as saw:
        url = "http://127.0.0.1:%d/v2/quay.io/library/busybox/manifests/hub?ns=quay.io" % any_port
        try:
            urllib.request.urlopen(url)
        except urllib.error.HTTPError as error:
            same("the answer", error.code, 400)
            saw("a 400")
        else:
            raise Fault("not refused")


WALK = ["http", "http", "login", "login", "mirror"]  # where each five of the walk's images are, over and over
LARGE, MOVED, RENAMED = (0, 8, 16, 24, 32), {0: True, 8: True, 24: True, 5: False, 7: False}, 2  # numbers of images
# Large enough for two kills: each costs some 1 MB, what is in the buffers of imgpull and the relay.
LARGE_MIB = 16


def walk_image(lab, number, month):
    """Build and push an image of the walk; in the second month, some have moved on."""
    layers = ["busybox"] + ["noise:walk%d:%d" % (number, LARGE_MIB)] * (number in LARGE) + ["text:walk%d" % number]
    if month and number in MOVED:
        layers += ["text:later%d" % number] + ["noise:later%d:8" % number] * MOVED[number]
    build(lab, "walk/%02d:1" % number, "oci", {None: layers})


class Bundle:
    """What is carried in one file: a list of images, and how imgpull is called for it."""

    def __init__(self, lab, numbers, hosts, options, env):
        self.lab, self.numbers, self.hosts, self.options, self.env = lab, numbers, hosts, options, env
        self.list = lab.path("walk", "%d.txt" % len(numbers))
        lines = ["# what goes over\r", ""]
        for number in numbers:
            scheme = "http://" if WALK[number % 5] == "http" else ""
            renamed = " team/renamed:1" if number == RENAMED else ""
            lines.append("%s%s/walk/%02d:1%s\r" % (scheme, hosts[number % 5], number, renamed))
        write(self.list, "\n".join(lines))

    def command(self, out, *options):
        return [sys.executable, self.lab.program] + self.options + list(options) + ["--from", self.list, out]

    def truths(self):
        """What the images have to be now."""
        truths = []
        for number in self.numbers:
            host = "docker.io" if "--ns" in self.options else self.hosts[number % 5]
            called = "docker.io/team/renamed:1" if number == RENAMED else "%s/walk/%02d:1" % (host, number)
            truths.append(truth(self.lab, "walk/%02d:1" % number, called))
        return truths


def killed(command, env, sent, threshold, pause=0):
    """Run a command, and kill it so many seconds after sent() has passed a threshold."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and sent() < threshold:
        time.sleep(0.005)
    time.sleep(pause)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        raise Fault("it ended by itself, with %s, after %d bytes" % (process.returncode, sent()))


def blob_bytes(path):
    """The bytes of all blobs in an archive."""
    with tarfile.open(path) as tar:
        return sum(member.size for member in tar if member.name.startswith("blobs/"))


def carry_on(tool, path):
    """Load a delta whose tags move on.

    containerd 1.6 clears the old version away while it unpacks the new one upon it, and mostly
    loses this race with itself: it has all that it takes, and unpacks it the second time.
    """
    try:
        tool.load(path)
    except Fault as error:
        if "parent snapshot" not in str(error):
            raise
        tool.load(path)


@check
def walk(lab):
    """40 images of three registries, from lists: killed, run again, carried, and a month later."""
    ports = [lab.once(make) for make in (plain_registry, htpasswd_registry, mirror_registry)]
    relays = [Relay(port, rate=10e6) for port in ports]
    hosts = ["127.0.0.1:%d" % relays[("http", "login", "mirror").index(kind)].port for kind in WALK]
    home, login = lab.path("walk", "home", ""), WALK.index("login")
    stored = {"auths": {hosts[login]: {"auth": base64.b64encode(b"alice:s3cret").decode()}}}
    write(home + ".docker/config.json", json.dumps(stored))
    certificates = lab.path("walk", "home", ".config", "containers", "certs.d", hosts[login], "")
    shutil.copy(lab.once(authority) + "ca.crt", certificates)
    env = dict(lab.env, HOME=home)
    for number in range(40):
        walk_image(lab, number, 0)
    mirrored = [number for number in range(40) if WALK[number % 5] == "mirror"]
    direct = [number for number in range(40) if number not in mirrored]
    bundles = [(Bundle(lab, direct, hosts, [], env), (0.3, 0.6)),
               (Bundle(lab, mirrored, hosts, ["--ns", "docker.io", "--scheme", "http"], env), ())]

    def sent():
        return sum(relay.sent for relay in relays)

    def fetched(saw, start, path, kind):
        """See that hardly more has come since `start` than an archive has in it."""
        ratio = (sent() - start) / blob_bytes(path)
        saw("%.3f of what %s fetched, %d bytes" % (ratio, kind, sent() - start))
        if ratio > 1.05:
            raise Fault("more than 1.05")

    for bundle, kills in bundles:
        number, start = len(bundle.numbers), sent()
        first, second = lab.path("walk", "%d.tar" % number), lab.path("walk", "%d-delta.tar" % number)
        truths, large = bundle.truths(), LARGE_MIB * MIB * len(set(LARGE) & set(bundle.numbers))
        with case("%d images, killed %d times" % (number, len(kills))) as saw:
            for part in kills:
                killed(bundle.command(first), env, sent, start + part * large)
            saw(one_line(run(bundle.command(first), env=env).err))
            intact(first, truths)
            fetched(saw, start, first, "is new")
            saw(one_line(lab.imgpull("--verify", first).out))
        with case("%d images, once more, with nothing new" % number) as saw:
            before = sha256_of(first), os.stat(first).st_mtime_ns
            asked = [requested(lab, port) for port in ports]
            said = run(bundle.command(first), env=env).out
            same("being up to date", [line.endswith(" is up to date") for line in said.splitlines()], [True] * number)
            same("the archive", (sha256_of(first), os.stat(first).st_mtime_ns), before)
            layers = {digest for one in truths for digest in one.layers}
            again = [path for port, old in zip(ports, asked) for path in requested(lab, port)[len(old):]]
            same("layers fetched", layers & {path.partition("?")[0].rpartition("/")[2] for path in again}, set())
            saw("%d requests, none for a layer" % len(again))
        with case("%d images, loaded" % number) as saw:
            for tool in (lab.once(Docker), lab.once(Containerd)):
                tool.load(first)
                for one in truths[::4]:
                    tool.look(one)
            saw("by docker and containerd")
        with case("%d images, one tag: by full name" % number) as saw:
            podman = lab.once(Podman)
            for one in truths[:3]:
                source = "oci-archive:%s:%s" % (first, one.name)
                out = tempfile.mkdtemp(dir=lab.path("walk", "skopeo", ""))
                lab.skopeo("copy", "--quiet", source, "dir:" + out)
                same("skopeo's digest", "sha256:" + sha256_of(os.path.join(out, "manifest.json")), one.manifest)
                podman("pull", "--quiet", source)
                podman.look(one)
                podman.forget(one)
            saw("skopeo and podman reach three of them")
        for each in MOVED:
            if each in bundle.numbers:
                walk_image(lab, each, 1)
        later = bundle.truths()
        moved = [new for old, new in zip(truths, later) if old != new]
        with case("%d images, a month later" % number) as saw:
            start = sent()
            said = run(bundle.command(second, "--base", first), env=env).out
            fetched(saw, start, second, "is new")
            omitted = {digest for one in truths for digest in one.layers}
            intact(second, later, omitted)
            same("how many moved", len(moved), len([each for each in sorted(MOVED) if each in bundle.numbers]))
            saw(one_line(said.splitlines()[0]))
            saw(one_line(lab.imgpull("--verify", second, "--base", first).out))
        with case("%d images, the delta loaded" % number) as saw:
            for tool in (lab.once(Docker), lab.once(Containerd)):
                carry_on(tool, second)
                for one in later[::4] + moved:
                    tool.look(one)
                files = [file_of("text:later%d" % each) for each in sorted(MOVED) if each in bundle.numbers]
                same("a file", [tool.read(one, [path]) for one, path in zip(moved, files)],
                     [[b"layer %s\n" % path[len("layers/"):-len(".txt")].encode()] for path in files])
            saw("by docker and containerd")


@check
def bytes_written(lab):
    """The same bytes from the oldest and the newest Python, in 40 MiB of memory, each written once."""
    for title, names, options in ARCHIVES[:1] + ARCHIVES[5:7]:
        with case("same bytes: " + title) as saw:
            (old, old_path), (new, new_path) = interpreters()
            digests = {sha256_of(archive(lab, names, options, python=path)[0])
                       for path in (old_path, new_path, old_path)}
            same("the number of different archives", len(digests), 1)
            saw("Python %s and %s, sha256 %s" % (old, new, digests.pop()))
    for version, python in interpreters():
        for name in ("sixty:1", "giant:1"):
            with case("Python %s, %s" % (version, name)) as saw:
                reference = "127.0.0.1:%d/%s" % (lab.once(plain_registry), lab.once(image, name))
                out, log = lab.path("measured", "out.tar"), lab.path("measured", "time")
                run(["/usr/bin/time", "-f", "%M %O", "-o", log, python, lab.program, "--scheme", "http", reference,
                     out], env=lab.env)
                with open(log) as file:
                    kib, blocks = (int(word) for word in file.read().split())
                size = os.path.getsize(out)
                os.remove(out)
                saw("%.1f MiB of memory, %d bytes written for an archive of %d" % (kib / 1024, blocks * 512, size))
                if kib > 40 * 1024 or not size <= blocks * 512 < size * 1.01 + MIB:
                    raise Fault("too much")


@check
def kills(lab):
    """SIGKILL at 20 random moments of a pull of 320 MB; all told, hardly more is fetched than the image has."""
    one = truth(lab, lab.once(image, "parts:1"))
    for version, python in interpreters():
        with case("Python " + version) as saw:
            relay, dice = Relay(lab.once(plain_registry), rate=40e6), random.Random(version)
            out = lab.path("kills", "%s.tar" % version)
            command = [python, lab.program, "--scheme", "http", "127.0.0.1:%d/parts:1" % relay.port, out]
            for threshold in sorted(dice.uniform(0, 0.9 * one.size) for _ in range(20)):
                killed(command, lab.env, lambda relay=relay: relay.sent, threshold, dice.uniform(0, 0.1))
            run(command, env=lab.env)
            intact(out, [one])
            whole = archive(lab, ["parts:1"], ["--name", "127.0.0.1:%d/parts:1" % relay.port])[0]
            same("the archive", sha256_of(out), sha256_of(whole))
            same("what is left behind", glob.glob(out + ".*"), [])
            saw("20 kills, %.3f of the image fetched" % (relay.sent / one.size))
            if relay.sent > 1.1 * one.size:
                raise Fault("more than 1.1")


@check
def full_disks(lab):
    """A file system that is too small, and one that another program fills midway."""
    one = truth(lab, lab.once(image, "stream:1"))
    disk = lab.path("disk", "")
    run(["mount", "-t", "tmpfs", "-o", "size=40m", "interop", disk])
    with case("full at the start") as saw:
        write(disk + "other", "x" * 20 * MIB)
        ran = lab.imgpull("--scheme", "http", one.name, disk + "out.tar", wanted=6)
        same("what is left behind", os.listdir(disk), ["other"])
        os.remove(disk + "other")
        saw(one_line(ran.err))
    with case("filled midway, and then not") as saw:
        relay = Relay(lab.once(plain_registry), rate=20e6)
        command = [sys.executable, lab.program, "--scheme", "http", "127.0.0.1:%d/stream:1" % relay.port,
                   disk + "out.tar"]
        process = subprocess.Popen(command, env=lab.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while relay.sent < 8 * MIB and process.poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(OSError), open(disk + "other", "wb", buffering=0) as file:
            while file.write(bytes(MIB)):
                pass
        said = process.communicate()[1].decode()
        saw(one_line(said))
        same("exit code", process.returncode, 6)
        same("saying how to resume", "run the same command again to resume" in said, True)
        same("what is left behind", sorted(os.listdir(disk)), ["other", "out.tar.part", "out.tar.part.state"])
        os.remove(disk + "other")
        saw(one_line(run(command, env=lab.env).err))
        intact(disk + "out.tar", [one])
        same("what is left behind", os.listdir(disk), ["out.tar"])
        saw("%.3f of the image fetched" % (relay.sent / one.size))
        if relay.sent > 1.1 * one.size:
            raise Fault("more than 1.1")
    run(["umount", disk])


@check
def artifacts(lab):
    """A chart in a registry: no image, but an OCI layout that skopeo takes as it is."""
    with case("chart") as saw:
        kind = "application/vnd.cncf.helm."
        body = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": dict(store(lab, b'{"name": "chart"}'), mediaType=kind + "config.v1+json"),
                "layers": [dict(store(lab, b"any bytes"), mediaType=kind + "chart.content.v1.tar+gzip")]}
        push(lab, dict(store(lab, json.dumps(body).encode()), mediaType=body["mediaType"]), "chart:1", "oci")
        out, digests = lab.path("artifacts", "chart.tar"), [body["config"]["digest"], body["layers"][0]["digest"]]
        saw(one_line(lab.imgpull("--scheme", "http", "127.0.0.1:%d/chart:1" % lab.once(plain_registry), out).err))
        with tarfile.open(out) as tar:
            names = tar.getnames()
        same("manifest.json there", "manifest.json" in names, False)
        same("what it lacks", [each for each in digests if "blobs/sha256/" + each[7:] not in names], [])
        lab.skopeo("copy", "--quiet", "oci-archive:" + out, "dir:" + lab.path("artifacts", "chart"))
        saw(one_line(lab.imgpull("--list-tar", out).out))
        saw(one_line(lab.imgpull("--verify", out).out))


COSIGN, BUNDLE = "dev.cosignproject.cosign/", "application/vnd.dev.sigstore.bundle"
OCI = "application/vnd.oci.image."


def openssl_key(lab):
    """The path, without its ending, of a key as "cosign generate-key-pair" makes them: .key and .pub."""
    path = lab.path("signing", "cosign")
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path + ".key"])
    run(["openssl", "pkey", "-in", path + ".key", "-pubout", "-out", path + ".pub"])
    return path


def signed(lab, data):
    """The signature of bytes, in base64."""
    path = lab.path("signing", "data")
    with open(path, "wb") as file:
        file.write(data)
    command = ["openssl", "dgst", "-sha256", "-sign", lab.once(openssl_key) + ".key", path]
    return base64.b64encode(subprocess.check_output(command)).decode()


def verified(lab, data, signature):
    """What openssl says of a signature in base64: exit code 0 if it is right."""
    paths = lab.path("signing", "data"), lab.path("signing", "signature")
    for path, content in zip(paths, (data, base64.b64decode(signature))):
        with open(path, "wb") as file:
            file.write(content)
    run(["openssl", "dgst", "-sha256", "-verify", lab.once(openssl_key) + ".pub", "-signature", paths[1], paths[0]])


def pae(envelope):
    """The bytes that the signature of a DSSE envelope is of."""
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def old_signature(lab, target):
    """The descriptor of a manifest as cosign 1 and 2 push it for a target (a descriptor): without subject."""
    payload = json.dumps({"critical": {"identity": {"docker-reference": "interop"}, "image": {
        "docker-manifest-digest": target["digest"]}, "type": "cosign container image signature"}, "optional": None})
    stored = store(lab, payload.encode())
    config = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [stored["digest"]]}}
    layer = dict(stored, mediaType="application/vnd.dev.cosign.simplesigning.v1+json",
                 annotations={COSIGN + "signature": signed(lab, payload.encode())})
    body = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
            "config": dict(store(lab, json.dumps(config).encode()), mediaType=OCI + "config.v1+json"),
            "layers": [layer]}
    return dict(store(lab, json.dumps(body).encode()), mediaType=body["mediaType"])


def new_signature(lab, target):
    """The same as cosign 3 pushes it: a bundle, in a manifest with a subject."""
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://sigstore.dev/cosign/sign/v1",
                 "predicate": {}, "subject": [{"digest": {"sha256": target["digest"][7:]}}]}
    envelope = {"payload": base64.b64encode(json.dumps(statement).encode()).decode(),
                "payloadType": "application/vnd.in-toto+json"}
    envelope["signatures"] = [{"sig": signed(lab, pae(envelope))}]
    kind = BUNDLE + ".v0.3+json"
    bundle = {"mediaType": kind, "verificationMaterial": {"publicKey": {"hint": "interop"}}, "dsseEnvelope": envelope}
    body = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "artifactType": kind, "subject": target,
            "config": dict(store(lab, b"{}"), mediaType="application/vnd.oci.empty.v1+json"),
            "layers": [dict(store(lab, json.dumps(bundle).encode()), mediaType=kind)],
            "annotations": {"dev.sigstore.bundle.predicateType": statement["predicateType"]}}
    return dict(store(lab, json.dumps(body).encode()), mediaType=body["mediaType"])


def cosign_finds(directory):
    """What "cosign verify --local-image" looks up in an image layout.

    ("old" or "new", the target's descriptor, digests of bundles, or of payloads with their signatures)
    """
    def document(digest):
        with open(os.path.join(directory, "blobs", "sha256", digest[7:]), "rb") as file:
            return json.loads(file.read().decode())

    with open(os.path.join(directory, "index.json")) as file:
        tops = json.load(file)["manifests"]
    kinds = {}  # of several of a kind, the first one counts
    for top in tops:
        kinds.setdefault(top.get("annotations", {}).get("kind", "").replace(COSIGN, ""), top)
    bundles = []
    for name in sorted(os.listdir(os.path.join(directory, "blobs", "sha256"))) if "image" in kinds else ():
        try:
            body = document("sha256:" + name)
        except ValueError:
            continue
        if (body.get("subject") or {}).get("digest") == kinds["image"]["digest"]:
            bundles += [each["digest"] for each in body["layers"] if each["mediaType"].startswith(BUNDLE)]
    if bundles:
        return "new", kinds["image"], bundles
    for kind, media_type in (("image", "manifest.v1+json"), ("imageIndex", "index.v1+json")):
        if kind in kinds:
            same("the media type of what is of the kind " + kind, kinds[kind]["mediaType"], OCI + media_type)
    layers = document(kinds["sigs"]["digest"])["layers"]
    return "old", kinds.get("imageIndex") or kinds["image"], [
        (each["digest"], each["annotations"][COSIGN + "signature"]) for each in layers]


def check_signature(lab, path, form, one):
    """Unpack an archive, find the signature as cosign does, and verify it: it has to lead to the image."""
    directory = lab.path("far", "")
    run(["tar", "-xf", path, "-C", directory])

    def blob(digest):
        with open(os.path.join(directory, "blobs", "sha256", digest[7:]), "rb") as file:
            return file.read()

    found, target, signatures = cosign_finds(directory)
    same("the form that cosign finds", found, form)
    for each in signatures:
        if form == "new":
            envelope = json.loads(blob(each).decode())["dsseEnvelope"]
            verified(lab, pae(envelope), envelope["signatures"][0]["sig"])
            subject = json.loads(base64.b64decode(envelope["payload"]).decode())["subject"][0]
            same("what is signed", "sha256:" + subject["digest"]["sha256"], target["digest"])
        else:
            payload = blob(each[0])
            verified(lab, payload, each[1])
            named = json.loads(payload.decode())["critical"]["image"]["docker-manifest-digest"]
            same("what is signed", named, target["digest"])
    body = json.loads(blob(target["digest"]).decode())
    named = {child["digest"] for child in body.get("manifests", [])} | {target["digest"]}
    same("the image being what is signed, or named by it", one.manifest in named, True)
    shutil.rmtree(directory)
    return "%s signature of %s" % (form, "an index" if "manifests" in body else "a manifest")


def pushed_signature(lab, name, form):
    """Sign an image of the table: its repository on the plain registry, and a fake registry that has the same.

    The fake one has the referrers API, with one entry a page.
    """
    import test_imgpull as tests
    lab.once(image, name)
    source = truth(lab, name)
    layout = lab.path("layout", "blobs", "sha256", "")

    def stored(digest):
        with open(layout + digest[7:], "rb") as file:
            return file.read()

    data = stored(source.digest)
    media_type = json.loads(data.decode())["mediaType"]
    target = {"mediaType": media_type, "digest": source.digest, "size": len(data)}
    signature = (old_signature if form == "old" else new_signature)(lab, target)
    copy = "signed/%s-%s" % (form, name.replace(":", "-"))
    push(lab, target, copy + ":1", "oci")
    tag = source.digest.replace(":", "-")
    if form == "old":
        push(lab, signature, "%s:%s.sig" % (copy, tag), "oci")
    else:
        index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [signature]}
        top = dict(store(lab, json.dumps(index).encode()), mediaType=index["mediaType"])
        push(lab, top, "%s:%s" % (copy, tag), "oci")
    fake = tests.FakeRegistry(page=1)
    for digest, places in ((source.digest, [source.digest, "1"]), (signature["digest"], [
            signature["digest"], tag + (".sig" if form == "old" else "-no")])):
        for place in places:
            part = stored(digest)
            kind = json.loads(part.decode())["mediaType"]
            fake.manifests[copy, place] = tests.Image(part, kind, digest, {}, (), (), b"", ())
    for child in json.loads(data.decode()).get("manifests", []):
        part = stored(child["digest"])
        fake.manifests[copy, child["digest"]] = tests.Image(part, child["mediaType"], child["digest"], {}, (), (),
                                                            b"", ())
    fake.blobs = {"sha256:" + each: stored("sha256:" + each) for each in os.listdir(layout)
                  if os.path.getsize(layout + each) < 16 * MIB}
    return copy, fake


@check
def signatures(lab):
    """--referrers: signatures that the far side can verify, in archives that load everywhere.

    In both of cosign's forms, from a registry that has tags alone and one that has the referrers API.
    """
    sys.path.insert(0, os.path.dirname(IMGPULL))
    names, every = ("busybox:oci", "many:index"), (("old", "new"), ([], ["--platform", "all"]))
    for name, form, options in itertools.product(names, *every):
        if name == "busybox:oci" and options:
            continue
        title, paths = "%s, %s form%s" % (name, form, " ".join([","] + options if options else [])), []
        with case(title + ": pulled, found as cosign does, verified by openssl") as saw:
            copy, fake = pushed_signature(lab, name, form)
            plain = "127.0.0.1:%d" % lab.once(plain_registry)
            for host in (plain, fake.host):
                paths.append(lab.path("signed", "%d.tar" % len(os.listdir(lab.path("signed", "")))))
                ran = lab.imgpull("--scheme", "http", "--referrers", "--name", "%s/%s:1" % (plain, copy), *(options + [
                    "%s/%s:1" % (host, copy), paths[-1]]))
                saw(ran.out.rpartition(", with ")[2].strip())
            fake.close()
            same("the archives of both", sha256_of(paths[0]), sha256_of(paths[1]))
            one = truth(lab, copy + ":1")
            saw(check_signature(lab, paths[0], form, one))
            one = one if options else one._replace(digest=one.manifest)
            intact(paths[0], [one])
            saw(one_line(lab.imgpull("--verify", paths[0]).out).partition(": ")[2])
        with tarfile.open(paths[0]) as tar:
            tops = json.loads(tar.extractfile("index.json").read().decode())["manifests"]
        for loader, tool in loaders(lab):
            with case("%s: %s" % (title, loader)) as saw:
                if loader == "skopeo oci-archive" and len(tops) > 1:
                    saw("without a tag: " + refused(tool.take, paths[0], [one]).rpartition("msg=")[2])
                    tool.tagged = True
                saw(tool.take(paths[0], [one]))
        with case(title + ": ctr images import --all-platforms, as k3s does") as saw:
            containerd = lab.once(Containerd)
            containerd("images", "import", "--all-platforms", "--no-unpack", paths[0])
            same("its names for it", containerd.names(one), [one.name])
            containerd.forget(one)
            saw("taken")


def pipe(lab, command, load):
    """`command | load`: both exit codes, and what both said."""
    with tempfile.TemporaryFile() as said:
        source = subprocess.Popen(command, env=lab.env, stdout=subprocess.PIPE, stderr=said)
        sink = subprocess.Popen(load, env=lab.env, stdin=source.stdout, stdout=said, stderr=said)
        source.stdout.close()
        codes = source.wait(), sink.wait()
        said.seek(0)
        return codes, one_line(said.read().decode("utf-8", "replace"))


@check
def streams(lab):
    """`imgpull … - | docker load`, and a pull that breaks midway, which must not load."""
    port = lab.once(plain_registry)
    command = [sys.executable, lab.program, "--quiet", "--scheme", "http"]
    whole, truths = archive(lab, ["stream:1"])
    with case("- gives the bytes that a file gets") as saw:
        streamed = lab.path("archives", "streamed.tar")
        with open(streamed, "wb") as file:
            subprocess.check_call(command + [truths[0].name, "-"], stdout=file, env=lab.env)
        same("the stream", sha256_of(streamed), sha256_of(whole))
        saw("%d bytes" % os.path.getsize(streamed))
    for title, tool in loaders(lab)[:3]:
        with case("broken midway, " + title) as saw:
            relay = Relay(port, cut=truths[0].size // 2)
            codes, said = pipe(lab, command + ["--retries", "1", "127.0.0.1:%d/stream:1" % relay.port, "-"],
                               tool.client + tool.stdin)
            saw("exit %d, %d: %s" % (codes + (said,)))
            if codes[0] != 4 or codes[1] == 0 or tool.holds(truths[0]):
                raise Fault("it loaded")
        with case("whole, " + title) as saw:
            codes, said = pipe(lab, command + [truths[0].name, "-"], tool.client + tool.stdin)
            saw(said)
            same("exit codes", codes, (0, 0))
            tool.look(truths[0])
            tool.forget(truths[0])


@check
def listings(lab):
    """--list-tar and --verify on what docker, podman, skopeo and imgpull save."""
    ours, (one, two) = archive(lab, ["busybox:oci", "thrice:1"])
    docker, podman = lab.once(Docker), lab.once(Podman)
    docker.load(ours)
    podman.load(ours)
    saved = lab.path("saved", "")
    docker("save", "-o", saved + "docker-save", one.name)
    docker("save", "-o", saved + "docker-save-of-two", one.name, two.name)
    for form in ("docker-archive", "oci-archive"):
        podman("save", "-q", "--format", form, "-o", saved + "podman-" + form, one.name)
        lab.skopeo("copy", "--quiet", "--src-tls-verify=false", "docker://" + one.name,
                   "%s:%sskopeo-%s:%s" % (form, saved, form, one.name if form == "docker-archive" else "oci"))
    podman("save", "-q", "-m", "-o", saved + "podman-of-two", one.name, two.name)
    shutil.copy(ours, saved + "imgpull-of-two")
    for each in (one, two):
        docker.forget(each)
        podman.forget(each)
    for name in sorted(os.listdir(saved)):
        with case(name) as saw:
            listed = lab.imgpull("--list-tar", saved + name).out
            names = [one.name, two.name] if name.endswith("two") else [one.name]
            if name == "skopeo-oci-archive":  # it keeps the tag alone
                names = ["oci"]
            missing = [text for text in names + ["linux/" + own_architecture()] if text not in listed]
            same("what the listing lacks", missing, [])
            saw(one_line(lab.imgpull("--verify", saved + name).out))
            with tarfile.open(saved + name) as tar:
                member = max(tar, key=lambda each: each.size)
            with open(saved + name, "rb+") as file:
                file.seek(member.offset_data + member.size // 2)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))
            bad = lab.imgpull("--verify", saved + name, wanted=5)
            saw("one bit wrong: " + one_line(bad.out + bad.err))
            same("saying so", "digest mismatch" in bad.out + bad.err, True)
            os.truncate(saved + name, member.offset_data + member.size // 2)
            saw("truncated: " + one_line(lab.imgpull("--verify", saved + name, wanted=5).err))


def kept(tool, path):
    """The configs of the images that docker or podman takes from an archive; they are removed."""
    tool("load", "-q", "-i", path, wanted=None)
    configs = set(tool("image", "ls", "--all", "--quiet", "--no-trunc").out.split())
    if configs:
        tool("image", "rm", "-f", *configs)
    return configs


def kept_by_containerd(containerd, path):
    """The same of containerd, where an image that it lists but could not unpack does not count."""
    code = containerd("images", "import", "--snapshotter", "native", path, wanted=None).code
    rows = [line.split() for line in containerd("images", "ls").out.splitlines()[1:]]
    manifests = [json.loads(containerd("content", "get", row[2]).out) for row in rows]
    if rows:
        containerd("images", "rm", "--sync", *[row[0] for row in rows])
    return set() if code else {body["config"]["digest"] for body in manifests}


def kept_by_skopeo(lab, transport, path, names):
    """The same of skopeo, which has to be told a name where an archive holds several images."""
    configs = set()
    for name in [""] + names:
        out = lab.path("skopeo-hostile", "")
        source = ":".join(filter(None, (transport, path, name)))
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", source, "dir:" + out]
        if run(lab.private(command), env=lab.env, wanted=None).code == 0:
            with open(out + "manifest.json") as file:
                configs.add(json.load(file)["config"]["digest"])
        shutil.rmtree(out)
    return configs


@check
def hostile(lab):
    """test_imgpull.py's hostile archives: refused, or --list-tar shows what any loader takes."""
    sys.path.insert(0, os.path.dirname(IMGPULL))
    import test_imgpull as tests
    docker, podman, containerd = (lab.once(make, "hostile-" + make.__name__.lower())
                                  for make in (Docker, Podman, Containerd))
    names, tags = [tests.APP, tests.OTHER], ["v1", "v2"]
    takers = [("docker", lambda path: kept(docker, path)),
              ("podman", lambda path: kept(podman, path)),
              ("ctr", lambda path: kept_by_containerd(containerd, path)),
              ("docker-archive", lambda path: kept_by_skopeo(lab, "docker-archive", path, names)),
              ("oci-archive", lambda path: kept_by_skopeo(lab, "oci-archive", path, tags))]
    safe, evil = ({tests.sha256(image.config), image.digest} for image in (tests.SAFE, tests.EVIL))
    path = lab.path("hostile", "archive.tar")

    def judge(row, saw):
        """imgpull's verdict on an archive, and the configs that each loader takes from it."""
        with open(path, "wb") as file:
            file.write(row.archive)
        said, taken = lab.imgpull("--verify", path, wanted=None), [take(path) for _, take in takers]
        saw(one_line(said.out + said.err))
        called = {each: name for name, image in (("SAFE", safe), ("EVIL", evil)) for each in image}
        for (name, _), configs in zip(takers, taken):
            images = sorted(called.get(each, each[:19]) for each in configs)
            saw("%s: %s" % (name, " and ".join(images) or "nothing"))
        return said.code, taken

    for row in tests.only(tests.HOSTILE):
        with case(row.name) as saw:
            code, taken = judge(row, saw)
            configs = set().union(*taken)
            same("being hostile", bool(configs - safe) if row.evil else not all(taken), True)
            if code == 0:
                listed = lab.imgpull("--list-tar", path).out
                hidden = [image for image in (safe, evil)
                          if not any(digest in listed for digest in image)]
                same("what --list-tar does not show", configs & set().union(*hidden), set())
                same("images that are unknown", configs - safe - evil, set())
    for row in tests.only(tests.GOOD):
        with case("good: " + row.name) as saw:
            code, taken = judge(row, saw)
            same("exit code", code, 0)
            same("images that are taken", len(set().union(*taken)), 1)
            same("being taken by three loaders at least", sum(map(bool, taken)) >= 3, True)


def refused(action, *args):
    """What a loader said when it would not; that it would is a Fault."""
    try:
        said = action(*args)
    except Fault as error:
        return one_line(str(error))
    raise Fault("not refused: %r" % (said,))


def on_top(tool, base, delta, truths, files):
    """Load a base and a delta; see that every image of the delta is whole, down to a file of each layer."""
    tool.load(base)
    said = tool.load(delta)
    for one in truths:
        tool.look(one)
    for spec, content in zip(files, tool.read(truths[0], [file_of(spec) for spec in files])):
        if spec.startswith("text:"):
            same(spec, content, b"layer %s\n" % spec[len("text:"):].encode())
    return said


@check
def deltas(lab):
    """An archive without the layers of version 1, on hosts that have version 1 and on hosts that do not."""
    base, (first,) = archive(lab, ["app:1"])
    delta, (second,) = archive(lab, ["app:2"], ["--base", base])
    shared = second.layers[:3]
    with case("what the delta holds") as saw:
        intact(delta, [second], shared)
        saw("%d bytes in place of %d" % (os.path.getsize(delta), second.size))
        saw(one_line(lab.imgpull("--verify", delta, "--base", base).out))
        alone = lab.imgpull("--verify", delta)
        saw(one_line(alone.out + alone.err))
        if "counts on 3 layers" not in alone.out + alone.err:
            raise Fault("it does not say what it counts on")
        same("omitted layers that are listed", [each in lab.imgpull("--list-tar", delta).out for each in shared],
             [True] * 3)
    files = IMAGES["app:2"][1][None]
    for make in (Docker, Podman, Containerd):
        title, tool = make.__name__, lab.once(make)
        with case("on top of version 1: " + title) as saw:
            saw(on_top(tool, base, delta, [second], files))
            tool.forget(first)  # version 2 has to stay whole when version 1 goes
            tool.look(second)
        with case("on a host without version 1: " + title) as saw:
            fresh = lab.once(make, "fresh-" + title.lower())
            saw(refused(fresh.load, delta))
            same("having the image", fresh.holds(second), False)
            refused(fresh.read, second, [])
        with case("everything in the base: " + title) as saw:
            empty = archive(lab, ["app:2"], ["--base", base, "--base", delta])[0]
            saw("%d bytes" % os.path.getsize(empty))
            saw(tool.load(empty))
            tool.look(second)
            tool.forget(second)
    with case("on a host without version 1: ctr images import --no-unpack, which looks at no layer") as saw:
        fresh = lab.once(Containerd, "fresh-containerd")
        fresh("images", "import", "--no-unpack", delta)
        same("having the image", fresh.holds(second), False)
        saw("taken, and listed as incomplete")
        saw(refused(fresh, "run", "--rm", "--snapshotter", "native", second.name, "interop", "true"))


@check
def delta_kinds(lab):
    """Deltas of several images and platforms, on a base that shares nothing; --reuse."""
    base = archive(lab, ["busybox:oci"])[0]
    for title, names, options, makers in (
            ("several images", ["thrice:1", "many:list"], [], (Docker, Containerd)),
            ("--platform all", ["many:index"], ["--platform", "all"], (Docker, Podman, Containerd))):
        with case(title) as saw:
            delta, truths = archive(lab, names, ["--base", base] + options)
            intact(delta, truths, truths[0].layers[:1])
            for tool in (lab.once(make) for make in makers):
                saw(on_top(tool, base, delta, truths, ["busybox"]))
                for one in truths:
                    tool.forget(one)
    podman = lab.once(Podman)
    podman.load(base)
    for title, names, by_tag in (
            ("several images", ["thrice:1", "many:index"], True),
            ("several images of one tag", ["thrice:1", "mini:1"], False)):
        with case(title + ": podman load will not, podman pull oci-archive:DELTA:%s will" % (
                "TAG" if by_tag else "NAME")) as saw:
            delta, truths = archive(lab, names, ["--base", base])
            saw(refused(podman.load, delta))
            for one in truths:
                reference = one.name.rpartition(":")[2] if by_tag else one.name
                saw(one_line(podman("pull", "-q", "oci-archive:%s:%s" % (delta, reference)).out))
                podman.look(one)
                same("a file", podman.read(one, ["bin/ls"]), podman.read(one, ["bin/busybox"]))
                podman.forget(one)
    with case("several images, Docker schema 2: podman wants a delta for each") as saw:
        names = ["busybox:v2s2", "many:list"]
        delta = archive(lab, names, ["--base", base])[0]
        saw(refused(podman.load, delta))
        for tag in ("v2s2", "list"):
            saw(refused(podman, "pull", "-q", "oci-archive:%s:%s" % (delta, tag)))
        for name in names:
            delta, (one,) = archive(lab, [name], ["--base", base])
            saw(podman.load(delta))
            podman.look(one)
            podman.forget(one)
    with case("base that shares nothing") as saw:
        whole, delta = (archive(lab, ["sixty:1"], options)[0] for options in ([], ["--base", base]))
        same("the archive", sha256_of(delta), sha256_of(whole))
        saw("same bytes as a plain pull")
    with case("--reuse") as saw:
        relay, version_1 = Relay(lab.once(plain_registry)), archive(lab, ["app:1"])[0]
        name = ["--name", "127.0.0.1:%d/app:2" % relay.port]
        whole, (second,) = archive(lab, ["app:2"], name)
        reused = archive(lab, ["app:2"], name + ["--reuse", version_1], relay.port)[0]
        same("the archive", sha256_of(reused), sha256_of(whole))
        saw("%d bytes fetched in place of %d" % (relay.sent, second.size))
        if relay.sent > 9 * MIB:
            raise Fault("more than the new layer")


@check
def delta_hosts(lab):
    """Deltas on hosts that came by version 1 in other ways than by an archive of it alone."""
    version_1, (first,) = archive(lab, ["app:1"])
    bundle, saved = archive(lab, ["app:1", "thrice:1"])[0], lab.path("archives", "docker-save.tar")
    docker = lab.once(Docker)
    docker.load(version_1)
    docker("save", "-o", saved, first.name)
    docker.forget(first)
    for way, base, podmans in (("pull", version_1, True), ("docker-save", saved, False), ("two-images", bundle, False)):
        for make in (Docker, Podman, Containerd):
            with case("by %s: %s" % (way, make.__name__)) as saw:
                tool = lab.once(make, "%s-%s" % (make.__name__.lower(), way))
                if way == "pull":
                    tool(*tool.fetch, first.name)
                else:
                    saw(tool.load(base))
                delta, (second,) = archive(lab, ["app:2"], ["--base", base])
                intact(delta, [second], second.layers[:3])
                if make is Podman and not podmans:  # it knows the layers by their diff_ids alone
                    saw(refused(tool.load, delta))
                    same("having the image", tool.holds(second), False)
                    continue
                saw(tool.load(delta))
                files = [file_of("text:shared"), file_of("text:two")]
                if make is Containerd and base is saved:
                    # It has the layers of the base unpacked only: enough to run the image, not to export it.
                    seen = tool("run", "--rm", "--snapshotter", "native", second.name, "interop", "cat", *files).out
                    same("being complete", tool.holds(second), False)
                    saw("runs, though images check finds it incomplete")
                else:
                    tool.look(second)
                    seen = b"".join(tool.read(second, files)).decode()
                same("what is in it", seen, "layer shared\nlayer two\n")


def main(names):
    unknown = [name for name in names if name not in CHECKS]
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = ["%s (Debian package %s)" % tool for tool in TOOLS if not shutil.which(tool[0])]
    other = ["this has to run as root"] if os.geteuid() else []
    for fault, what in (("no such check", unknown), ("missing", missing), ("not root", other)):
        if what:
            print("interop: %s: %s" % (fault, ", ".join(what)), file=sys.stderr)
            return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # the Lab ends its servers on the way out
        signal.signal(number, lambda *_: sys.exit(130))
    start = time.time()
    with Lab() as lab:
        for name in names or CHECKS:
            print("-- %s: %s" % (name, CHECKS[name].__doc__.splitlines()[0]), flush=True)
            with case(name) as saw:
                CHECKS[name](lab)
                saw("done")
    print("interop: %d failed, %.0f s" % (len(FAILURES), time.time() - start))
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
