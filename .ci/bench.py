#!/usr/bin/env python3
"""Measure imgpull beside other tools: `.ci/bench.py` for the tables, `--quick` for the gate.

nginx serves a registry of generated images as static files on loopback: over http and https, with
a limit on each connection's rate, and behind a relay that adds 25 ms each way. The tools take turns
in pulling the same image, five times over, and the medians are printed as Markdown tables.

Like is compared with like. When imgpull says that it is done, one archive with checked digests is
on the disk. A "peer" (skopeo, crane) makes such an archive as well, and its time includes the
`sync -d` that puts it on the disk. The rows of tools that make a directory, or no archive at all
(curl), are there to show how far one could go; they are synced too, and no goal is set by them.

With --quick the images are smaller, skopeo is the one peer, it is the best of a few, and the bounds
are so wide that only something grossly wrong breaks one; then the exit code is 1.

Needs nginx, skopeo, curl, openssl, bash and GNU time; takes crane as well where it is on the PATH.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import queue
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MB = 10**6
MIB = 2**20
GIB = 2**30


class Image(collections.namedtuple("Image", "name size blobs")):
    """A generated image in the registry.

    name: its repository; the tag is always `latest`
    size: bytes of all blobs
    blobs: list of (digest, size in bytes), the config first
    """

    __slots__ = ()


class Target(collections.namedtuple("Target", "image scheme host ca certs")):
    """An image and the way to it.

    image: Image
    scheme: "http" or "https"
    host: HOST:PORT to pull from
    ca: path of the certificate authority's PEM file
    certs: path of a directory that holds just this file, as skopeo wants it
    """

    __slots__ = ()


class Sample(collections.namedtuple("Sample", "wall cpu memory written requests connections")):
    """What one pull took, or the medians of several.

    wall: seconds, until the data is on the disk
    cpu: seconds, user and system, of all processes of the tool
    memory: bytes, the peak of its largest process
    written: bytes written to files
    requests: count, as the server saw them
    connections: count of those that had a request
    """

    __slots__ = ()


class Result(collections.namedtuple("Result", "title image samples spreads")):
    """What a scenario gave.

    title: text for the first column
    image: Image
    samples: dict from a tool's name to its typical Sample
    spreads: dict from a tool's name to its (shortest, longest) wall time in seconds
    """

    __slots__ = ()

    def best_peer(self, field):
        """The name of the peer with the least `field` ("wall" or "cpu")."""
        peers = [tool for tool in self.samples if tool in PEERS]
        return min(peers, key=lambda tool: getattr(self.samples[tool], field))

    def ratio(self, field, tool="imgpull"):
        """The tool's `field` as a share of the best peer's."""
        best = self.samples[self.best_peer(field)]
        return getattr(self.samples[tool], field) / getattr(best, field)


class Goal(collections.namedtuple("Goal", "text value bound")):
    """A promise: `value`, as measured, is at most `bound`."""

    __slots__ = ()


# ---- images --------------------------------------------------------------------------------------


class Noise:
    """A file of seeded random bytes, which is what compressed data looks like to a carrier."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def read(self, size):
        return self.random.getrandbits(8 * size).to_bytes(size, "little") if size else b""


class GzipLayer:
    """A writable file that compresses what it is given and computes both digests."""

    def __init__(self, file, level):
        self.file = file
        self.compressor = zlib.compressobj(level, zlib.DEFLATED, 31)
        self.plain_hash = hashlib.sha256()
        self.packed_hash = hashlib.sha256()

    def write(self, data):
        self.plain_hash.update(data)
        self._put(self.compressor.compress(data))

    def finish(self):
        """Write the rest. -> digest, diff ID"""
        self._put(self.compressor.flush())
        return digest_of(self.packed_hash), digest_of(self.plain_hash)

    def _put(self, data):
        self.packed_hash.update(data)
        self.file.write(data)


def digest_of(hashed):
    return "sha256:" + hashed.hexdigest()


class Repository:
    """The files behind one repository of the static registry."""

    def __init__(self, root, name):
        self.name = name
        self.blobs = os.path.join(root, "v2", name, "blobs")
        self.manifests = os.path.join(root, "v2", name, "manifests")
        os.makedirs(self.blobs)
        os.makedirs(self.manifests)

    def add_gzip_layer(self, number, size):
        """Add a layer with one file of noise. -> digest, diff ID, media type"""
        temporary = os.path.join(self.blobs, "new")
        level = 0 if size > MB else 6  # noise does not shrink, only a tar's padding does
        with open(temporary, "wb") as file:
            layer = GzipLayer(file, level)
            with tarfile.open(fileobj=layer, mode="w|", format=tarfile.GNU_FORMAT) as tar:
                member = tarfile.TarInfo(f"data/{number:03}")
                member.size = size
                tar.addfile(member, Noise(f"{self.name} {number}"))
            digest, diff_id = layer.finish()
        os.rename(temporary, os.path.join(self.blobs, digest))
        return digest, diff_id, "application/vnd.oci.image.layer.v1.tar+gzip"

    def add_sparse_layer(self, size):
        """Add a layer with one file of zeros, which takes no room here. -> as above"""
        temporary = os.path.join(self.blobs, "new")
        member = tarfile.TarInfo("zeros")
        member.size = size
        with open(temporary, "w+b") as file:
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.truncate(512 + size + 1024)
            hashed = hashlib.sha256()
            file.seek(0)
            for piece in iter(lambda: file.read(MIB), b""):
                hashed.update(piece)
        digest = digest_of(hashed)
        os.rename(temporary, os.path.join(self.blobs, digest))
        return digest, digest, "application/vnd.oci.image.layer.v1.tar"

    def add_json(self, directory, media_type, value, suffix="", tag=None):
        """Write a document under its digest and, if there is one, its tag. -> descriptor"""
        body = json.dumps(value).encode()
        digest = digest_of(hashlib.sha256(body))
        for name in filter(None, (digest, tag)):
            with open(os.path.join(directory, name + suffix), "wb") as file:
                file.write(body)
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def finish(self, layers):
        """Write config, manifest and index for these layers. -> Image"""
        config = self.add_json(
            self.blobs,
            "application/vnd.oci.image.config.v1+json",
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/bin/sh"]},
                "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id, _ in layers]},
            },
        )
        descriptors = [
            {
                "mediaType": media_type,
                "digest": digest,
                "size": os.path.getsize(os.path.join(self.blobs, digest)),
            }
            for digest, _, media_type in layers
        ]
        kind = "application/vnd.oci.image.manifest.v1+json"
        document = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": config,
            "layers": descriptors,
        }
        manifest = self.add_json(self.manifests, kind, document, ".manifest")
        manifest["platform"] = {"os": "linux", "architecture": "amd64"}
        kind = "application/vnd.oci.image.index.v1+json"
        document = {"schemaVersion": 2, "mediaType": kind, "manifests": [manifest]}
        self.add_json(self.manifests, kind, document, ".index", tag="latest")
        blobs = [(blob["digest"], blob["size"]) for blob in [config, *descriptors]]
        return Image(self.name, sum(size for _, size in blobs), blobs)


def make_image(root, name, sizes):
    repository = Repository(root, name)
    layers = [repository.add_gzip_layer(number, size) for number, size in enumerate(sizes)]
    return repository.finish(layers)


def make_sparse_image(root, name, size):
    repository = Repository(root, name)
    return repository.finish([repository.add_sparse_layer(size)])


# ---- servers -------------------------------------------------------------------------------------

RATE = 20 * MIB  # bytes per second and connection, where the rate is limited
DELAY = 0.025  # seconds, each way, behind the relay

NGINX = """
daemon off; worker_processes 2; pid %(work)s/nginx.pid; error_log %(work)s/error.log warn; %(user)s
events { worker_connections 1024; }
http {
    log_format counted '$connection $request_method $uri $status $body_bytes_sent';
    access_log %(work)s/access.log counted;
    sendfile on; tcp_nopush on; keepalive_requests 100000; keepalive_timeout 600;
    client_body_temp_path %(work)s/t1; proxy_temp_path %(work)s/t2; fastcgi_temp_path %(work)s/t3;
    uwsgi_temp_path %(work)s/t4; scgi_temp_path %(work)s/t5;
    ssl_certificate %(work)s/server.pem; ssl_certificate_key %(work)s/server.key;
    root %(work)s/tree;
    %(servers)s
}
"""
NGINX_SERVER = """
    server {
        listen 127.0.0.1:%(port)d%(ssl)s;
        limit_rate %(rate)d;
        location = /v2/ { return 200 '{}'; }
        location ~ /manifests/ {
            types {
                application/vnd.oci.image.manifest.v1+json manifest;
                application/vnd.oci.image.index.v1+json index;
            }
            try_files $uri.manifest $uri.index =404;
        }
        location ~ /blobs/ { types { } default_type application/octet-stream; }
    }
"""


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_certificates(work):
    """A certificate authority, and a server certificate for 127.0.0.1."""

    def openssl(arguments):
        command = ["openssl", *arguments.split()]
        quiet = subprocess.DEVNULL
        subprocess.run(command, cwd=work, check=True, stdout=quiet, stderr=quiet)

    with open(os.path.join(work, "extensions"), "w") as file:
        file.write("subjectAltName=IP:127.0.0.1\n")
    new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    openssl(f"req -x509 {new_key} -subj /CN=bench-CA -days 30 -keyout ca.key -out ca.crt")
    openssl(f"req {new_key} -subj /CN=bench -keyout server.key -out server.csr")
    openssl(
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30"
        " -extfile extensions -out server.pem"
    )
    os.mkdir(os.path.join(work, "certs"))
    shutil.copy(os.path.join(work, "ca.crt"), os.path.join(work, "certs"))


def wait_for(port, process):
    for _ in range(200):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit("bench: nginx does not start")


class Servers:
    """nginx with a port for each transport, and the relay. Leaving the context ends nginx."""

    def __init__(self, work):
        self.work = work
        self.log = os.path.join(work, "access.log")
        self.ports = {name: free_port() for name in ("http", "https", "limited")}
        make_certificates(work)
        self.nginx = self._start_nginx()
        self.ports["delayed"] = start_relay(self.ports["http"])
        self.ports["delayed https"] = start_relay(self.ports["https"])

    def _start_nginx(self):
        servers = ""
        for name, port in self.ports.items():
            ssl = " ssl" if name == "https" else ""
            rate = RATE if name == "limited" else 0
            servers += NGINX_SERVER % {"port": port, "ssl": ssl, "rate": rate}
        user = "user root;" if os.geteuid() == 0 else ""
        path = os.path.join(self.work, "nginx.conf")
        with open(path, "w") as file:
            file.write(NGINX % {"work": self.work, "servers": servers, "user": user})
        process = subprocess.Popen(["nginx", "-p", self.work, "-c", path])
        wait_for(self.ports["https"], process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.nginx.terminate()
        self.nginx.wait()

    def target(self, image, transport):
        return Target(
            image,
            scheme="https" if "https" in transport else "http",
            host=f"127.0.0.1:{self.ports[transport]}",
            ca=os.path.join(self.work, "ca.crt"),
            certs=os.path.join(self.work, "certs"),
        )

    def forget_requests(self):
        open(self.log, "w").close()  # nginx appends, so it may be truncated meanwhile

    def count_requests(self):
        """-> requests, connections since forget_requests()"""
        time.sleep(0.05)  # nginx writes the last line after the client has got its last byte
        with open(self.log) as file:
            lines = [line.split() for line in file]
        return len(lines), len({line[0] for line in lines})


def start_relay(upstream):
    """Relay a new port to `upstream`, every byte DELAY later. -> the new port

    Connecting costs a round trip, as a handshake does.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)

    def serve():
        while True:
            client = listener.accept()[0]
            server = socket.create_connection(("127.0.0.1", upstream))
            start_delayed_copy(client, server, time.monotonic() + 2 * DELAY)
            start_delayed_copy(server, client, time.monotonic())

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def start_delayed_copy(source, sink, not_before):
    """Send what comes from one socket to the other, DELAY later; the first not before a time."""
    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = queue.Queue(1000)

    def receive():
        data = b"more"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            waiting.put((max(time.monotonic(), not_before) + DELAY, data))

    def send():
        data = b"more"
        while data:
            due, data = waiting.get()
            time.sleep(max(0, due - time.monotonic()))
            with contextlib.suppress(OSError):
                if data:
                    sink.sendall(data)
                else:
                    sink.shutdown(socket.SHUT_WR)

    for work in (receive, send):
        threading.Thread(target=work, daemon=True).start()


# ---- tools ---------------------------------------------------------------------------------------
# Each takes a Target and an empty directory, and gives the command that pulls the one into the
# other. All but imgpull are followed by a `sync -d` of what they wrote.

IMPORTS = "import http.client, hashlib, json, argparse, tarfile"


def reference(target):
    return f"{target.host}/{target.image.name}:latest"


def then_sync(command):
    """The command, and `sync -d` of the files that it leaves in the directory of its target."""

    def with_sync(target, out):
        script = '"$@" && find "$0" -type f -exec sync -d {} +'
        return ["sh", "-c", script, out + "/image", *command(target, out + "/image")]

    return with_sync


def imgpull_to(program, destination, target, *options):
    trust = ["--cacert", target.ca] if target.scheme == "https" else []
    command = [sys.executable, program, "-q", "--scheme", target.scheme, *trust, *options]
    return [*command, reference(target), destination]


def imgpull(program):
    """The tool that this program file is."""
    return lambda target, out, *options: imgpull_to(program, out + "/image.tar", target, *options)


def imgpull_pipe(program):
    script = '"$@" | cat > /dev/null'

    def command(target, _):
        return ["bash", "-o", "pipefail", "-c", script, "-", *imgpull_to(program, "-", target)]

    return command


def skopeo(target, destination, out):
    trust = "--src-tls-verify=false"
    if target.scheme == "https":
        trust = "--src-cert-dir=" + target.certs
    options = ["--insecure-policy", "--tmpdir", os.path.dirname(out)]
    source = "docker://" + reference(target)
    return ["skopeo", *options, "copy", "--quiet", trust, source, destination]


def skopeo_archive(target, out):
    return skopeo(target, f"oci-archive:{out}", out)


def skopeo_directory(target, out):
    return skopeo(target, f"dir:{out}", out)


def crane(target, out, *options):
    insecure = ["--insecure"] if target.scheme == "http" else []
    command = ["env", "SSL_CERT_FILE=" + target.ca, "crane", "pull", *insecure, *options]
    return [*command, reference(target), out]


def crane_directory(target, out):
    return crane(target, out, "--format=oci")


def curl(target, out):
    """Every blob, known beforehand, by one process; then their digests. No archive comes of it."""
    os.mkdir(out)
    sums = []
    with open(out + ".curl", "w") as urls:
        for digest, _ in target.image.blobs:
            path = f"{out}/{digest}"
            url = f"{target.scheme}://{target.host}/v2/{target.image.name}/blobs/{digest}"
            urls.write(f'url = "{url}"\noutput = "{path}"\n')
            sums.append(f"{digest[len('sha256:') :]} *{path}\n")
    with open(out + ".sums", "w") as file:
        file.write("".join(sorted(sums)))
    fetch = 'curl -fsSZ --parallel-max 6 --cacert "$1" -K "$2.curl"'
    check = 'openssl dgst -sha256 -r "$2"/* | cmp - "$2.sums"'  # Debian's sha256sum is slower
    return ["sh", "-c", f"{fetch} && {check}", "-", target.ca, out]


def python_imports(*_):
    """The least that a puller in Python has to import: what a tiny image is compared with."""
    return [sys.executable, "-c", IMPORTS]


PEERS = ("skopeo", "crane")


def list_tools(program, other):
    """-> dict from a name to its tool, of those that are on this machine"""
    tools = collections.OrderedDict()
    tools["imgpull"] = imgpull(program)
    tools["imgpull, pipe"] = imgpull_pipe(program)
    if other:
        tools["other imgpull"] = imgpull(other)
        tools["other imgpull, pipe"] = imgpull_pipe(other)
    tools["skopeo"] = then_sync(skopeo_archive)
    if shutil.which("crane"):
        tools["crane"] = then_sync(crane)
    tools["skopeo, directory"] = then_sync(skopeo_directory)
    if shutil.which("crane"):
        tools["crane, directory"] = then_sync(crane_directory)
    tools["curl + openssl"] = then_sync(curl)
    tools["python3, imports"] = python_imports
    return tools


# ---- measuring -----------------------------------------------------------------------------------


def run(command, work):
    """-> wall and CPU seconds, peak memory in bytes, bytes written

    GNU time reads them, as a child of our own would begin with our peak of memory.
    """
    report = os.path.join(work, "time")
    environ = {"PATH": os.environ["PATH"], "HOME": os.path.join(work, "home"), "LANG": "C.UTF-8"}
    started = time.monotonic()
    done = subprocess.run(
        ["time", "-q", "-o", report, "-f", "%U %S %M %O", *command],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    wall = time.monotonic() - started
    if done.returncode:
        sys.exit(f"bench: exit {done.returncode} from {' '.join(command)}\n{done.stderr}")
    with open(report) as file:
        user, system, kib, blocks = file.read().split()
    return wall, float(user) + float(system), int(kib) * 1024, int(blocks) * 512


@contextlib.contextmanager
def empty_directory(work):
    path = tempfile.mkdtemp(dir=work)
    try:
        yield path
    finally:
        shutil.rmtree(path)
        os.sync()  # nobody waits for what the one before has left to write


def pull_once(servers, tool, target, *options):
    with empty_directory(servers.work) as out:
        command = tool(target, out, *options)
        servers.forget_requests()
        usage = run(command, servers.work)
        return Sample(*usage, *servers.count_requests())


def measure(servers, tools, target, title, rounds, typical):
    """-> Result. The tools take turns, so that a slow minute of the machine hits all of them.

    typical: the function that makes one number of those of all rounds
    """
    taken = collections.OrderedDict((name, []) for name in tools)
    for _ in range(rounds):
        for name, tool in tools.items():
            taken[name].append(pull_once(servers, tool, target))
    samples = collections.OrderedDict()
    spreads = {}
    for name, pulls in taken.items():
        samples[name] = Sample(*map(typical, zip(*pulls)))
        walls = [pull.wall for pull in pulls]
        spreads[name] = min(walls), max(walls)
    return Result(title, target.image, samples, spreads)


SLOW_IMPORTS = re.compile(r"(ssl|tarfile|urllib\.request|email)(\.|$)")


def slow_imports(program):
    """The modules that `imgpull.py --version` should not import, and does."""
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", program, "--version"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    return [name for name in names if SLOW_IMPORTS.match(name)]


def check_archive(servers, program, target):
    """The archive is whole for our own reader, for tar and for skopeo's."""
    with empty_directory(servers.work) as out:
        archive = out + "/image.tar"
        run(imgpull(program)(target, out), servers.work)
        run([sys.executable, program, "--verify", archive], servers.work)
        run(["tar", "tf", archive], servers.work)
        inspect = ["skopeo", "--insecure-policy", "inspect", "--raw", "oci-archive:" + archive]
        run(inspect, servers.work)


# ---- scenarios -----------------------------------------------------------------------------------


class Scenario(collections.namedtuple("Scenario", "image transport tools rounds quick_rounds")):
    """One kind of image behind one kind of network.

    image: key of SIZES
    transport: key of TRANSPORTS
    tools: names of tools; those that are not on this machine are left out
    rounds: how often each tool pulls
    quick_rounds: the same with --quick; with 0, --quick leaves the scenario out
    """

    __slots__ = ()


IMGPULLS = ("imgpull", "other imgpull")
SMALL = (*IMGPULLS, *PEERS, "curl + openssl")
BULK = (*SMALL, "skopeo, directory", "crane, directory")
PIPES = ("imgpull, pipe", "other imgpull, pipe")
TINY = (*SMALL, "python3, imports")
SCENARIOS = [
    Scenario("eight", "http", BULK, 5, 3),
    Scenario("eight", "https", BULK, 5, 3),
    Scenario("eight", "limited", BULK + PIPES, 3, 1),
    Scenario("single", "http", SMALL, 5, 3),
    Scenario("single", "https", SMALL, 5, 0),
    Scenario("sixty", "http", BULK, 5, 3),
    Scenario("sixty", "https", SMALL, 5, 0),
    Scenario("sixty", "delayed", BULK, 5, 1),
    Scenario("sixty", "delayed https", SMALL, 5, 0),
    Scenario("pair", "http", SMALL, 11, 3),
    Scenario("pair", "https", SMALL, 11, 0),
    Scenario("tiny", "http", TINY, 21, 9),
    Scenario("tiny", "https", TINY, 21, 0),
]
QUICK_TOOLS = (*IMGPULLS, *PIPES, "skopeo", "python3, imports")
TRANSPORTS = {
    "http": "http",
    "https": "https",
    "limited": "http, 20 MiB/s a connection",
    "delayed": "http, 25 ms each way",
    "delayed https": "https, 25 ms each way",
}
SIZES = {  # bytes of each layer, before gzip
    "eight": [size * MB for size in (200, 64, 48, 32, 20, 10, 5, 2)],
    "single": [GIB],
    "sixty": [100000] * 60,
    "pair": [MB, 5000],
    "tiny": [1900],
    "many": [2000] * 500,
}
QUICK_DIVISORS = {"eight": 4, "single": 8}  # --quick makes these images so much smaller
LARGE = 12 * GIB


def make_images(tree, quick):
    """-> dict from a key of SIZES to its Image"""
    images = {}
    for name, sizes in SIZES.items():
        divisor = QUICK_DIVISORS.get(name, 1) if quick else 1
        images[name] = make_image(tree, name, [size // divisor for size in sizes])
    return images


def describe(image):
    units = (("GiB", GIB), ("MB", MB), ("KB", 1000))
    unit, size = next((unit, image.size / count) for unit, count in units if image.size >= count)
    layers = len(image.blobs) - 1
    return f"{size:.3g} {unit}, {layers} layer{'' if layers == 1 else 's'}"


def measure_scenario(servers, scenario, image, tools, quick):
    """-> Result"""
    names = [name for name in tools if name in scenario.tools]
    rounds, typical = scenario.rounds, statistics.median
    if quick:
        # The best of a few is steady on a busy machine, too.
        rounds, typical = scenario.quick_rounds, min
        names = [name for name in names if name in QUICK_TOOLS]
    chosen = collections.OrderedDict((name, tools[name]) for name in names)
    target = servers.target(image, scenario.transport)
    title = f"{describe(image)}; {TRANSPORTS[scenario.transport]}"
    return measure(servers, chosen, target, title, rounds, typical)


def measure_memory(servers, program, images, quick):
    """-> list of (text, Sample): imgpull alone, where memory might grow with the work"""
    cases = [("500 layers", "many", ()), ("64 connections", "eight", ("--jobs", "64"))]
    if not quick:
        if shutil.disk_usage(servers.work).free < 2 * LARGE:
            sys.exit(f"bench: {servers.work} lacks the room for an image of 12 GiB")
        images["large"] = make_sparse_image(os.path.join(servers.work, "tree"), "large", LARGE)
        cases.append(("one layer of 12 GiB", "large", ()))
    samples = []
    for text, name, options in cases:
        target = servers.target(images[name], "http")
        samples.append((text, pull_once(servers, imgpull(program), target, *options)))
    return samples


# ---- reporting -----------------------------------------------------------------------------------

DETAILS = """\
| image; transport | tool | wall s | from, to | of the best peer's | CPU s/GB | peak MiB \
| written/size | requests | connections |
|---|---|---|---|---|---|---|---|---|---|"""
SUMMARY = """\
| image; transport | imgpull | best peer | ratio | CPU s/GB | leanest peer | ratio \
| peak MiB | requests |
|---|---|---|---|---|---|---|---|---|"""


def cpu_per_gb(image, sample):
    return sample.cpu / image.size * 1e9


def print_details(result):
    """A line for each tool."""
    for tool, sample in result.samples.items():
        cpu = written = "-"
        if result.image.size >= 50 * MB:  # below that, GNU time's 10 ms are too coarse
            cpu = f"{cpu_per_gb(result.image, sample):.1f}"
        if result.image.size >= MB:
            written = f"{sample.written / result.image.size:.2f}"
        shortest, longest = result.spreads[tool]
        print(
            f"| {result.title} | {tool} | {sample.wall:.3f} | {shortest:.3f}, {longest:.3f}"
            f" | {result.ratio('wall', tool):.2f} | {cpu} | {sample.memory / MIB:.0f} | {written}"
            f" | {sample.requests:.0f} | {sample.connections:.0f} |",
            flush=True,
        )


def print_summary(results):
    """A line for each scenario: imgpull and the best peer."""
    print("\n" + SUMMARY)
    for result in results:
        ours = result.samples["imgpull"]
        best = result.best_peer("wall")
        cpu = leanest = cpu_ratio = "-"
        if result.image.size >= 50 * MB:
            name = result.best_peer("cpu")
            cpu = f"{cpu_per_gb(result.image, ours):.1f}"
            leanest = f"{cpu_per_gb(result.image, result.samples[name]):.1f} ({name})"
            cpu_ratio = f"{result.ratio('cpu'):.2f}"
        print(
            f"| {result.title} | {ours.wall:.3g} s | {result.samples[best].wall:.3g} s ({best})"
            f" | {result.ratio('wall'):.2f} | {cpu} | {leanest} | {cpu_ratio}"
            f" | {ours.memory / MIB:.0f} | {ours.requests:.0f} |"
        )


def print_goals(goals):
    """-> whether all were met"""
    print("\n| goal | bound | seen | |\n|---|---|---|---|")
    for goal in goals:
        met = "met" if goal.value <= goal.bound else "MISSED"
        print(f"| {goal.text} | at most {goal.bound} | {goal.value:.3g} | {met} |")
    return all(goal.value <= goal.bound for goal in goals)


def first_line(*command):
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
    return done.stdout.partition("\n")[0]


def print_conditions():
    """What was measured, and on what."""
    load = os.getloadavg()[0]
    versions = ["Python " + sys.version.split()[0], first_line("skopeo", "--version")]
    if shutil.which("crane"):
        versions.append("crane " + first_line("crane", "version"))
    versions.append(" ".join(first_line("curl", "--version").split()[:2]))
    versions.append(first_line("nginx", "-v").rpartition(" ")[2])
    versions.append(f"{os.cpu_count()} processors, load {load:.1f} at the start")
    print(", ".join(versions) + ". The time of every tool includes its data's way to the disk.\n")


# ---- goals ---------------------------------------------------------------------------------------


def time_goals(results, quick):
    """How long a pull may take, as a share of the best peer's time.

    results: dict from (image, transport) to Result
    """
    bounds = [  # image, transport, bound, bound with --quick (by skopeo's time)
        ("eight", "http", 0.8, 1.5),
        ("eight", "https", 0.9, 1.5),
        ("eight", "limited", 0.25, 0.6),
        ("single", "http", 0.8, 1.5),
        ("single", "https", 0.9, 1.5),
        ("sixty", "delayed", 0.35, 0.4),
        ("sixty", "delayed https", 0.35, 0.4),
    ]
    for image, transport, bound, gross in bounds:
        if (image, transport) in results:
            result = results[image, transport]
            text = f"{result.title}: time / {result.best_peer('wall')}"
            yield Goal(text, result.ratio("wall"), gross if quick else bound)


def cost_goals(bulk, quick):
    """CPU time and bytes written of the large images, which are bound by neither rate nor delay."""
    for result in bulk:
        text = f"{result.title}: CPU / {result.best_peer('cpu')}"
        yield Goal(text, result.ratio("cpu"), 1.25)
    written = max(result.samples["imgpull"].written / result.image.size for result in bulk)
    yield Goal("bytes written / size, the most of these", written, 1.1 if quick else 1.01)


def memory_goals(results, memory, quick):
    bound = 44 if quick else 36
    for text, sample in memory:
        yield Goal(f"peak MiB, {text}", sample.memory / MIB, bound)
    most = max(result.samples["imgpull"].memory for result in results.values())
    yield Goal("peak MiB, the most in the table", most / MIB, bound)


def start_goals(results, program, quick):
    tiny = results["tiny", "http"]
    share = tiny.samples["imgpull"].wall / tiny.samples["python3, imports"].wall
    yield Goal(f'{tiny.title}: time / `python3 -c "{IMPORTS}"`', share, 5 if quick else 1.6)
    needless = slow_imports(program)
    text = f"needless imports for --version ({', '.join(needless) or 'none'})"
    yield Goal(text, len(needless), 0)
    requests = results["pair", "http"].samples["imgpull"].requests
    yield Goal("requests for 2 layers in an index", requests, 5)


def list_goals(results, memory, program, quick):
    """What the project promises; with `quick`, bounds that only a gross regression breaks."""
    bulk_keys = [(name, transport) for name in ("eight", "single") for transport in TRANSPORTS]
    bulk = [results[key] for key in bulk_keys if key in results and key[1] in ("http", "https")]
    return [
        *time_goals(results, quick),
        *cost_goals(bulk, quick),
        *memory_goals(results, memory, quick),
        *start_goals(results, program, quick),
    ]


# ---- the run -------------------------------------------------------------------------------------


def bench(work, options):
    """-> whether all goals were met"""
    print_conditions()
    print("Making images...", file=sys.stderr)
    images = make_images(os.path.join(work, "tree"), options.quick)
    tools = list_tools(options.program, options.beside)
    results = collections.OrderedDict()
    with Servers(work) as servers:
        print(DETAILS)
        for scenario in SCENARIOS:
            if options.quick and not scenario.quick_rounds:
                continue
            image = images[scenario.image]
            check_archive(servers, options.program, servers.target(image, scenario.transport))
            result = measure_scenario(servers, scenario, image, tools, options.quick)
            results[scenario.image, scenario.transport] = result
            print_details(result)
        memory = measure_memory(servers, options.program, images, options.quick)
    print_summary(results.values())
    return print_goals(list_goals(results, memory, options.program, options.quick))


def serve(work, quick):
    images = make_images(os.path.join(work, "tree"), quick)
    with Servers(work) as servers:
        for transport, port in servers.ports.items():
            print(f"{transport:13} 127.0.0.1:{port}")
        print(f"images: {' '.join(images)}\nca: {work}/ca.crt", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def stop(*_):
    sys.exit(130)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="smaller images, wide bounds; exit 1 if one is broken")
    add("--serve", action="store_true", help="serve the images until Ctrl-C, to try things by hand")
    add("--dir", help="where to work (default: the system's temporary directory)")
    program = os.path.join(PROJECT, "imgpull.py")
    add("--program", metavar="FILE", default=program, help="the imgpull.py to measure")
    add("--beside", metavar="FILE", help="another imgpull.py, in the same run: an older one, say")
    return parser.parse_args()


def main():
    options = parse_options()
    os.environ["PATH"] += ":/usr/sbin"  # where nginx is, and not every user looks
    needed = ("nginx", "skopeo", "curl", "openssl", "bash", "time")
    missing = [tool for tool in needed if not shutil.which(tool)]
    if missing:
        sys.exit("bench: not found: " + ", ".join(missing))
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix="imgpull-bench-", dir=options.dir) as work:
        os.mkdir(os.path.join(work, "home"))
        if options.serve:
            return serve(work, options.quick)
        met = bench(work, options)
        return 0 if met or not options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
