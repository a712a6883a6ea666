#!/usr/bin/env python3
"""Compare imgpull with other tools: `.ci/bench.py` for the tables, `--quick` for the gate.

nginx serves a registry of generated images as static files on loopback: over http and https, with
a limit on each connection's rate, and behind a relay that adds 25 ms each way. The tools take turns
in pulling the same image, several times, and the medians are printed as Markdown tables.

Like is compared with like. When imgpull exits, one archive with checked digests is on the disk. The
peers (skopeo, crane) make such an archive as well, and their time includes the `sync -d` that puts
it on the disk.

With --quick the images are smaller, skopeo is the one peer, the best of a few rounds counts, and
the bounds are so wide that only a gross regression breaks one; then the exit code is 1.

Needs nginx, skopeo, openssl, bash and GNU time; uses crane if it is on the PATH.
"""

import argparse
import collections
import contextlib
import hashlib
import itertools
import json
import os
import py_compile
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
MB, MIB, GIB = 10**6, 2**20, 2**30

# An image in the registry, under the tag `latest`; size: bytes of all blobs; layers: how many.
Image = collections.namedtuple("Image", "name size layers")

# An image and the way to it; ca: the CA's PEM file, certs: a directory with that file alone.
Target = collections.namedtuple("Target", "image scheme reference ca certs")

# The cost of a pull, or the typical one of several. wall: seconds until the data is on the disk;
# cpu: seconds of all processes of the tool; memory: bytes, the peak of its largest process;
# written: bytes; requests and connections: as the server saw them.
Sample = collections.namedtuple("Sample", "wall cpu memory written requests connections")


# The outcome of a scenario; samples: {tool: its typical Sample}; spreads: {tool: (shortest, longest)}
Result = collections.namedtuple("Result", "title image samples spreads")


def best_peer(result, field):
    """Return the name of the peer with the least `field`, "wall" or "cpu"."""
    peers = [tool for tool in result.samples if tool in PEERS]
    return min(peers, key=lambda tool: getattr(result.samples[tool], field))


def ratio(result, field, tool="imgpull"):
    """Return the tool's `field` divided by the best peer's."""
    best = result.samples[best_peer(result, field)]
    return getattr(result.samples[tool], field) / getattr(best, field)


# ---- images --------------------------------------------------------------------------------------


def tar_of_noise(seed, size):
    """Yield the parts of a tar with one file of random bytes, as compressed data looks."""
    member = tarfile.TarInfo("data")
    member.size = size
    yield member.tobuf(tarfile.GNU_FORMAT)
    source = random.Random(seed)
    for start in range(0, size, MIB):
        length = min(MIB, size - start)
        yield source.getrandbits(8 * length).to_bytes(length, "little")
    yield bytes(-size % 512 + 1024)


def add_layer(blobs, seed, size):
    """Add a gzip-compressed layer to a directory of blobs; return its digest and diff ID."""
    path = os.path.join(blobs, "new")
    plain, packed = hashlib.sha256(), hashlib.sha256()
    compressor = zlib.compressobj(0 if size > MB else 6, zlib.DEFLATED, 31)
    with open(path, "wb") as file:
        for part in itertools.chain(tar_of_noise(seed, size), [b""]):
            plain.update(part)
            data = compressor.compress(part) if part else compressor.flush()
            packed.update(data)
            file.write(data)
    digest, diff_id = ("sha256:" + each.hexdigest() for each in (packed, plain))
    os.rename(path, os.path.join(blobs, digest))
    return digest, diff_id


def make_image(root, name, sizes):
    """Write the files behind one repository of the static registry; return its Image."""
    blobs, manifests = (os.path.join(root, "v2", name, kind) for kind in ("blobs", "manifests"))
    os.makedirs(blobs)
    os.makedirs(manifests)
    kind = "application/vnd.oci.image."

    def add_json(directory, media_type, value, suffix="", tag=None):
        body = json.dumps(value).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        for file_name in filter(None, (digest, tag)):
            with open(os.path.join(directory, file_name + suffix), "wb") as file:
                file.write(body)
        return {"mediaType": kind + media_type, "digest": digest, "size": len(body)}

    def describe_layer(digest):
        size = os.path.getsize(os.path.join(blobs, digest))
        return {"mediaType": kind + "layer.v1.tar+gzip", "digest": digest, "size": size}

    added = [add_layer(blobs, f"{name} {number}", size) for number, size in enumerate(sizes)]
    platform = {"os": "linux", "architecture": "amd64"}
    rootfs = {"type": "layers", "diff_ids": [diff_id for _, diff_id in added]}
    value = dict(platform, config={"Cmd": ["/bin/sh"]}, rootfs=rootfs)
    config = add_json(blobs, "config.v1+json", value)
    layers = [describe_layer(digest) for digest, _ in added]
    value = {"schemaVersion": 2, "mediaType": kind + "manifest.v1+json"}
    value.update(config=config, layers=layers)
    manifest = add_json(manifests, "manifest.v1+json", value, ".manifest")
    value = {"schemaVersion": 2, "mediaType": kind + "index.v1+json"}
    value["manifests"] = [dict(manifest, platform=platform)]
    add_json(manifests, "index.v1+json", value, ".index", tag="latest")
    return Image(name, sum(blob["size"] for blob in [config, *layers]), len(layers))


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


def start_thread(function, *args):
    threading.Thread(target=function, args=args, daemon=True).start()


def listen():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(100)
    return listener, listener.getsockname()[1]


def make_certificates(work):
    """Make a certificate authority, and a server certificate for 127.0.0.1."""
    with open(os.path.join(work, "extensions"), "w") as file:
        file.write("subjectAltName=IP:127.0.0.1\n")
    new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    for arguments in (
        f"req -x509 {new_key} -subj /CN=bench-CA -days 30 -keyout ca.key -out ca.crt",
        f"req {new_key} -subj /CN=bench -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30"
        " -extfile extensions -out server.pem",
    ):
        command = ["openssl", *arguments.split()]
        subprocess.run(command, cwd=work, check=True, stderr=subprocess.DEVNULL)
    os.mkdir(os.path.join(work, "certs"))
    shutil.copy(os.path.join(work, "ca.crt"), os.path.join(work, "certs"))


class Servers:
    """nginx with a port for each transport, and the relays. close() ends nginx."""

    def __init__(self, work):
        self.work, self.log = work, os.path.join(work, "access.log")
        self.ports = {}
        for name in ("http", "https", "limited"):
            probe, self.ports[name] = listen()
            probe.close()
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
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.ports["https"]), 1).close()
                return process
            time.sleep(0.05)
        process.kill()
        sys.exit("bench: nginx does not start")

    def close(self):
        self.nginx.terminate()
        self.nginx.wait()

    def target(self, image, transport):
        scheme = "https" if "https" in transport else "http"
        trust = (os.path.join(self.work, name) for name in ("ca.crt", "certs"))
        reference = f"127.0.0.1:{self.ports[transport]}/{image.name}:latest"
        return Target(image, scheme, reference, *trust)

    def count_requests(self):
        """Return the numbers of requests and of their connections since the log was emptied."""
        time.sleep(0.05)  # nginx writes the last line after the client has got its last byte
        with open(self.log) as file:
            lines = [line.split() for line in file]
        return len(lines), len({line[0] for line in lines})


def start_relay(upstream):
    """Relay a new port to `upstream`, every byte DELAY later; return the new port."""
    listener, port = listen()

    def receive(source, waiting, not_before):
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b"more"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            waiting.put((max(time.monotonic(), not_before) + DELAY, data))

    def send(sink, waiting):
        data = b"more"
        while data:
            due, data = waiting.get()
            time.sleep(max(0, due - time.monotonic()))
            with contextlib.suppress(OSError):
                sink.sendall(data) if data else sink.shutdown(socket.SHUT_WR)

    def serve():
        while True:
            client = listener.accept()[0]
            server = socket.create_connection(("127.0.0.1", upstream))
            # Connecting costs a round trip, as a handshake does.
            for source, sink, wait in ((client, server, 2 * DELAY), (server, client, 0)):
                waiting = queue.Queue(1000)
                start_thread(receive, source, waiting, time.monotonic() + wait)
                start_thread(send, sink, waiting)

    start_thread(serve)
    return port


# ---- tools ---------------------------------------------------------------------------------------
# Each takes a Target and an empty directory, and returns the command that pulls the one into the
# other. All but imgpull are followed by a `sync -d` of the files that they wrote.

IMPORTS = "import http.client, hashlib, json, argparse, tarfile"
PEERS = ("skopeo", "crane")


def then_sync(command):
    """Return the command, followed by `sync -d` of the files in the directory of its target."""

    def with_sync(target, out):
        script = '"$@" && find "$0" -type f -exec sync -d {} +'
        return ["sh", "-c", script, out + "/image", *command(target, out + "/image")]

    return with_sync


def imgpull(*start):
    """Return the tool that is started by these words; it writes FILE, or "-"."""

    def command(target, out, *options, file="/image.tar"):
        trust = ["--cacert", target.ca] if target.scheme == "https" else []
        words = [sys.executable, *start, "-q", "--scheme", target.scheme, *trust, *options]
        return [*words, target.reference, out + file if file != "-" else "-"]

    return command


def piped(tool):
    def command(target, out):
        script = '"$@" | cat > /dev/null'
        return ["bash", "-o", "pipefail", "-c", script, "-", *tool(target, out, file="-")]

    return command


def skopeo(target, out):
    https = target.scheme == "https"
    trust = "--src-cert-dir=" + target.certs if https else "--src-tls-verify=false"
    words = ["skopeo", "--insecure-policy", "--tmpdir", os.path.dirname(out), "copy", "--quiet"]
    return [*words, trust, "docker://" + target.reference, "oci-archive:" + out]


def crane(target, out):
    insecure = ["--insecure"] if target.scheme == "http" else []
    trust = ["env", "SSL_CERT_FILE=" + target.ca]
    return [*trust, "crane", "pull", *insecure, target.reference, out]


def list_tools(program, other):
    """Return {name: tool} of the tools on this machine."""
    tools = {"imgpull": imgpull(program), "imgpull, pipe": piped(imgpull(program))}
    tools["imgpull, module"] = imgpull("-m", "imgpull")
    if other:
        tools.update(
            {"other imgpull": imgpull(other), "other imgpull, pipe": piped(imgpull(other))}
        )
    tools["skopeo"] = then_sync(skopeo)
    if shutil.which("crane"):
        tools["crane"] = then_sync(crane)
    # The least that a puller in Python has to import.
    tools["python3, imports"] = lambda *_: [sys.executable, "-c", IMPORTS]
    return tools


# ---- measuring -----------------------------------------------------------------------------------


def run(command, work):
    """Return wall and CPU seconds, peak memory in bytes, bytes written.

    GNU time reads them, as a child of our own would begin with our peak of memory.
    """
    report = os.path.join(work, "time")
    environ = {"PATH": os.environ["PATH"], "HOME": work, "LANG": "C.UTF-8"}
    environ["PYTHONPATH"] = os.path.join(work, "lib")
    started = time.monotonic()
    measured = ["time", "-q", "-o", report, "-f", "%U %S %M %O", *command]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(measured, env=environ, **streams)
    wall = time.monotonic() - started
    if done.returncode:
        sys.exit(f"bench: exit {done.returncode} from {' '.join(command)}\n{done.stdout.decode()}")
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
        open(servers.log, "w").close()  # nginx appends, so it may be truncated meanwhile
        return Sample(*run(command, servers.work), *servers.count_requests())


def measure(servers, tools, target, title, rounds, typical):
    """Return a Result. The tools take turns, so that a slow minute hits all of them.

    typical: the function that makes one number of those of all rounds
    """
    taken = {name: [] for name in tools}
    for _ in range(rounds):
        for name, tool in tools.items():
            taken[name].append(pull_once(servers, tool, target))
    samples = {name: Sample(*map(typical, zip(*pulls))) for name, pulls in taken.items()}
    walls = {name: [pull.wall for pull in pulls] for name, pulls in taken.items()}
    spreads = {name: (min(seconds), max(seconds)) for name, seconds in walls.items()}
    return Result(title, target.image, samples, spreads)


def slow_imports(program):
    """Return the modules that `imgpull.py --version` should not import, and does."""
    command = [sys.executable, "-I", "-X", "importtime", program, "--version"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    names = [line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()]
    return [name for name in names if re.match(r"(ssl|tarfile|urllib\.request|email)(\.|$)", name)]


def check_archive(servers, program, target):
    """Check that the archive is whole for our own reader, for tar and for skopeo's."""
    with empty_directory(servers.work) as out:
        archive = out + "/image.tar"
        inspect = ["skopeo", "--insecure-policy", "inspect", "--raw", "oci-archive:" + archive]
        verify = [sys.executable, program, "--verify", archive]
        for command in (imgpull(program)(target, out), verify, ["tar", "tf", archive], inspect):
            run(command, servers.work)


# ---- scenarios -----------------------------------------------------------------------------------

SMALL = ("imgpull", "other imgpull", *PEERS)
PIPES = (*SMALL, "imgpull, pipe", "other imgpull, pipe")
TINY = (*SMALL, "imgpull, module", "python3, imports")

# One kind of image behind one kind of network. tools: those that are not on this machine are left
# out; rounds: how often each tool pulls; quick: the same with --quick, 0 leaves the scenario out;
# bound: imgpull's time at most, by the best peer's, 0 for no goal; gross: the same with --quick.
Scenario = collections.namedtuple("Scenario", "image transport tools rounds quick bound gross")
SCENARIOS = [
    Scenario("eight", "http", SMALL, 5, 3, 0.7, 1.5),
    Scenario("eight", "https", SMALL, 5, 3, 0.85, 1.5),
    Scenario("eight", "limited", PIPES, 3, 1, 0.22, 0.6),
    Scenario("single", "http", SMALL, 5, 3, 0.65, 1.5),
    Scenario("single", "https", SMALL, 5, 0, 0.85, 1.5),
    Scenario("sixty", "http", SMALL, 5, 3, 0, 0),
    Scenario("sixty", "https", SMALL, 5, 0, 0, 0),
    Scenario("sixty", "delayed", PIPES, 5, 1, 0.3, 0.4),
    Scenario("sixty", "delayed https", SMALL, 5, 0, 0.3, 0.4),
    Scenario("pair", "http", SMALL, 11, 3, 0, 0),
    Scenario("pair", "https", SMALL, 11, 0, 0, 0),
    Scenario("tiny", "http", TINY, 21, 9, 0, 0),
    Scenario("tiny", "https", TINY, 21, 0, 0, 0),
]
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


def measure_scenario(servers, scenario, image, tools, quick):
    # The best of a few is steady on a busy machine, too.
    rounds, typical = (scenario.quick, min) if quick else (scenario.rounds, statistics.median)
    chosen = {name: tools[name] for name in tools if name in scenario.tools}
    if quick:
        chosen.pop("crane", None)
    target = servers.target(image, scenario.transport)
    title = f"{image.size / MB:.3g} MB in {image.layers}; {TRANSPORTS[scenario.transport]}"
    return measure(servers, chosen, target, title, rounds, typical)


DETAILS = """\
| layers; transport | tool | wall s | from, to | of the best peer's | CPU s/GB | of the leanest's \
| peak MiB | written/size | requests | connections |
|---|---|---|---|---|---|---|---|---|---|---|"""


def print_details(result):
    """Print a line for each tool."""
    size = result.image.size
    for tool, sample in result.samples.items():
        cpu = cpu_ratio = written = "-"
        if size >= 50 * MB:  # below that, GNU time's 10 ms are too coarse
            cpu, cpu_ratio = f"{sample.cpu / size * 1e9:.1f}", f"{ratio(result, 'cpu', tool):.2f}"
        if size >= MB:
            written = f"{sample.written / size:.2f}"
        shortest, longest = result.spreads[tool]
        print(
            f"| {result.title} | {tool} | {sample.wall:.3f} | {shortest:.3f}, {longest:.3f}"
            f" | {ratio(result, 'wall', tool):.2f} | {cpu} | {cpu_ratio}"
            f" | {sample.memory / MIB:.0f} | {written}"
            f" | {sample.requests:.0f} | {sample.connections:.0f} |",
            flush=True,
        )


def print_conditions():
    """Print what was measured, and on which machine."""
    seen = ["Python " + sys.version.split()[0]]
    for command in ("skopeo --version", "nginx -v", "crane version"):
        if shutil.which(command.split()[0]):
            done = subprocess.run(command.split(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            seen.append(done.stdout.decode().strip())
    seen.append(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the start")
    print(", ".join(seen) + ". The time of every tool includes writing its data to the disk.\n")


def list_goals(results, memory, program, quick):
    """Yield what the project promises as (text, value, bound).

    results: dict from Scenario to Result
    quick: with bounds that only a gross regression breaks
    """
    for scenario, result in results.items():
        for tool in ("imgpull", "imgpull, pipe"):
            if scenario.bound and tool in result.samples:
                text = f"{result.title}: {tool}, time / {best_peer(result, 'wall')}"
                bound = scenario.gross if quick else scenario.bound
                yield text, ratio(result, "wall", tool), bound
    bulk = [result for key, result in results.items() if key.image in ("eight", "single")]
    for result in bulk:
        text = f"{result.title}: CPU / {best_peer(result, 'cpu')}"
        yield text, ratio(result, "cpu"), 1.25
    written = max(each.samples["imgpull"].written / each.image.size for each in bulk)
    yield "bytes written / size, the most of these", written, 1.1 if quick else 1.01
    most = max(result.samples["imgpull"].memory for result in results.values())
    for text, peak in [*memory, ("the most in the table", most)]:
        yield f"peak MiB, {text}", peak / MIB, 44 if quick else 36
    by_image = {key.image: result for key, result in reversed(results.items())}  # over http
    tiny = by_image["tiny"].samples
    for tool, bound in (("imgpull", 2.3), ("imgpull, module", 1.7)):
        share = tiny[tool].wall / tiny["python3, imports"].wall
        yield f'tiny: {tool}, time / `python3 -c "{IMPORTS}"`', share, 5 if quick else bound
    needless = slow_imports(program)
    yield f"needless imports for --version ({', '.join(needless) or 'none'})", len(needless), 0
    yield "requests for 2 layers in an index", by_image["pair"].samples["imgpull"].requests, 5


def bench(work, options):
    """Return whether all goals were met."""
    print_conditions()
    images = {}
    for name, sizes in SIZES.items():
        divisor = QUICK_DIVISORS.get(name, 1) if options.quick else 1
        images[name] = make_image(work + "/tree", name, [size // divisor for size in sizes])
    os.mkdir(os.path.join(work, "lib"))
    py_compile.compile(shutil.copy(options.program, os.path.join(work, "lib", "imgpull.py")))
    tools, results = list_tools(options.program, options.beside), {}
    servers = Servers(work)
    with contextlib.closing(servers):
        print(DETAILS)
        for scenario in [each for each in SCENARIOS if each.quick or not options.quick]:
            image = images[scenario.image]
            check_archive(servers, options.program, servers.target(image, scenario.transport))
            result = measure_scenario(servers, scenario, image, tools, options.quick)
            results[scenario] = result
            print_details(result)
        memory = []  # imgpull alone, where it might grow with the work
        for name, *words in (["many"], ["eight", "--jobs", "64"]):
            target = servers.target(images[name], "http")
            sample = pull_once(servers, imgpull(options.program), target, *words)
            memory.append((" ".join([name, *words]), sample.memory))
    goals = list(list_goals(results, memory, options.program, options.quick))
    print("\n| goal | at most | seen | |\n|---|---|---|---|")
    for text, value, bound in goals:
        print(f"| {text} | {bound} | {value:.3g} | {'met' if value <= bound else 'MISSED'} |")
    return all(value <= bound for _, value, bound in goals)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="smaller images, wide bounds; exit 1 if one is broken")
    add("--dir", help="where to work (default: the system's temporary directory)")
    program = os.path.join(PROJECT, "imgpull.py")
    add("--program", metavar="FILE", default=program, help="the imgpull.py to measure")
    add("--beside", metavar="FILE", help="another imgpull.py, in the same run: an older one, say")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"  # where nginx is, and not every user looks
    needed = ("nginx", "skopeo", "openssl", "bash", "time")
    missing = [tool for tool in needed if not shutil.which(tool)]
    if missing:
        sys.exit("bench: not found: " + ", ".join(missing))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    with tempfile.TemporaryDirectory(prefix="imgpull-bench-", dir=options.dir) as work:
        return 0 if bench(work, options) or not options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
