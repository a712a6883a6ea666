#!/usr/bin/env python3
"""Measure imgpull beside other tools: `.ci/bench.py` for the README's table, `.ci/bench.py --quick` for the gate.

nginx serves a registry of generated images as static files on loopback: over http and https, with and without a limit
on each connection's rate, and behind a relay that adds 25 ms each way. Every tool pulls the same image from it in turn,
five times over, and the medians are printed as a Markdown table, followed by the goals. With --quick the images are
smaller, it is the best of three, the bounds are wide, and a bound that is broken is a failure.

Needs nginx, skopeo, curl, openssl and GNU time; takes crane as well where it is on the PATH.
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

IMGPULL = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "imgpull.py")
MB, MIB = 10 ** 6, 2 ** 20
RATE = 20 * MIB  # bytes per second and connection, where the rate is limited
DELAY = 0.025  # seconds, each way, behind the relay
SLOW_IMPORTS = re.compile(r"(ssl|tarfile|urllib\.request|email)(\.|$)")

Image = collections.namedtuple("Image", "name size blobs")  # blobs: [(digest, size), ...], the config first
Target = collections.namedtuple("Target", "image scheme host ca certs")
Sample = collections.namedtuple("Sample", "wall cpu memory written requests connections")
Scenario = collections.namedtuple("Scenario", "image transport tools quick")
Goal = collections.namedtuple("Goal", "text value bound")


# ---- images ----------------------------------------------------------------------------------------------------------

class Noise:
    """A file of seeded random bytes: what compressed data looks like to whoever carries it."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def read(self, size):
        return self.random.getrandbits(8 * size).to_bytes(size, "little") if size else b""


class GzipLayer:
    """A writable file that gzips what it is given, and knows both digests."""

    def __init__(self, file, level):
        self.file, self.packer = file, zlib.compressobj(level, zlib.DEFLATED, 31)
        self.plain, self.packed = hashlib.sha256(), hashlib.sha256()

    def write(self, data):
        self.plain.update(data)
        self._put(self.packer.compress(data))

    def finish(self):
        self._put(self.packer.flush())
        return digest_of(self.packed), digest_of(self.plain)

    def _put(self, data):
        self.packed.update(data)
        self.file.write(data)


def digest_of(hashed):
    return "sha256:" + hashed.hexdigest()


class Repository:
    """The files behind one repository of the static registry."""

    def __init__(self, root, name):
        self.name = name
        self.path = {part: os.path.join(root, "v2", name, part) for part in ("blobs", "manifests")}
        for path in self.path.values():
            os.makedirs(path)

    def add_gzip_layer(self, number, size):
        temporary = os.path.join(self.path["blobs"], "new")
        with open(temporary, "wb") as file:
            layer = GzipLayer(file, 0 if size > MB else 6)  # noise does not shrink, only the padding does
            with tarfile.open(fileobj=layer, mode="w|", format=tarfile.GNU_FORMAT) as tar:
                member = tarfile.TarInfo("data/%03d" % number)
                member.size = size
                tar.addfile(member, Noise("%s %d" % (self.name, number)))
            digest, diff_id = layer.finish()
        os.rename(temporary, os.path.join(self.path["blobs"], digest))
        return digest, diff_id, "application/vnd.oci.image.layer.v1.tar+gzip"

    def add_sparse_layer(self, size):
        """A tar with one file of zeros, which takes no room here."""
        temporary = os.path.join(self.path["blobs"], "new")
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
        os.rename(temporary, os.path.join(self.path["blobs"], digest))
        return digest, digest, "application/vnd.oci.image.layer.v1.tar"

    def add_json(self, part, media_type, value, suffix="", tag=None):
        body = json.dumps(value).encode()
        digest = digest_of(hashlib.sha256(body))
        for name in filter(None, (digest, tag)):
            with open(os.path.join(self.path[part], name + suffix), "wb") as file:
                file.write(body)
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def finish(self, layers):
        """Write config, manifest and index for these layers. -> Image"""
        def size(digest):
            return os.path.getsize(os.path.join(self.path["blobs"], digest))
        config = self.add_json("blobs", "application/vnd.oci.image.config.v1+json", {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id, _ in layers]}})
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = self.add_json("manifests", kind, {
            "schemaVersion": 2, "mediaType": kind, "config": config,
            "layers": [{"mediaType": media_type, "digest": digest, "size": size(digest)}
                       for digest, _, media_type in layers]}, ".manifest")
        manifest["platform"] = {"os": "linux", "architecture": "amd64"}
        kind = "application/vnd.oci.image.index.v1+json"
        self.add_json("manifests", kind, {"schemaVersion": 2, "mediaType": kind, "manifests": [manifest]},
                      ".index", tag="latest")
        blobs = [(config["digest"], config["size"])] + [(digest, size(digest)) for digest, _, _ in layers]
        return Image(self.name, sum(count for _, count in blobs), blobs)


def make_image(root, name, sizes):
    repository = Repository(root, name)
    return repository.finish([repository.add_gzip_layer(number, size) for number, size in enumerate(sizes)])


def make_sparse_image(root, name, size):
    repository = Repository(root, name)
    return repository.finish([repository.add_sparse_layer(size)])


# ---- servers ---------------------------------------------------------------------------------------------------------

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
    """A certificate authority and a server certificate for 127.0.0.1."""
    def openssl(*arguments):
        subprocess.run(("openssl",) + arguments, cwd=work, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    with open(os.path.join(work, "extensions"), "w") as file:
        file.write("subjectAltName=IP:127.0.0.1\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new_key, "-subj", "/CN=bench CA", "-days", "30", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *new_key, "-subj", "/CN=bench", "-keyout", "server.key", "-out", "server.csr")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
            "-extfile", "extensions", "-out", "server.pem")
    os.mkdir(os.path.join(work, "certs"))
    shutil.copy(os.path.join(work, "ca.crt"), os.path.join(work, "certs"))


def wait_for(port, process):
    for _ in range(200):
        with contextlib.suppress(OSError), contextlib.closing(socket.create_connection(("127.0.0.1", port), 1)):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit("bench: nginx does not start")


class Servers:
    """nginx with a port for each transport, and the relay. As a context manager, it ends them."""

    def __init__(self, work):
        self.work, self.log = work, os.path.join(work, "access.log")
        make_certificates(work)
        self.ports = {name: free_port() for name in ("http", "https", "limited")}
        servers = "".join(NGINX_SERVER % {
            "port": port, "ssl": " ssl" if name == "https" else "", "rate": RATE if name == "limited" else 0,
        } for name, port in self.ports.items())
        with open(os.path.join(work, "nginx.conf"), "w") as file:
            file.write(NGINX % {"work": work, "servers": servers, "user": "user root;" if os.geteuid() == 0 else ""})
        self.nginx = subprocess.Popen(["nginx", "-p", work, "-c", os.path.join(work, "nginx.conf")])
        wait_for(self.ports["https"], self.nginx)
        self.ports["delayed"] = start_relay(self.ports["http"])
        self.ports["delayed https"] = start_relay(self.ports["https"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.nginx.terminate()
        self.nginx.wait()

    def target(self, image, transport):
        return Target(image, "https" if "https" in transport else "http", "127.0.0.1:%d" % self.ports[transport],
                      os.path.join(self.work, "ca.crt"), os.path.join(self.work, "certs"))

    def forget_requests(self):
        open(self.log, "w").close()  # nginx appends, so it may be truncated under its hands

    def count_requests(self):
        """-> requests, connections since forget_requests()"""
        time.sleep(0.05)  # the last line is written after the client has got its last byte
        with open(self.log) as file:
            lines = [line.split() for line in file]
        return len(lines), len({line[0] for line in lines})


def start_relay(upstream):
    """Relay a new port to `upstream`, every byte DELAY later; connecting costs a round trip, as a handshake does."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)

    def serve():
        while True:
            client = listener.accept()[0]
            server = socket.create_connection(("127.0.0.1", upstream))
            for source, sink, first in ((client, server, 2 * DELAY), (server, client, 0)):
                start_delayed_copy(source, sink, time.monotonic() + first)
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def start_delayed_copy(source, sink, not_before):
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


# ---- tools -----------------------------------------------------------------------------------------------------------
# Each takes a Target and an empty directory, and gives the command that pulls the one into the other.

def imgpull(target, out, *options):
    return [sys.executable, IMGPULL, "-q", "--scheme", target.scheme, *options,
            *(["--cacert", target.ca] if target.scheme == "https" else []),
            "%s/%s:latest" % (target.host, target.image.name), out + "/image.tar"]


def skopeo(target, destination):
    return ["skopeo", "--insecure-policy", "--tmpdir", os.path.dirname(destination.split(":")[1]), "copy", "--quiet",
            *(["--src-cert-dir", target.certs] if target.scheme == "https" else ["--src-tls-verify=false"]),
            "docker://%s/%s:latest" % (target.host, target.image.name), destination]


def skopeo_archive(target, out):
    return skopeo(target, "oci-archive:%s/image.tar" % out)


def skopeo_dir(target, out):
    return skopeo(target, "dir:%s/image" % out)


def crane(target, out):
    return ["env", "SSL_CERT_FILE=" + target.ca, "crane", "pull", *(["--insecure"] if target.scheme == "http" else []),
            "%s/%s:latest" % (target.host, target.image.name), out + "/image.tar"]


def curl(target, out, then=""):
    """The floor: every blob, known beforehand, by one process; then their digests. No archive comes of it."""
    with open(out + "/curl", "w") as urls, open(out + "/sums", "w") as sums:
        for digest, _ in target.image.blobs:
            name = digest.split(":")[1]
            urls.write('url = "%s://%s/v2/%s/blobs/%s"\noutput = "%s/%s"\n' % (
                target.scheme, target.host, target.image.name, digest, out, name))
            sums.write("%s  %s/%s\n" % (name, out, name))
    script = 'curl -fsSZ --parallel-max 6 --cacert "$1" -K "$2/curl" && sha256sum --quiet -c "$2/sums"' + then
    return ["sh", "-c", script, "curl", target.ca, out]


def curl_sync(target, out):
    """As curl, and the data on the disk at the end, as with imgpull."""
    return curl(target, out, ' && sync "$2"/*')


TOOLS = collections.OrderedDict([
    ("imgpull", imgpull), ("skopeo", skopeo_archive), ("skopeo dir", skopeo_dir), ("crane", crane),
    ("curl + sha256sum", curl), ("curl + sha256sum + sync", curl_sync)])


# ---- measuring -------------------------------------------------------------------------------------------------------

def run(command, work):
    """-> wall and CPU seconds, peak memory, bytes written; by GNU time, as our own child would inherit our peak."""
    report = os.path.join(work, "time")
    environ = {"PATH": os.environ["PATH"], "HOME": os.path.join(work, "home"), "LANG": "C.UTF-8"}
    started = time.monotonic()
    done = subprocess.run(["time", "-q", "-o", report, "-f", "%U %S %M %O", *command], env=environ,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True)
    wall = time.monotonic() - started
    if done.returncode:
        sys.exit("bench: exit %d from %s\n%s" % (done.returncode, " ".join(command), done.stderr))
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
        os.sync()  # nobody pays for what the one before has left to write


def pull_once(servers, tool, target, *options):
    with empty_directory(servers.work) as out:
        command = TOOLS[tool](target, out, *options)
        servers.forget_requests()
        usage = run(command, servers.work)
        return Sample(*usage, *servers.count_requests())


def measure(servers, tools, target, runs, typical):
    """-> {tool: Sample}; the tools take turns, so that a slow minute of the machine hits all of them."""
    samples = collections.OrderedDict((tool, []) for tool in tools)
    for _ in range(runs):
        for tool in tools:
            samples[tool].append(pull_once(servers, tool, target))
    return collections.OrderedDict((tool, Sample(*map(typical, zip(*taken)))) for tool, taken in samples.items())


def measure_start(servers, image, runs, typical):
    """-> seconds of a pull of a tiny image, and of `python3 -c pass`"""
    target, pulls, passes = servers.target(image, "http"), [], []
    for _ in range(runs):
        with empty_directory(servers.work) as out:
            pulls.append(run(imgpull(target, out), servers.work)[0])
            passes.append(run([sys.executable, "-c", "pass"], servers.work)[0])
    return typical(pulls), typical(passes)


def slow_imports():
    """The modules that `imgpull.py --version` should not import, and does."""
    done = subprocess.run([sys.executable, "-I", "-X", "importtime", IMGPULL, "--version"], check=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, universal_newlines=True)
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    return [name for name in names if SLOW_IMPORTS.match(name)]


def check_archive(servers, target):
    """The archive is whole for our own reader, for tar and for skopeo's."""
    with empty_directory(servers.work) as out:
        archive = out + "/image.tar"
        for command in (imgpull(target, out), [sys.executable, IMGPULL, "--verify", archive], ["tar", "tf", archive],
                        ["skopeo", "--insecure-policy", "inspect", "--raw", "oci-archive:" + archive]):
            run(command, servers.work)


# ---- reporting -------------------------------------------------------------------------------------------------------

HEADER = """\
| image; transport | tool | wall s | of skopeo's | CPU s/GB | peak MiB | written/size | requests | connections |
|---|---|---|---|---|---|---|---|---|"""


def table_rows(title, image, samples):
    """The lines of the table for one scenario."""
    for tool, sample in samples.items():
        cpu, written = "-", "-"
        if image.size >= MB:  # per byte of next to nothing, they would say nothing
            cpu, written = "%.1f" % (sample.cpu / image.size * 1e9), "%.2f" % (sample.written / image.size)
        yield "| %s | %s | %.3f | %.2f | %s | %d | %s | %d | %d |" % (
            title, tool, sample.wall, sample.wall / samples["skopeo"].wall, cpu, sample.memory / MIB, written,
            sample.requests, sample.connections)


def report_goals(goals):
    """Print what became of each goal. -> whether all were met"""
    print("\n| goal | bound | seen | |\n|---|---|---|---|")
    for goal in goals:
        met = "met" if goal.value <= goal.bound else "MISSED"
        print("| %s | at most %s | %.3g | %s |" % (goal.text, goal.bound, goal.value, met))
    return all(goal.value <= goal.bound for goal in goals)


# ---- the run ---------------------------------------------------------------------------------------------------------

SMALL = ("imgpull", "skopeo", "crane", "curl + sha256sum")
BULK = SMALL + ("curl + sha256sum + sync",)
SCENARIOS = [  # the last column: whether --quick has it
    Scenario("eight", "http", BULK, True),
    Scenario("eight", "https", BULK, True),
    Scenario("eight", "limited", SMALL + ("skopeo dir",), True),
    Scenario("single", "http", BULK, True),
    Scenario("single", "https", BULK, False),
    Scenario("sixty", "http", SMALL, True),
    Scenario("sixty", "https", SMALL, False),
    Scenario("sixty", "delayed", SMALL, True),
    Scenario("sixty", "delayed https", SMALL, False),
    Scenario("pair", "http", SMALL, True),
    Scenario("tiny", "http", SMALL, True),
]
NOT_QUICK = ("skopeo dir", "curl + sha256sum + sync")
TRANSPORTS = {
    "http": "http", "https": "https", "limited": "http, 20 MiB/s a connection",
    "delayed": "http, 25 ms each way", "delayed https": "https, 25 ms each way"}
SIZES = {  # of the layers
    "eight": [size * MB for size in (200, 64, 48, 32, 20, 10, 5, 2)],
    "single": [1024 * MIB],
    "sixty": [100000] * 60,
    "pair": [MB, 5000],
    "tiny": [1900],
    "many": [2000] * 500,
}
QUICK_SHARE = {"eight": 4, "single": 8}  # --quick makes do with the fourth, the eighth part
LARGE = 12 * 2 ** 30


def describe(image):
    units = (("GiB", 2 ** 30), ("MB", MB), ("KB", 1000), ("B", 1))
    unit, size = next((unit, image.size / count) for unit, count in units if image.size >= count)
    layers = len(image.blobs) - 1
    return "%.3g %s, %d layer%s" % (size, unit, layers, "" if layers == 1 else "s")


def make_images(tree, quick):
    return {name: make_image(tree, name, [size // (QUICK_SHARE.get(name, 1) if quick else 1) for size in sizes])
            for name, sizes in SIZES.items()}


def measure_memory(servers, images, quick):
    """-> [(what, Sample)]: imgpull alone, where memory might grow with the work."""
    cases = [("500 layers", "many", ()), ("64 connections", "eight", ("--jobs", "64"))]
    if not quick:
        if shutil.disk_usage(servers.work).free < 2 * LARGE:
            sys.exit("bench: %s lacks the room for an image of 12 GiB" % servers.work)
        images["large"] = make_sparse_image(os.path.join(servers.work, "tree"), "large", LARGE)
        cases.append(("one layer of 12 GiB", "large", ()))
    return [(text, pull_once(servers, "imgpull", servers.target(images[name], "http"), *options))
            for text, name, options in cases]


def list_goals(results, memory, start, imports, quick):
    """What the project promises; with `quick`, the bounds that only a gross regression breaks."""
    goals = []

    def goal(text, value, bound, gross):
        goals.append(Goal(text, value, gross if quick else bound))

    def time_ratio(key, tool, bound, gross):
        image, samples = results[key]
        goal("%s, %s: time / %s" % (describe(image), TRANSPORTS[key[1]], tool),
             samples["imgpull"].wall / samples[tool].wall, bound, gross)

    bulk = [key for key in results if key[0] in ("eight", "single") and key[1] in ("http", "https")]
    for key in bulk:
        time_ratio(key, "skopeo", 0.45, 1.5)
        time_ratio(key, "curl + sha256sum", 1, 2.5)
    time_ratio(("eight", "limited"), "skopeo", 0.4, 0.8)
    time_ratio(("sixty", "delayed"), "skopeo", 0.7, 1.2)
    written = max(samples["imgpull"].written / image.size for image, samples in map(results.get, bulk))
    goal("written / size, the most of these", written, 1.01, 1.1)
    goal("requests for 2 layers in an index", results["pair", "http"][1]["imgpull"].requests, 5, 5)
    for text, sample in memory:
        goal("peak MiB, %s" % text, sample.memory / MIB, 32, 40)
    memory = max(samples["imgpull"].memory for _, samples in results.values())
    goal("peak MiB, the most in the table", memory / MIB, 32, 40)
    pull, nothing = start
    if quick:
        goals.append(Goal("a pull of 2 KB: time / `python3 -c pass`", pull / nothing, 25))
    else:
        goals.append(Goal("a pull of 2 KB: ms longer than `python3 -c pass`", 1000 * (pull - nothing), 35))
    goal("needless imports for --version (%s)" % (", ".join(imports) or "none"), len(imports), 0, 0)
    return goals


def bench(work, quick):
    """-> whether all goals were met"""
    print("Making images...", file=sys.stderr)
    images = make_images(os.path.join(work, "tree"), quick)
    absent = [] if shutil.which("crane") else ["crane"]
    runs, typical = (3, min) if quick else (5, statistics.median)  # the best of a few are steady on a busy machine, too
    results = collections.OrderedDict()
    with Servers(work) as servers:
        print(HEADER)
        for scenario in (scenario for scenario in SCENARIOS if scenario.quick or not quick):
            image = images[scenario.image]
            target = servers.target(image, scenario.transport)
            check_archive(servers, target)
            tools = [tool for tool in scenario.tools if not (tool in NOT_QUICK and quick or tool in absent)]
            samples = measure(servers, tools, target, runs, typical)
            results[scenario.image, scenario.transport] = image, samples
            title = "%s; %s" % (describe(image), TRANSPORTS[scenario.transport])
            print("\n".join(table_rows(title, image, samples)), flush=True)
        start = measure_start(servers, images["tiny"], 4 * runs, typical)
        memory = measure_memory(servers, images, quick)
    return report_goals(list_goals(results, memory, start, slow_imports(), quick))


def stop(*_):
    sys.exit(130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller images, wide bounds; exit 1 if one is broken")
    parser.add_argument("--serve", action="store_true", help="serve the images until Ctrl-C, to try things by hand")
    parser.add_argument("--dir", help="where to work (default: the system's temporary directory)")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    missing = [tool for tool in ("nginx", "skopeo", "curl", "openssl", "time") if not shutil.which(tool)]
    if missing:
        sys.exit("bench: not found: " + ", ".join(missing))
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix="imgpull-bench-", dir=options.dir) as work:
        os.mkdir(os.path.join(work, "home"))
        if options.serve:
            return serve(work, options.quick)
        return 0 if bench(work, options.quick) or not options.quick else 1


def serve(work, quick):
    images = make_images(os.path.join(work, "tree"), quick)
    with Servers(work) as servers:
        for transport, port in servers.ports.items():
            print("%-13s 127.0.0.1:%d" % (transport, port))
        print("images: %s\nca: %s/ca.crt" % (" ".join(images), work), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    sys.exit(main())
