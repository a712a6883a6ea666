#!/usr/bin/env python3
"""Pull a container image from any OCI registry into one tar that every runtime loads.

    python3 imgpull.py docker.io/hello-world:latest hello-world.tar

One file, the standard library only, Python 3.6 or newer. As a library:

    import imgpull
    imgpull.pull("docker.io/hello-world:latest", "hello-world.tar")

The file reads from top to bottom, and each section leans only on those above it: errors and
words, references, platforms, documents, settings and reporter, credentials, proxies, TLS,
connections, registry and login, referrers, archive plan, reading archives, deltas, part file and
pipe, download, pull, progress, command line (archives, then options).

A pull goes one way:

    arguments -> ImageRequest        parse_request(): what is asked of which registry
              -> Image               find_image(): all documents, fetched and checked
              -> ArchivePlan         plan_archive(): each byte but those of the layers
              -> PartFile or Pipe    Download: workers fetch pieces of layers, and hash them
              -> archive             commit(): the file gets its name

Sources of the rules: the OCI distribution and image specifications ("distribution-spec",
"image-spec"), the grammar of github.com/distribution/reference, RFC 9110 (HTTP), RFC 6750
(Bearer), RFC 7617 (Basic), RFC 1928 and 1929 (SOCKS5).
"""

import signal

if __name__ == "__main__":
    # Ctrl-C while the rest is imported must not print a traceback. main() sets its own handlers.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import collections
import contextlib
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import re
import sys
import threading
import time

# Python 2 and Python 3.5 stop here: their SyntaxError shows this line.
assert sys.version_info >= (3, 6), f"imgpull needs Python 3.6 or newer, not {sys.version}"

# Heavier modules (ssl, http.client, subprocess, ...) are imported where they are used:
# each start compiles this file and imports its modules anew, so start-up time counts.

# Private parts of the standard library that are used here, each with its reason at its use. They
# are the same in Python 3.6 to 3.14, and test_private_parts fails if a new one changes them.
#   http.client.HTTPConnection._create_connection   to pass over dead addresses, and for SOCKS
#   http.client.HTTPResponse._read_status   to pass over the interim answers 102 and 103
#   http.client.HTTPResponse.fp   to read through Incoming, and as much as has arrived
#   argparse.ArgumentParser._option_string_actions   to find the option that was meant

__all__ = [
    "Descriptor",
    "Image",
    "ImgpullError",
    "Manifest",
    "NotFound",
    "Platform",
    "PullResult",
    "Reference",
    "Referrer",
    "Registry",
    "Reporter",
    "Resumable",
    "Settings",
    "Temporary",
    "__version__",
    "choose",
    "list_archive",
    "parse_challenges",
    "parse_platform",
    "parse_reference",
    "pull",
    "verify_archive",
]
__version__ = "1.0.0"
__build_date__ = "unreleased"


# ---- Errors and words: how things fail, and how text from outside becomes fit to print -----------
#
# Every failure is an ImgpullError whose class says what kind it is: its exit status, and if a retry
# makes sense. Its text is one line for a person. Text from outside goes through printable() or
# quoted() on its way into one.


class ImgpullError(Exception):
    """A failure that a person can act on: the base of every failure that a caller may catch.

    exit_code: int, the exit status of the command line
    kept: bool, True if the downloaded bytes are kept, so that the same pull resumes
    status: int, the HTTP status of a refusal, or None
    layer: str, digest of the layer that failed, "" if the failure is not about a layer
    image: str, full name of the image that failed, "" if the failure is not about one
    others: sequence of str, further failures of the same run, such as other lines of a list
    """

    exit_code = 1
    kept = False
    status = None
    layer = image = ""
    others = ()

    def __init__(self, text):
        super().__init__(hide(text))


class UsageError(ImgpullError):
    """A request that makes no sense: a malformed reference, an unknown platform."""

    exit_code = 2


class NotFound(ImgpullError):
    """The registry does not have the content (404), or not for this platform."""

    exit_code = 3


class Refused(ImgpullError):
    """The registry does not understand or does not support a request (400, 405)."""


class NoAccess(ImgpullError):
    """A registry or proxy lacks or rejects our credentials (401, 403, 407)."""

    exit_code = 3


class Temporary(ImgpullError):
    """A failure worth retrying.

    delay: float, the seconds that the server asked us to wait, or None
    """

    exit_code = 4
    delay = None


class Unlikely(Temporary):
    """A failure that a retry is unlikely to mend, so there is one: nobody listens, the name is
    unknown, a blob has another size.
    """


class Resumable(ImgpullError):
    """A network failure that outlasted its retries. The same pull may succeed later."""

    exit_code = 4


class NotTLS(ImgpullError):
    """The peer does not speak TLS on this port, so a retry is of no use."""


class Damaged(ImgpullError):
    """Bytes that contradict their digest, size or descriptor."""

    exit_code = 5


class DiskError(ImgpullError):
    """A file cannot be written or read: a full disk, missing permissions, a failing device."""

    exit_code = 6


class Busy(ImgpullError):
    """Another imgpull is writing the same destination."""

    exit_code = 7


class RangeRefused(ImgpullError):
    """The server does not send the requested range."""


class Stopped(ImgpullError):
    """This thread was told to stop, because another one failed."""


def interrupted(error):
    """True if an exception was caused by Ctrl-C.

    If Ctrl-C strikes inside a lock of threading, the lock raises an exception of its own, and
    KeyboardInterrupt is only its context.
    """
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


# Passwords, tokens and headers that this process has seen. Hiding them where text is made, instead
# of where each is used, also covers servers and helpers that repeat a secret in their errors.
SECRETS = set()
SHORTEST_SECRET = 4  # characters: hiding shorter ones would garble every message


def remember_secret(text):
    """Return text (str), a secret that hide() replaces from now on."""
    if text and len(text) >= SHORTEST_SECRET:
        SECRETS.add(text)
    return text


def hide(text):
    """Return text with known secrets and the user info of URLs replaced by ***."""
    # The longest first: one secret may be a part of another.
    for secret in sorted(SECRETS, key=len, reverse=True):
        # Whole words only: a weak password such as "1234" must not garble every digest.
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    # Passwords hold slashes and at signs, so the last @ of a word ends the user info, unless a
    # digest follows: NAME:TAG@sha256:... has the shape of USER:PASSWORD@... and hides nothing.
    return re.sub(r"(?<=://)[^\s'\"]*@(?!sha(?:256|512):[0-9a-f]{16})", "***@", text)


def printable(text, limit=300):
    """Return text from outside for a terminal: one line, no control characters, no secrets."""
    # Secrets are replaced before the text is cut: half a secret would not be recognized.
    shown = hide(str(text)[: limit * 4 + 4096])
    kept = "".join(char if char.isprintable() else " " for char in shown[: limit * 4])
    words = " ".join(kept.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def quoted(text, limit=160):
    """Return text from outside in quotes, for a terminal."""
    return printable(repr(hide(str(text))), limit)


def human(size):
    """Return bytes (int) in words: 0 B, 1.5 kB, 381.2 MB (powers of 1000, as docker counts)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.1f} {unit}" if unit != "B" else f"{size:.0f} B"


def plural(count, word):
    """Return "2 layers" for (2, "layer")."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


# ---- References: the names of images (github.com/distribution/reference) -------------------------
#
# The grammar and the normalization are those of docker, podman and containerd, which share them.
# What the grammar refuses is refused here, with the part that is wrong.

LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
REGISTRY = re.compile(rf"(?:{LABEL}(?:\.{LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
NAME_LIMIT = 255  # characters of a repository, as in distribution/reference
REFERENCE_LIMIT = 1024  # characters: host, repository, tag and digest have 774 at most
# The parts of a reference, right or wrong: registry, repository, ":tag" and "@digest". The first
# component is a registry if it has a dot, a colon or an upper-case letter, which no repository may
# begin with. A colon before the last slash is that of a port: localhost:5000/app has no tag.
PARTS = re.compile(
    r"(?:(localhost|[^/@.:A-Z]*[.:A-Z][^/@]*)/)?((?:[^@]*/)?[^/@:]*)(:[^/@]*)?(@.*)?", re.S
)
LIST_LIMIT = 4 << 20  # bytes of a list
PORTS = {"http": 80, "https": 443}


class Reference(collections.namedtuple("Reference", "registry repository tag digest")):
    """The place of an image. str() is its full name, as docker and containerd write it.

    registry: str, host[:port]
    repository: str, the path of the image in the registry
    tag, digest: str, "" if none
    """

    __slots__ = ()

    @property
    def name(self):
        """Registry and repository without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self):
        """The tag or digest to request: the digest decides over the tag."""
        return self.digest or self.tag

    def __str__(self):
        return self.name + f":{self.tag}" * bool(self.tag) + f"@{self.digest}" * bool(self.digest)


class ImageRequest(collections.namedtuple("ImageRequest", "scheme reference name place")):
    """One image to pull.

    scheme: str, "http" or "https", None if the user has not given one
    reference: Reference
    name: str, its full name in the archive, None for its own
    place: str, origin of the request for messages: "images.txt, line 3", "" for an argument
    """

    __slots__ = ()


def parse_reference(text):
    """Return the Reference in text, normalized.

        ubuntu                      docker.io/library/ubuntu:latest
        quay.io/curl/curl:8.10.1    quay.io/curl/curl:8.10.1
        localhost:5000/app@sha256:… localhost:5000/app@sha256:…, no tag

    text: str in the grammar of distribution/reference. Raises UsageError, which names the part
    that is wrong.
    """
    text = text[: REFERENCE_LIMIT + 1]
    registry, repository, tag, digest = PARTS.fullmatch(text).groups("")
    registry, repository = normal_name(registry or "docker.io", repository)
    bad = [part for part in repository.split("/") if not COMPONENT.fullmatch(part)]
    if len(text) > REFERENCE_LIMIT or len(repository) > NAME_LIMIT:
        why = f"it has more than {REFERENCE_LIMIT} characters, or its name more than {NAME_LIMIT}"
    elif "://" in text:
        why = f"leave out {quoted(text.partition('://')[0] + '://')}"
    elif digest and not DIGEST.fullmatch(digest[1:]):
        why = "the digest after '@' must be sha256: and 64 hexadecimal digits in lower case"
    elif tag and not TAG.fullmatch(tag[1:]):
        why = f"the tag {quoted(tag[1:])} (after the ':' behind the last '/') must be letters, "
        why += "digits, '_', '.' and '-'; a digest is written with '@' before it"
    elif not REGISTRY.fullmatch(registry):
        why = f"the registry {quoted(registry)} is not host[:port]"
    elif bad:
        why = f"{quoted(bad[0])} in its name must be lower-case letters and digits, with single "
        why += "'.', '_' (or '__') or '-' between"
    # distribution/reference refuses these as names, since docker takes them for image IDs.
    elif re.fullmatch("[a-f0-9]{64}", text):
        why = "it is an image ID; registries know names and digests (NAME@sha256:…)"
    else:
        return Reference(registry, repository, tag[1:] or ("" if digest else "latest"), digest[1:])
    # As in hide(), but a mistyped reference may hold a password without a scheme before it.
    user_info = r"^(.*:.*@|.*@(?=.*[/.]))(?!sha(256|512):)"
    shown, found = re.subn(user_info, "***@", text, flags=re.S)
    if found:
        why = "it holds user info; log in with --user or docker login"
    raise UsageError(f"{quoted(shown)} is not an image reference: {why}")


def normal_name(registry, repository):
    """Return both in one spelling: Docker Hub is docker.io, its official images are in library/."""
    if registry not in ("docker.io", "index.docker.io"):
        return registry, repository
    if repository and "/" not in repository:
        repository = "library/" + repository
    return "docker.io", repository


def parse_request(text, name=None, place=""):
    """Return the ImageRequest for a reference, which may begin with http:// or https://.

    name: str, the name in the archive; without a tag, it gets that of the reference
    place: str, origin of the text, for the messages of what fails later

    Raises UsageError.
    """
    scheme, bare = re.match("(?:(https?)://)?(.*)", text, re.I | re.S).groups()
    scheme, reference = scheme and scheme.lower(), parse_reference(bare)
    # "http://myhost/app": without a port, the name would mean Docker Hub's user "myhost".
    if scheme and normal_name(bare.partition("/")[0], "")[0] != reference.registry:
        form = f"{scheme}://HOST:{PORTS[scheme]}/NAME"
        raise UsageError(f"{quoted(text)} names no registry with a port, or no image: write {form}")
    if name:
        named = parse_reference(name)
        tag = named.tag if re.search(":[^/]*$", name) else reference.tag
        name = f"{named.name}:{tag or 'latest'}"
    return ImageRequest(scheme, reference, name or None, place)


def mirrored(reference, namespace):
    """Return (Reference to request, Reference to name it by, value of ?ns=) for a mirror.

    As in containerd, the request goes to the mirror with ?ns=, and the image is named after the
    namespace. If the namespace is part of the path already, it is requested as written and
    without ?ns=: ociregistry answers 400 to both at once. Raises UsageError.

        reference                  namespace    requested as               named
        host:80/alpine             docker.io    host:80/library/alpine     docker.io/library/alpine
        host:80/quay.io/curl/curl  quay.io      host:80/quay.io/curl/curl  quay.io/curl/curl
    """
    if not namespace:
        return reference, reference, ""
    namespace, _ = normal_name(namespace.lower().rstrip("/"), "")
    if not REGISTRY.fullmatch(namespace):
        raise UsageError(f"--ns takes the host of a registry, not {quoted(namespace, 90)}")
    path = re.sub(f"^{re.escape(namespace)}/", "", reference.repository)
    named = Reference(*normal_name(namespace, path), *reference[2:])
    if path != reference.repository:
        return reference, named, ""
    return reference._replace(repository=named.repository), named, namespace


def read_list(path):
    """Return [ImageRequest, ...] from a file, "-" for standard input.

    A line is "REF [NAME]"; comments begin with #. Raises UsageError, which reports all invalid
    lines together.
    """
    file_name = "standard input" if path == "-" else printable(path)
    try:
        with open(os.dup(0) if path == "-" else path, "rb") as file:
            body = file.read(LIST_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{file_name} cannot be read: {error.strerror}") from None
    if len(body) > LIST_LIMIT or b"\0" in body:
        raise UsageError(f"{file_name} is not a list of images: it is binary, or longer than 4 MiB")
    requests, mistakes = [], []
    # str.splitlines would also split at U+2028, VT, FF and NEL, which editors show as one line.
    for number, line in enumerate(body.decode("utf-8-sig", "replace").split("\n"), 1):
        words = re.findall("[^ \t]+", re.sub("(^|[ \t])#.*|\r$", "", line))
        place = f"{file_name}, line {number}"
        try:
            if len(words) > 2:
                raise UsageError("more than two words; write REF or REF NAME")
            if words:
                requests.append(parse_request(words[0], "".join(words[1:]), place))
        except UsageError as error:
            mistakes.append(f"{place}: {error}")
    if mistakes or not requests:
        error = UsageError((mistakes or [f"{file_name} lists no image"])[0])
        error.others = mistakes[1:]
        raise error
    return requests


# ---- Platforms: choosing among the images of an index (containerd's platforms package) -----------
#
# A platform is a tuple of lower-case words, so that an index, a config, an option and this host are
# compared in one spelling.


class Platform(collections.namedtuple("Platform", "os architecture variant os_version features")):
    """A platform in Go's names. str() is os[(version)]/architecture[/variant].

    os, architecture: str, such as linux and amd64, "" if unknown
    variant: str, such as v7, "" for the usual one
    os_version: str, such as 10.0.17763.1 for Windows, mostly ""
    features: tuple of str, the os.features that the image needs, mostly ()
    """

    __slots__ = ()

    def __str__(self):
        version = f"({self.os_version})" if self.os_version else ""
        parts = [(self.os or "unknown") + version, self.architecture or "unknown", self.variant]
        return "/".join(filter(None, parts))


Platform.__new__.__defaults__ = ("", "", ())

WORD = r"[A-Za-z0-9_.-]+"
# os/arch[/variant] or an architecture alone; a system with a version in parentheses, as in
# containerd. The architecture is the last or the last but one, so a system there is a mistake.
PLATFORM = re.compile(
    rf"(?!(?:.*/)?(?:all|linux|windows|darwin|macos|freebsd)$)"
    rf"(?:({WORD})(?:\(([\w.-]+)\))?/)?({WORD})(?:/({WORD}))?",
    re.I,
)
MACHINES = {  # patterns of what systems and people call an architecture, and its name in Go
    "x86[_-]64": "amd64",
    "i[3-6]86|x86": "386",
    "aarch64|armv8": "arm64",
    "arm|armhf": "arm/v7",
    "armel": "arm/v6",
    r"armv(\d)\w*": r"arm/v\1",
    "powerpc64le": "ppc64le",
    "loongarch64": "loong64",
}
# containerd treats these as equal to the plain ones.
USUAL = ("arm64/v8", "arm64/v8.0", "amd64/v1")


def normal_platform(system, architecture, variant="", os_version="", features=()):
    """Return the Platform in Go's names: x86_64 is amd64, armv7l is arm/v7, arm64/v8 is arm64."""
    architecture = architecture.lower()
    for pattern, name in MACHINES.items():
        match = re.fullmatch(pattern, architecture)
        architecture = match.expand(name) if match else architecture
    architecture, _, implied = architecture.partition("/")
    variant = variant.lower() or implied
    variant = "v" * variant.isdigit() + variant
    if f"{architecture}/{variant}" in USUAL:
        variant = ""
    return Platform(system.lower(), architecture, variant, os_version, tuple(features))


def parse_platform(text):
    """Return the Platform for os/arch[/variant], or for an architecture alone (for linux).

    As in containerd, "windows(10.0.17763)/amd64" has an OS version. Raises UsageError.
    """
    match = PLATFORM.fullmatch(text)
    if not match:
        swapped = re.fullmatch("(.+)/(linux|windows)", text)
        hint = f"; did you mean {swapped.group(2)}/{swapped.group(1)}?" if swapped else ""
        raise UsageError(
            f"{quoted(text)} is not a platform: write os/arch or os/arch/variant, such as "
            f"linux/arm64 or linux/arm/v7{hint}"
        )
    system, os_version, architecture, variant = match.groups("")
    return normal_platform(system or "linux", architecture, variant, os_version)


def host_platform():
    """Return the Platform of this host."""
    import platform

    return normal_platform(platform.system(), platform.machine())


def fitness(offered, wanted):
    """Return a sort key (lower is better) for an offered Platform, None if wanted does not run it.

    Variants step downwards: arm v7 runs v6 and v5; amd64 v3 runs v2 and the plain one; arm64 v9.2
    runs v9.1, v9, v8.7 and below (containerd's platformVector, except that v9.0 includes v8.5).
    A variant in words, such as softfloat, must be the same. Windows runs images that were made for
    its build, the first three numbers of the version. An entry that requires features comes after
    a plain one.
    """
    digits = [re.findall(r"\d", each.variant) + ["0", "0"] for each in (offered, wanted)]
    (major, minor, *_), (most, limit, *_) = (map(int, each) for each in digits)
    build = wanted.os_version.split(".")[:3]
    if (
        offered[:2] != wanted[:2]
        or build not in ([""], offered.os_version.split(".")[:3])
        or re.search(r"[^v.\d]", offered.variant + wanted.variant)
        and offered.variant != wanted.variant
        or major > most
        or 5 * major + minor > 5 * most + limit
    ):
        return None
    return (-major, -minor, offered.features != wanted.features)


# ---- Documents: all parsing of untrusted JSON (image-spec manifest.md, config.md) ----------------
#
# Nothing that a registry or an archive says is trusted. These functions turn its JSON into records
# of known types and sizes, or raise Damaged. No other section looks into JSON of others, except for
# credentials and tokens, which use the same functions.

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
# Media types that old registries gave a Docker config, and that docker still accepts.
ODD_DOCKER_CONFIGS = ("application/octet-stream", "application/json", "text/html")
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

DOCUMENT_LIMIT = 4 << 20  # bytes of a manifest, index or config (distribution-spec, "Push")
CHILDREN_LIMIT = 1000  # manifests below one index
LAYERS_LIMIT = 10000  # layers in one manifest
SIZE_LIMIT = 1 << 44  # bytes of a blob or archive: the state of a download has a byte per MiB


class Descriptor(
    collections.namedtuple("Descriptor", "media_type digest size platform annotations")
):
    """A link to content (image-spec descriptor.md).

    media_type: str in lower case without parameters, "" if none
    digest: str, a sha256 or sha512 digest
    size: int, bytes
    platform: Platform or None
    annotations: {str: str}
    """

    __slots__ = ()

    @property
    def path(self):
        """The name of the blob in an image layout (image-spec image-layout.md)."""
        return "blobs/" + self.digest.replace(":", "/")

    @property
    def short(self):
        """The digest as people know it: sha256: and 12 digits."""
        return self.digest[:19]

    @property
    def is_attestation(self):
        """True for BuildKit's attestation (provenance, SBOM) of another manifest."""
        return self.annotations.get("vnd.docker.reference.type") == "attestation-manifest"


class Manifest(
    collections.namedtuple(
        "Manifest", "descriptor body children config layers subject artifact_type annotations"
    )
):
    """An index (children), or the manifest of an image or artifact (config and layers).

    descriptor: Descriptor of the manifest itself
    body: bytes, as the registry sent them
    children: list of Descriptor, the manifests of an index
    config: Descriptor, None for an index
    layers: list of Descriptor, bottom first
    subject: Descriptor of the manifest that this one refers to, or None
    artifact_type: str, "" if none
    annotations: {str: str}
    """

    __slots__ = ()

    @property
    def digest(self):
        return self.descriptor.digest

    @property
    def is_index(self):
        return self.config is None

    @property
    def is_image(self):
        """True if runtimes can run it: charts and signatures have configs of other types."""
        # Attestations and cosign's older signatures have the config of an image, and other layers.
        if self.is_index or not all(is_layer_type(each.media_type) for each in self.layers):
            return False
        config_types = (OCI_CONFIG, DOCKER_CONFIG, "")
        if self.descriptor.media_type == DOCKER_MANIFEST:
            config_types += ODD_DOCKER_CONFIGS
        return self.config.media_type in config_types


class ImageConfig(collections.namedtuple("ImageConfig", "platform diff_ids")):
    """The fields of an image's config that a pull needs (image-spec config.md).

    platform: Platform
    diff_ids: list of str, the digest of each layer's unpacked tar, bottom first
    """

    __slots__ = ()


def is_layer_type(media_type):
    """True if a media type is that of an image's layer, or empty."""
    return bool(re.search("layer|rootfs|^$", media_type))


def runnable(descriptors):
    """Return the descriptors that have a platform to run on, without attestations."""
    return [
        descriptor
        for descriptor in descriptors
        if descriptor.platform
        and descriptor.platform.os != "unknown"
        and not descriptor.is_attestation
    ]


def choose(descriptors, wanted):
    """Return the Descriptor that matches a wanted Platform best, or None.

    Attestations are never chosen; among equals, the first is.
    """
    offered = [each for each in runnable(descriptors) if fitness(each.platform, wanted)]
    return min(offered, key=lambda each: fitness(each.platform, wanted), default=None)


def new_hash(digest):
    """Return an empty hash object of the algorithm of a validated digest."""
    return hashlib.new(digest.partition(":")[0])


def digest_in(hasher):
    """Return the digest of the bytes that a hash object has seen."""
    return f"{hasher.name}:{hasher.hexdigest()}"


def digest_of(body, like="sha256:"):
    """Return the digest of bytes by the algorithm of another digest."""
    hasher = new_hash(like)
    hasher.update(body)
    return digest_in(hasher)


def mismatch(got, expected):
    """Return the message for content that contradicts its digest."""
    return f"digest mismatch: got {got}, expected {expected}"


def load_json(text):
    """Return json.loads(text) if every reader understands it alike. Raises ValueError.

    Go merges the values of a repeated key, while Python takes the last; Go ignores the case of
    keys; it reads half a surrogate pair as U+FFFD. A number of a million digits keeps older
    Pythons busy for minutes.
    """

    def unique(pairs):
        if len({key.casefold() for key, _ in pairs}) != len(pairs):
            raise ValueError("a repeated key")
        return dict(pairs)

    value = json.loads(text, parse_int=lambda digits: int(digits[:30]), object_pairs_hook=unique)
    json.dumps(value, ensure_ascii=False).encode()  # raises UnicodeEncodeError, a ValueError
    return value


def parse_json(body, what):
    """Return the JSON object (dict) in bytes. Raises Damaged, which does not quote the bytes."""
    value = None
    with contextlib.suppress(ValueError, RecursionError):
        value = load_json(body.decode("utf-8"))
    if not isinstance(value, dict):
        # The bytes may be a file with passwords or hold a token, so they are not shown.
        is_page = body.lstrip()[:1] == b"<"
        why = ", but a web page: is there a proxy or a login page in between?" if is_page else ""
        raise Damaged(f"{what} is not a JSON object{why}")
    return value


def field(value, key, kind, what):
    """Return value[key] of the given type, an empty one if missing or null. Raises Damaged."""
    content = value.get(key)
    if content is None:
        # The runtimes are written in Go, whose JSON would take a key in any other case for this.
        if any(other.casefold() == key.casefold() for other in value if other != key):
            raise Damaged(f"{what}: {key} is spelled in another case")
        return kind()
    # In Python, true and false are numbers as well.
    if not isinstance(content, kind) or isinstance(content, bool):
        raise Damaged(f"{what}: {key} is {type(content).__name__}, not {kind.__name__}")
    return content


def items(value, key, kind, what, limit):
    """Return value[key] as a list of items of one type, [] if missing. Raises Damaged."""
    entries = field(value, key, list, what)
    if len(entries) > limit or not all(isinstance(entry, kind) for entry in entries):
        raise Damaged(f"{what}: {key} is not a list of at most {limit} {kind.__name__}")
    return entries


def media_type_of(value, what):
    """Return the mediaType of a JSON object without its parameters, "" if none."""
    return field(value, "mediaType", str, what).partition(";")[0].strip().lower()


def annotations_of(value, what):
    """Return the annotations of a JSON object: {str: str}. Raises Damaged."""
    annotations = field(value, "annotations", dict, what)
    if not all(isinstance(each, str) for each in annotations.values()):
        raise Damaged(f"{what}: an annotation is not a string")
    return annotations


def platform_in(value, what):
    """Return the Platform in the fields of a JSON object: a descriptor's platform, or a config."""
    keys = ("os", "architecture", "variant", "os.version")
    names = [field(value, key, str, what) for key in keys]
    return normal_platform(*names, items(value, "os.features", str, what, 100))


def parse_descriptor(value, what):
    """Return the Descriptor in a JSON object. Raises Damaged on a bad digest or size."""
    digest = field(value, "digest", str, what)
    if not DIGEST.fullmatch(digest):
        raise Damaged(f"{what} has the digest {quoted(digest, 90)}, which is not sha256 or sha512")
    size = field(value, "size", int, what)
    if not 0 <= size < SIZE_LIMIT:
        raise Damaged(f"{what} has an impossible size: {printable(size, 40)}")
    platform = field(value, "platform", dict, what)
    return Descriptor(
        media_type=media_type_of(value, what),
        digest=digest,
        size=size,
        platform=platform_in(platform, what) if platform else None,
        annotations=annotations_of(value, what),
    )


def parse_manifest(body, digest, what):
    """Return the Manifest in bytes that have been checked against digest.

    Its shape decides, since registries send wrong media types. Raises Damaged on everything but
    an index or a manifest, also on Docker's schema 1.
    """
    value = parse_json(body, what)

    def descriptors(key, limit):
        entries = items(value, key, dict, what, limit)
        return [parse_descriptor(entry, f"one of the {key} of {what}") for entry in entries]

    def descriptor(key):
        entry = field(value, key, dict, what)
        return parse_descriptor(entry, f"the {key} of {what}") if entry else None

    children, config = descriptors("manifests", CHILDREN_LIMIT), descriptor("config")
    # Clients differed in how they read a document with both (CVE-2021-41190).
    if bool(config) == ("manifests" in value) or not config and {"config", "layers"} & set(value):
        why = ": it is in Docker's schema 1, which no current runtime loads"
        why = why if value.get("schemaVersion") == 1 else ""
        raise Damaged(f"{what} is neither an image manifest nor an index{why}")
    media_type = media_type_of(value, what)
    types = (OCI_MANIFEST, DOCKER_MANIFEST) if config else (OCI_INDEX, DOCKER_LIST)
    if media_type not in types:
        is_docker = config and config.media_type == DOCKER_CONFIG
        media_type = types[1 if is_docker else 0]
    return Manifest(
        descriptor=Descriptor(media_type, digest, len(body), None, {}),
        body=body,
        children=children,
        config=config,
        layers=descriptors("layers", LAYERS_LIMIT),
        subject=descriptor("subject"),
        artifact_type=field(value, "artifactType", str, what),
        annotations=annotations_of(value, what),
    )


def parse_config(body, manifest, what):
    """Return the ImageConfig in the bytes of a Manifest's config. Raises Damaged.

    Every layer needs its diff_id, or no runtime loads the image.
    """
    value = parse_json(body, what)
    rootfs = field(value, "rootfs", dict, what)
    diff_ids = items(rootfs, "diff_ids", str, what, LAYERS_LIMIT)
    if len(diff_ids) != len(manifest.layers):
        count = plural(len(diff_ids), "layer")
        raise Damaged(f"{what} lists {count}, and its manifest {len(manifest.layers)}")
    return ImageConfig(platform_in(value, what), diff_ids)


def walk(descriptor, manifest, load, what):
    """Yield (Descriptor, Manifest) of a manifest and of all below it, each once, parents first.

    load: function from a digest to its Manifest, or to None to skip it

    Raises Damaged if there are too many: an index can be endless.
    """
    seen, pending = {descriptor.digest}, [(descriptor, manifest)]
    for pair in pending:
        yield pair
        for child in pair[1].children:
            if child.digest not in seen:
                seen.add(child.digest)
                loaded = load(child.digest)
                pending += [(child, loaded)] if loaded else []
        if len(seen) > CHILDREN_LIMIT:
            raise Damaged(f"{what} has more than {CHILDREN_LIMIT} manifests")


# ---- Settings and reporter: the connection options of a pull, and the receiver of its progress ---


class Settings(
    collections.namedtuple(
        "Settings",
        "scheme insecure cacert cert key user password token timeout retries namespace",
    )
):
    """How to reach a registry.

    scheme: "https" or "http"; None for https, with http for a loopback registry without TLS
    insecure: bool, do not verify certificates
    cacert: str, path of a PEM file with CAs to trust besides the system's, or None
    cert, key: str, paths of PEM files with the client's certificate and its key, or None
    user, password: str, or None
    token: str, a registry token, or None
    timeout: float, seconds without data after which a connection is aborted
    retries: int, retries of a request, counted anew after progress; None is 9 (two minutes), and 1
        if nobody listens or the name is unknown
    namespace: str, the registry that the one in the references mirrors, or None
    """

    __slots__ = ()

    def __repr__(self):
        return "Settings(***)"  # never a password in a log or a traceback


Settings.__new__.__defaults__ = (None, False, *[None] * 6, 30, None, None)


class Reporter:
    """Receives progress callbacks, from several threads. This base class ignores them all."""

    def note(self, text):
        """Show a message that the user may want to see: a wait, a retry, a resume."""

    def warn(self, text):
        """Show a message that the user should see."""

    def debug(self, text):
        """Show a request or an answer, without secrets."""

    def status(self, text):
        """Show the current activity before start(); "" clears it for a prompt."""

    def retry(self, failure, delay, number, limit):
        """Announce a retry (int, number of limit) in delay (float) seconds after a failure (str).

        limit: int, 0 if time is the limit
        """
        self.note(f"{failure}; trying again in {delay:.1f} s")

    def start(self, layers, total, images):
        """Begin the download: all documents are here.

        layers: list of Descriptor, the layers of the archive
        total: int, their bytes
        images: list of Image
        """

    def layer(self, descriptor, how):
        """Report a complete, verified layer (Descriptor).

        how: str, "" if it was fetched, else its origin
        """

    def image(self, image):
        """Report an Image whose layers are all complete, in an archive of several images."""

    def progress(self, done):
        """Report the bytes (int) of layers that are in place. Called often."""

    def reading(self, name, done, total):
        """Report the bytes (int) of a local archive that have been read. Called often.

        total: int, 0 for a pipe. The last call has done == total.
        """

    def finish(self):
        """End the download, successful or not."""


# ---- Credentials: docker's config.json, containers-auth.json(5), credential helpers --------------
#
# For each registry its own login, from the places where docker and podman keep theirs. A file or a
# helper that cannot be used is a warning: a public image needs none of them.

CONFIG_LIMIT = 4 << 20  # bytes of a file with credentials
HELPER_SECONDS = 20  # for the answer of a credential helper
# Docker Hub's key in docker's files, and its name for docker's helpers.
HUB_KEY = "https://index.docker.io/v1/"
HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
INLINE = "$DOCKER_AUTH_CONFIG"  # the content of config.json in a variable


class Credential(collections.namedtuple("Credential", "user password identity token source")):
    """A login at a registry or its token server; "" for each part that is missing.

    user, password: str; bytes that are not UTF-8 are kept as surrogates (PEP 383)
    identity: str, an identity token: the token server takes it as an OAuth2 refresh token
    token: str, a registry token, sent to the registry unchanged
    source: str, the file that it is stored in or named by, "" if it was given as an option
    """

    __slots__ = ()

    def __repr__(self):
        return "Credential(***)"  # never a secret in a log or a traceback


NOBODY = Credential("", "", "", "", "")


def make_credential(source, user, password, identity="", token=""):
    """Return the Credential of its parts, None if they are empty.

    Raises ValueError on half a character, which JSON can express and no request can.
    """
    f"{user}{password}{identity}".encode("utf-8", "surrogateescape")
    # docker's sign for a secret that is not a password but an identity token.
    if user == "<token>":
        user, password, identity = "", "", identity or password
    found = user or identity or token
    return Credential(user, password, identity, token, source) if found else None


def basic(user, password):
    """Return the value of an Authorization header (RFC 7617)."""
    import base64

    pair = f"{user}:{password}".encode("utf-8", "surrogateescape")
    remember_secret(password)
    return "Basic " + remember_secret(base64.b64encode(pair).decode())


def credential_files(environ):
    """Return the paths of the files that may hold credentials, in order of precedence."""
    if environ.get("REGISTRY_AUTH_FILE"):
        # It alone counts, as with podman and skopeo.
        return [environ["REGISTRY_AUTH_FILE"]]
    home, docker = os.path.expanduser("~"), environ.get("DOCKER_CONFIG")
    # As root, over ssh or under cron, XDG_RUNTIME_DIR is not set: containers-auth.json(5).
    user = os.getuid() if hasattr(os, "getuid") else 0
    runtime = environ.get("XDG_RUNTIME_DIR")
    return [
        *[INLINE] * ("DOCKER_AUTH_CONFIG" in environ),
        *[f"{docker}/config.json"] * bool(docker),
        f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{user}/auth.json",
        f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/containers/auth.json",
        *[f"{home}/.docker/config.json"] * (not docker),
    ]


def open_at_once(path, flags):
    """Open a file as os.open does, without waiting for somebody to write to a named pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_config(path, environ):
    """Return the bytes of a file or variable with credentials. Raises OSError."""
    if path == INLINE:
        return os.fsencode(environ[INLINE[1:]])
    with open(path, "rb", opener=open_at_once) as file:
        content = file.read(CONFIG_LIMIT + 1)
        if not os.path.isfile(file.fileno()) or len(content) > CONFIG_LIMIT:
            raise OSError(errno.EINVAL, f"not a file of at most {human(CONFIG_LIMIT)}")
    return content


def stored_credential(reference, environ, warn):
    """Return the Credential for a reference from the user's configuration, or None.

    environ: {str: str}, the environment variables
    warn: function of a str, called for each file or helper that cannot be used
    """
    attempts = helper_credential, entry_credential
    for path, attempt in itertools.product(credential_files(environ), attempts):
        where = printable(path)
        try:
            content = read_config(path, environ)
            # docker and podman leave empty files behind.
            config = parse_json(content, where) if content.strip() else {}
            credential = attempt(config, reference, where)
            if credential:
                return credential
        except OSError as error:
            # Most hosts lack most of the files, but one that was asked for should be there.
            if environ.get("REGISTRY_AUTH_FILE") or not isinstance(error, FileNotFoundError):
                warn(f"{where} cannot be read ({error.strerror}); going on without it")
        except ImgpullError as error:
            warn(f"{error}; going on without it")
        except ValueError:  # not base64, no colon, half a character
            warn(f"{where}: its login for {reference.name} is malformed; going on without it")
    return None


def normal_key(key):
    """Return the host or host/path that a key of "auths" or "credHelpers" stands for."""
    pattern = "(https?://)?([^/]*)(.*?)(/(v[12]/?)?)?"
    scheme, host, path, *_ = re.fullmatch(pattern, key, re.S).groups()
    host = host.lower()
    # Beside HUB_KEY, docker's web login stores what it needs itself to get new tokens.
    if host in HUB_HOSTS and not path.endswith("-token"):
        host = "docker.io"
    # docker writes URLs, of which only the host counts; a path without a scheme is podman's.
    return host if scheme else host + path


def spellings(keys, name):
    """Return the keys that stand for a host or host/path, docker's or the exact one first."""
    same = [key for key in keys if normal_key(key) == name]
    return sorted(same, key=lambda key: (key != HUB_KEY, key != name))


def entry_credential(config, reference, where):
    """Return the Credential in "auths" for a reference, or None.

    The key that is the longest part of its name counts: host/team/app, then host/team, then host.
    Raises ImgpullError, ValueError.
    """
    import base64

    auths, name = field(config, "auths", dict, where), reference.name.lower()
    while name:
        for key in spellings(auths, name):
            what, entry = f"{where}: the entry of {quoted(key)}", field(auths, key, dict, where)
            keys = ("username", "password", "identitytoken", "registrytoken", "auth")
            *parts, packed = [field(entry, each, str, what) for each in keys]
            if packed:
                # The program base64 breaks its lines, and Go's decoder takes that.
                pair = base64.b64decode("".join(packed.split()), validate=True)
                user, password = pair.decode("utf-8", "surrogateescape").split(":", 1)
                parts[:2] = user, password.strip("\0")  # as docker does
            credential = make_credential(where, *parts)
            if credential:
                return credential
        name = name.rpartition("/")[0]
    return None


def helper_credential(config, reference, where):
    """Return the Credential that a helper has for a registry, or None.

    The protocol: github.com/docker/docker-credential-helpers. Raises ImgpullError, ValueError.
    """
    import subprocess

    helpers, registry = field(config, "credHelpers", dict, where), reference.registry
    keys = spellings(helpers, registry.lower())
    # An empty name: this registry has no helper, not even that of credsStore.
    helper = helpers[keys[0]] if keys else field(config, "credsStore", str, where)
    if not helper:
        return None
    if not re.fullmatch(r"[A-Za-z0-9._-]+", str(helper)):
        raise ImgpullError(f"{where}: {quoted(helper, 60)} is not the name of a credential helper")
    program = f"docker-credential-{helper}"
    options = {"stderr": subprocess.DEVNULL, "timeout": HELPER_SECONDS}
    # docker asks helpers for Docker Hub's URL, podman for docker.io.
    for server in [HUB_KEY, "docker.io"] if registry == "docker.io" else [registry]:
        try:
            said = subprocess.check_output([program, "get"], input=server.encode(), **options)
        except (OSError, subprocess.SubprocessError) as error:
            # A helper says "credentials not found in native keychain" with the same status as an
            # error. Its output is not shown: it may hold a secret.
            if b"not found" in (getattr(error, "output", b"") or b""):
                continue
            raise ImgpullError(f"{where}: {program} failed: {printable(error)}") from None
        value = parse_json(said, f"the answer of {program}")
        parts = [field(value, key, str, program) for key in ("Username", "Secret")]
        credential = make_credential(where, *parts)
        if credential:
            return credential
    return None


# ---- Proxies: https_proxy, http_proxy, all_proxy and no_proxy, as curl and Go read them ----------
#
# The variables are read for each request, not once: programs that import this module change them.

PROXY_PORTS = {"http": 80, "socks5": 1080, "socks5h": 1080}


class Origin(collections.namedtuple("Origin", "scheme host port")):
    """A server: scheme, host and port. str() is host[:port], as in a Host header.

    scheme: str, "http" or "https", or one of PROXY_PORTS
    host: str in lower case, an IPv6 address without brackets
    port: int
    """

    __slots__ = ()

    @property
    def netloc(self):
        """host:port, always with the port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self):
        return re.sub(f":{PORTS.get(self.scheme)}$", "", self.netloc)


def origin_of(url, ports=PORTS):
    """Return the Origin of a URL. Raises ImgpullError if it has none whose scheme is in ports."""
    from urllib.parse import urlsplit

    # urlsplit raises ValueError on malformed ports and brackets, and encode() on half characters,
    # which JSON can hold and no request can.
    with contextlib.suppress(ValueError):
        url.encode("utf-8")
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        # A line break in a host would end up in a request to a proxy.
        if parts.scheme in ports and re.fullmatch(r"[^\x00-\x20\x7f]+", host):
            return Origin(parts.scheme, host, ports[parts.scheme] if port is None else port)
    raise ImgpullError(f"{redacted(url)} is not the URL of an {' or '.join(ports)} server")


def redacted(url):
    """Return a URL without its secrets: no query, as in signed URLs; nothing before the last @."""
    parts = r"(?is)^([a-z0-9+.-]+://)?([^?#]*@)?([^?#]*).*"
    return printable(re.sub(parts, r"\1\3", url), 200)


def covers(entry, host, port):
    """Return True if an entry of no_proxy matches host and port.

    entry: *, a domain (with or without a leading dot or *.), an address or a CIDR range, each
    with or without a port

        example.com        example.com and reg.example.com, any port
        .example.com:5000  the same, port 5000
        10.0.0.0/8         10.1.2.3
    """
    import ipaddress

    # Another port stays, and then nothing matches.
    entry = re.sub(rf"(^[^:]*|\]):{port}$", r"\1", entry).strip("[]").rstrip(".")
    if entry == "*" or f".{host}".endswith(re.sub(r"^\*?\.?", ".", entry)):
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    return False


def is_loopback(host):
    """Return True if a host is the one that this program runs on."""
    return bool(re.fullmatch(r"localhost|127(\.\d{1,3}){3}|::1", host))


def usable_proxy(origin, environ):
    """Return the URL of the proxy for an Origin, its scheme in lower case, or None.

    Raises UsageError if it is malformed.
    """

    def variable(name):
        return (environ.get(name) or environ.get(name.upper()) or "").strip()

    proxy = variable(f"{origin.scheme}_proxy") or variable("all_proxy")
    host = origin.host.rstrip(".")
    entries = re.split(r"[\s,]+", variable("no_proxy").lower())
    # To a proxy, "localhost" is its own host. Go's tools do not ask it for loopback either.
    if not proxy or is_loopback(host) or any(covers(each, host, origin.port) for each in entries):
        return None
    scheme, is_url, rest = proxy.partition("://")
    proxy = f"{scheme.lower()}://{rest}" if is_url else f"http://{proxy}"
    with contextlib.suppress(ImgpullError):
        # An @ in the rest means a password that urlsplit would cut at a /.
        form = "[^/]*//([^/?#]*@)?[^/?#@]+/?"
        if re.fullmatch(form, proxy) and origin_of(proxy, PROXY_PORTS):
            return proxy
    raise UsageError(
        f"the proxy {redacted(proxy)} (from http_proxy, https_proxy or all_proxy) must be "
        "http://HOST:PORT (or socks5:// or socks5h://), or have USER:PASSWORD@ before HOST, with "
        "special characters in the password as %40 and the like"
    )


def sized(text):
    """Return text (at most 255 bytes) as SOCKS sends it: its length in a byte, then its bytes."""
    data = text.encode("utf-8", "surrogateescape")
    return bytes([len(data)]) + data


def proxy_login(proxy):
    """Return (user, password) in a proxy's URL, () if there is none."""
    from urllib.parse import unquote

    user_info, at, _ = proxy.partition("://")[2].rpartition("@")
    user, _, password = [
        unquote(part, errors="surrogateescape") for part in user_info.partition(":")
    ]
    remember_secret(password)
    return (user, password) if at else ()


def proxy_authorization(proxy):
    """Return the headers (dict) with the credentials in a proxy's URL, {} if it has none."""
    login = proxy_login(proxy)
    return {"Proxy-Authorization": basic(*login)} if login else {}


def proxy_refused(proxy, peer, status, reason=""):
    """Return the ImgpullError for a proxy that does not connect to a peer.

    status: int, of HTTP; the nearest one for SOCKS
    """
    # RFC 9110 has 407 for this, but some proxies answer 401.
    if status in (401, 407):
        return NoAccess(
            f"the proxy {redacted(proxy)} requires a login, or another one: write USER:PASSWORD@ "
            "before its host"
        )
    text = f"the proxy {redacted(proxy)} does not connect to {peer} ({printable(reason)})"
    kind = NoAccess if status == 403 else Temporary if status >= 500 else ImgpullError
    return kind(text)


# ---- TLS: whom to trust, what to show, and what a failed handshake means -------------------------

# Where podman and docker keep the certificates of single registries, in HOST[:PORT]/.
CERTS_DIRS = ("~/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")

# OpenSSL's words, in lower case, for a peer that speaks something else than TLS.
NOT_TLS = (
    "wrong version number|http request|unknown protocol|record layer failure|packet length too"
)
# Patterns of OpenSSL's words in lower case, and what they mean for a handshake that failed.
TLS_HINTS = (
    (
        NOT_TLS,
        "it does not speak TLS on this port: if it is a plain-http registry, use --scheme http, or "
        "write http:// before HOST",
    ),
    (
        "certificate required|handshake failure|bad certificate|did not return a certificate|alert "
        "unknown ca|certificate unknown|alert certificate expired",
        "it may require a client certificate that it trusts: --cert and --key",
    ),
    (
        "unsupported protocol|protocol version|no protocols|no shared cipher",
        "it has no TLS version in common with this Python's OpenSSL: use a newer Python, or have "
        "the server updated",
    ),
    (
        "verify failed.*(expired|not yet valid)",
        "its certificate is out of date: check this host's clock, have the certificate renewed, "
        "or use --insecure",
    ),
    (
        "mismatch|doesn't match|not valid for",
        "its certificate is for another name: use that name, or --insecure",
    ),
    (
        # Python 3.6 does not say more than this, also for a certificate that is out of date.
        "verify failed",
        "its certificate is not signed by a trusted CA: give the right CA's PEM file with "
        "--cacert, or use --insecure",
    ),
)


class TLSFiles(collections.namedtuple("TLSFiles", "authorities cert key insecure")):
    """What a connection to an Origin is made with. Origins with equal ones share a context.

    authorities: tuple of str, paths of PEM files with CAs to trust besides the system's
    cert, key: str, paths of PEM files with our certificate and its key, or None
    insecure: bool, True if the server's certificate is not verified
    """

    __slots__ = ()


def tls_files(origin, settings, own):
    """Return the TLSFiles for an Origin.

    own: bool, True if the option --cert is for this server. A store that a registry redirects to
        is not shown who we are.
    """
    files = []
    for directory in CERTS_DIRS:
        # The directory with the port comes first, the one without is for the usual port alone.
        for name in sorted({origin.netloc, str(origin)}, reverse=True):
            folder = os.path.join(os.path.expanduser(directory), name)
            # Most hosts have none, or it may be readable by root alone.
            with contextlib.suppress(OSError):
                files += [os.path.join(folder, file) for file in sorted(os.listdir(folder))]
    authorities = [file for file in files if file.endswith(".crt")]
    authorities += [settings.cacert] if settings.cacert else []
    pairs = [(settings.cert, settings.key)] if own and settings.cert else []
    pairs += [(file, re.sub("cert$", "key", file)) for file in files if file.endswith(".cert")]
    return TLSFiles(tuple(authorities), *(pairs or [(None, None)])[0], settings.insecure)


def tls_context(files):
    """Return the ssl.SSLContext for TLSFiles. Raises UsageError if a file cannot be used.

    It loads all of the system's CAs, so it is worth keeping: a context for each of the hosts that
    a registry redirected to once cost 286 MiB.
    """
    import getpass
    import ssl

    def passphrase():
        # ssl of Python 3.6 calls again after an exception, and then crashes.
        with contextlib.suppress(EOFError):
            if sys.stdin and sys.stdin.isatty():
                return getpass.getpass("Pass phrase of the client's key: ")
        return "-"

    context = ssl.create_default_context()
    # Python 3.13 refuses CAs without a key usage, as many private ones are; docker, curl and older
    # Pythons take them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        for name in files.authorities:
            context.load_verify_locations(name)
        # ssl does not say which of the two is missing. Its other errors are about the last.
        for name in filter(None, (files.key, files.cert)):
            os.stat(name)
        if files.cert:
            context.load_cert_chain(files.cert, files.key, passphrase)
    except OSError as error:
        raise UsageError(
            f"the certificate or key {printable(name)} cannot be used "
            f"({printable(error.strerror or error)}): it must be a file in PEM, a certificate and "
            "its key must belong together, and an encrypted key needs a terminal and the right "
            "pass phrase (openssl pkey -in KEY -out PLAIN decrypts a key)"
        ) from None
    if files.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_failure(error, peer):
    """Return the ImgpullError for an ssl.SSLError or ssl.CertificateError from a peer (str)."""
    said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    whole = f"{error} {said}".lower().replace("_", " ")
    for pattern, hint in TLS_HINTS:
        if re.search(pattern, whole, re.S):
            kind = NotTLS if pattern == NOT_TLS else ImgpullError
            return kind(f"no TLS connection to {peer}: {hint} ({printable(said)})")
    return Temporary(f"the TLS connection to {peer} broke: {printable(error)}")


# ---- Connections: the one place that makes a request, and the one rule that retries --------------
#
# http.client makes the requests. This section adds redirects that take no credentials to another
# host, proxies, connections that are kept alive for all threads, and limits for slow peers.

BUFFER = 256 << 10  # bytes a read: measured, more does not pay and less costs calls
REDIRECTS = 10
BACKOFF = 0.5  # seconds before the first retry; doubles with each, up to 64 times as much
# Retries, unless --retries is given: for a name or address that is most likely wrong, and for all
# else. The waits of the latter add up to two minutes: a registry that restarts takes its time.
UNLIKELY_RETRIES, RETRIES = 1, 9
LONGEST_WAIT = 120  # seconds: a Retry-After beyond this is an error at once
OVERHEAD_LIMIT = 512 << 10  # bytes of headers, or of chunk sizes and trailers for one read
DEAD_ADDRESS_SECONDS = 5  # for an address that does not answer, if there are others
FILL_SECONDS = 0.05  # how long a read goes on to fill its buffer
# A peer that sends less than this is given up. A silent one is --timeout's business alone.
SLOW_SECONDS, SLOW_RATE = 60, 1 << 10  # the least to look at, and bytes a second


class Incoming(io.RawIOBase):
    """The bytes that arrive on a socket, as http.client reads them for one answer.

    - A read of a body fills its buffer, or ends with what comes after FILL_SECONDS: a record of TLS
      has 16 KiB at most, and to hand on each by itself costs 40 % more CPU.
    - A peer that sends a byte now and then, or headers without end, is given up.
    """

    def __init__(self, sock, raw):
        self.sock, self.raw = sock, raw  # raw is closed with it: it holds sock
        self.due = 0  # bytes of the body that are certain to come
        self.budget = OVERHEAD_LIMIT  # bytes that may come before the reader asks for more
        self.failure = None  # an error that came after bytes which count
        self.waited, self.received = 0.0, 0  # seconds, and bytes that came in them
        self.patience = max(SLOW_SECONDS, 2 * sock.gettimeout())  # seconds

    def readable(self):
        return True

    def readinto(self, view):
        if self.failure:
            raise self.failure
        begun = time.monotonic()
        count = self.sock.recv_into(view)
        full = min(len(view), self.due)
        while 0 < count < full and time.monotonic() - begun < FILL_SECONDS:
            try:
                more = self.sock.recv_into(view[count:full])
            except Exception as error:
                self.failure, more = error, 0
            if not more:
                break
            count += more
        self.budget -= count
        if self.budget < 0:
            raise OSError("it sends headers without end")
        self.waited += time.monotonic() - begun
        self.received += count
        if self.waited > self.patience:
            if self.received < SLOW_RATE * self.patience:
                raise OSError(f"it sent only {human(self.received)} in {self.patience:g} s")
            self.waited, self.received = 0.0, 0
        return count

    def close(self):
        super().close()
        self.raw.close()


def answer_class():
    """Return a http.client.HTTPResponse class that reads through Incoming."""
    import http.client

    class Answer(http.client.HTTPResponse):
        def __init__(self, sock, *args, **options):
            super().__init__(sock, *args, **options)
            self.incoming = Incoming(sock, self.fp.detach())
            self.fp = io.BufferedReader(self.incoming)

        def _read_status(self):
            # Of the interim answers, http.client knows 100 alone (RFC 9110 15.2).
            version, status, reason = super()._read_status()
            return version, 100 if 101 < status < 200 else status, reason

    return Answer


class Response(contextlib.AbstractContextManager):
    """An answer whose body is read with a limit. A context manager.

    Its connection serves the next request if the body has been read to its end.
    """

    def __init__(self, transport, connection, answer):
        self.transport, self.connection = transport, connection
        self.origin = connection.origin
        self.answer, self.status, self.headers = answer, answer.status, answer.headers
        # Bytes of the body that are still to come, None if the server has not said.
        self.left = None if answer.chunked else answer.length

    def readinto(self, view):
        """Fill a memoryview with what arrives, and return the number of bytes, 0 at the end.

        Raises Temporary if the body breaks off.
        """
        if self.left == 0:
            return 0
        incoming = self.answer.incoming
        incoming.due, incoming.budget = self.left or 0, len(view) + OVERHEAD_LIMIT
        try:
            if self.left is None:
                piece = self.answer.read1(len(view))
                view[: len(piece)] = piece
                return len(piece)
            # HTTPResponse.readinto would wait until the view is full.
            count = self.answer.fp.readinto1(view[: self.left])
        except Exception as error:
            raise self.transport.failure(error, self.origin) from None
        if not count:
            raise Temporary(f"{self.origin} closed the connection, {human(self.left)} missing")
        self.left -= count
        return count

    def first(self, limit):
        """Return the body, or as much of it as limit bytes."""
        body, view, count = bytearray(), memoryview(bytearray(64 << 10)), 1
        while count and len(body) < limit:
            count = self.readinto(view[: limit - len(body)])
            body += view[:count]
        return bytes(body)

    def read(self, limit):
        """Return the whole body. Raises Damaged if it is longer than limit bytes."""
        import zlib

        body = self.first(limit + 1)
        # Some compress although we ask for identity. Digests are of the plain bytes.
        if self.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            with contextlib.suppress(zlib.error):
                body = zlib.decompressobj(31).decompress(body, limit + 1)
        if len(body) > limit:
            raise Damaged(f"{self.origin} answered with more than {human(limit)}")
        return body

    def close(self, *_):
        """Give the connection back if it can serve again, else close it."""
        is_whole = self.left == 0 or self.answer.isclosed()
        # The answer may hold the socket where the connection has let go of it.
        self.answer.close()
        if self.connection:
            self.transport.release(self.connection, is_whole and not self.answer.will_close)
        self.connection = None

    __exit__ = close


def retry_after(value):
    """Return the seconds that a Retry-After header asks for (RFC 9110 10.2.3), or None."""
    from email.utils import mktime_tz, parsedate_tz

    # Malformed dates raise different errors in different Pythons.
    with contextlib.suppress(Exception):
        if re.fullmatch(r"\s*\d{1,9}\s*", value):
            return int(value)
        return max(0, mktime_tz(parsedate_tz(value)) - time.time())
    return None


class Retries:
    """The one rule that retries: how often something has failed, and the waits in between.

    what: str, what is tried, for messages: a layer or a document
    """

    def __init__(self, transport, what):
        self.transport, self.what = transport, what
        self.failures = self.progress = 0

    def wait(self, failure, progress=0):
        """Wait until it is time for the next try.

        failure: Temporary, the failure of the last try
        progress: int, grows as the tries get on; growth restarts the count

        Raises Resumable if no tries are left, Stopped if the pull has failed elsewhere.
        """
        import random

        if progress > self.progress:
            self.failures, self.progress = 0, progress
        self.failures += 1
        limit = self.transport.settings.retries
        if limit is None:
            limit = UNLIKELY_RETRIES if isinstance(failure, Unlikely) else RETRIES
        text = str(failure)
        text = text if text.startswith(self.what) else f"{self.what}: {text}"
        # A store that refuses the new address that its registry gave, too.
        if self.failures > 2 and failure.status in (400, 401, 403):
            raise NoAccess(text)
        if self.failures > limit:
            raise Resumable(text + (f" (tried {self.failures} times)" if limit else ""))
        delay = failure.delay
        if delay is None:
            # Partly random, so that what failed at one moment is not all tried again at one moment.
            delay = BACKOFF * 2 ** min(self.failures - 1, 6) * random.uniform(0.75, 1.25)
        elif delay > LONGEST_WAIT:
            raise Resumable(f"{text}; it asks to wait {delay:.0f} s")
        self.transport.reporter.retry(text, delay, self.failures, limit)
        if self.transport.stopping.wait(delay):
            raise Stopped("stopped")


class Transport:
    """Connections, kept alive and shared by all threads of a pull.

    jobs: int, number of threads that use it at once
    """

    def __init__(self, settings, reporter, jobs=6):
        self.settings, self.reporter = settings, reporter
        self.jobs = jobs
        self.own_hosts = set()  # hosts that --cert is shown to, added by Registry
        self.warned = {}  # warnings: setdefault() is atomic, so each is shown once
        self.lock = threading.Lock()  # guards what follows
        self.idle = []  # connections, the one used last at the end
        self.fetched = 0  # bytes of blobs that came, counted by Registry
        self.taken = 0  # bytes of documents that came, counted by Registry
        self.contexts = {}  # {TLSFiles: ssl.SSLContext}: a context costs a megabyte
        self.reached = set()  # Origins that have answered
        self.dead = set()  # addresses that have not
        self.stopping = threading.Event()  # set if all threads should end

    def persist(self, what, attempt):
        """Return the result of attempt(), which is called again as long as it raises Temporary."""
        retries = Retries(self, what)
        while True:
            try:
                return attempt()
            except Temporary as failure:
                retries.wait(failure)

    def open(self, method, url, headers, logins, body=None):
        """Return the Response to a request, after redirects.

        logins: {Origin: str, the Authorization header for it and no other}

        Raises Temporary, and ImgpullError for a redirect that is not to be followed.
        """
        from urllib.parse import urljoin

        start = url
        for _ in range(REDIRECTS + 1):
            origin = origin_of(url)
            # The stores that registries redirect to get a signed URL, and must not see our token.
            login = logins.get(origin)
            sent = dict(headers, Authorization=login) if login else headers
            try:
                response = self.send(origin, method, url, sent, body)
            except Unlikely as error:
                if url != start:
                    error.args = (
                        f"{error}; {redacted(start)} redirects there: a network's login page?",
                    )
                raise
            self.reporter.debug(
                f"{method} {redacted(url)} {headers.get('Range', '')}: {response.status}"
            )
            location = response.headers.get("Location", "").strip()
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            with contextlib.suppress(ValueError):
                location = urljoin(url, location)
            if method == "POST" or origin.scheme == "https" and location[:6].lower() != "https:":
                # https and credentials stay.
                raise ImgpullError(
                    f"{origin} redirects {method} to {redacted(location)}: not followed"
                )
            url = location
        raise ImgpullError(f"{origin} redirects more than {REDIRECTS} times")

    def send(self, origin, method, url, headers, body):
        """Return the Response to one request, without redirects: the one place that asks.

        http.client adds Host and asks for no compression: sizes and digests are of plain bytes.
        """
        from urllib.parse import quote, urlsplit

        parts = urlsplit(url)
        query = f"?{parts.query}" if parts.query else ""
        target = quote(f"{parts.path or '/'}{query}", safe="/?%:@!$&'()*+,;=~-._[]")
        headers = dict(headers, **{"User-Agent": f"imgpull/{__version__}"})
        proxy = usable_proxy(origin, os.environ)
        if proxy and origin.scheme == "http" and not proxy.startswith("socks"):
            target = f"http://{origin}{target}"
            headers.update(proxy_authorization(proxy))
        while True:
            if self.stopping.is_set():
                raise Stopped("stopped")
            with self.lock:
                # The one that was used last: its peer is the least likely to have closed it.
                kept = next((each for each in self.idle[::-1] if each.origin == origin), None)
                if kept:
                    self.idle.remove(kept)
            connection = kept or self.connect(origin, proxy)
            is_open = kept
            try:
                connection.request(method, target, body, headers)
                is_open = True
                answer = connection.getresponse()
            except Exception as error:
                connection.close()
                # A kept-alive connection may have been closed before our request reached anyone:
                # that is not a failure. A second POST might be one.
                closed = isinstance(error, ConnectionError) or "EOF" in type(error).__name__
                if kept and closed and method != "POST":
                    continue
                raise self.failure(error, origin, proxy, is_open) from None
            self.reached.add(origin)
            if answer.status == 407 and proxy:
                connection.close()
                raise proxy_refused(proxy, origin, 407)
            return Response(self, connection, answer)

    def failure(self, error, origin, proxy=None, is_open=True):
        """Return the ImgpullError for an exception of http.client, ssl or a socket.

        origin: Origin, the server
        proxy: str, the URL of the proxy in between, or None
        is_open: bool, False if no connection was made
        """
        import http.client
        import socket
        import ssl

        if isinstance(error, ImgpullError):
            return error
        if self.stopping.is_set():
            return Stopped("stopped")
        peer = f"{origin} through the proxy {redacted(proxy)}" if proxy else str(origin)
        tunnel = proxy and re.match(r"Tunnel connection failed: ((\d+).*)", str(error))
        if tunnel:
            return proxy_refused(proxy, origin, int(tunnel.group(2)), tunnel.group(1))
        reason = printable(getattr(error, "strerror", "") or error)
        if isinstance(error, socket.timeout):
            reason = f"timed out: no data for {self.settings.timeout:g} s"
        elif isinstance(error, socket.gaierror):
            hint = "check its spelling and this host's DNS, or set https_proxy if a proxy is needed"
            reason = f"no address found ({reason}): {hint}"
        elif isinstance(error, (ssl.SSLError, ssl.CertificateError)):
            return tls_failure(error, peer)
        elif isinstance(error, http.client.HTTPException):
            reason = f"its answer is cut off or not HTTP: {reason}"
        elif not isinstance(error, OSError):
            # The text of other errors is not shown: it may quote a header with a password.
            return ImgpullError(f"no request can be made to {peer} ({type(error).__name__})")
        # A server that has answered is there, and comes back.
        kind = Temporary if is_open or origin in self.reached else Unlikely
        return kind(f"the connection to {peer} failed: {reason}")

    def connect(self, origin, proxy):
        """Return a new connection to an origin, through a proxy if there is one. Not yet open."""
        import http.client

        is_http_proxy = proxy and not proxy.startswith("socks")
        host, port = (origin_of(proxy, PROXY_PORTS) if is_http_proxy else origin)[1:]
        timeout = self.settings.timeout
        if origin.scheme == "http":
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        else:
            context = self.tls_context(origin)
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
            if is_http_proxy:
                connection.set_tunnel(origin.host, origin.port, proxy_authorization(proxy))
        connection.origin, connection.response_class = origin, answer_class()
        connection._create_connection = lambda address, *_: self.dial(address)
        if proxy and not is_http_proxy:
            connection._create_connection = lambda address, *_: self.dial_through(proxy, address)
        return connection

    def tls_context(self, origin):
        """Return the ssl.SSLContext for an origin, shared by all that use the same files."""
        files = tls_files(origin, self.settings, origin.host in self.own_hosts)
        with self.lock:
            if files not in self.contexts:
                if files.key:
                    self.reporter.status("")  # its pass phrase may be asked for
                self.contexts[files] = tls_context(files)
            return self.contexts[files]

    def dial(self, address):
        """As socket.create_connection, but a dead address, of IPv6 say, costs little, and once."""
        import socket

        infos, timeout = socket.getaddrinfo(*address, 0, socket.SOCK_STREAM), self.settings.timeout
        *others, last = sorted((info[4][:2] for info in infos), key=self.dead.__contains__)
        for place in others:
            try:
                sock = socket.create_connection(place, min(timeout, DEAD_ADDRESS_SECONDS))
                sock.settimeout(timeout)
                return sock
            except OSError:
                self.dead.add(place)
        return socket.create_connection(last, timeout)

    def dial_through(self, proxy, address):
        """Return a socket that a SOCKS5 proxy has connected to an address (RFC 1928, RFC 1929).

        The proxy resolves the name, as in Go's tools.
        """
        host, port = address
        server, target = origin_of(proxy, PROXY_PORTS), sized(host) + port.to_bytes(2, "big")
        login = b"".join(map(sized, proxy_login(proxy) or ()))
        sock = self.dial(server[1:])
        try:
            with sock.makefile("rb") as file:

                def ask(request, size):
                    sock.sendall(request)
                    return file.read(size)

                choice = ask(b"\5\2\0\2" if login else b"\5\1\0", 2)
                if login and choice == b"\5\2":
                    choice = b"\5" + ask(b"\1" + login, 2)[1:]
                if choice != b"\5\0":
                    raise proxy_refused(proxy, host, 407 if choice else 502, "it hung up")
                code, kind = ask(b"\5\1\0\3" + target, 4)[1::2]
                if code:
                    raise proxy_refused(proxy, host, 403 if code == 2 else 502, f"error {code}")
                # What follows is the address that the proxy uses.
                file.read({1: 6, 4: 18}.get(kind) or file.read(1)[0] + 2)
                return sock
        except BaseException:
            sock.close()
            raise

    def release(self, connection, reusable):
        """Take a connection back after use. Beyond the limit, the one used longest ago goes."""
        if reusable:
            with self.lock:
                self.idle.append(connection)
                connection = self.idle.pop(0) if len(self.idle) > 2 * self.jobs else None
        if connection:
            connection.close()

    def close(self):
        """Close the connections that are idle."""
        while self.idle:
            self.idle.pop().close()


# ---- Registry and login: challenges, tokens, manifests and blobs (distribution-spec) -------------
#
# A request is sent without a login at first. A refused one climbs a ladder, each step once (the
# whole of it is a table in .github/CONTRIBUTING.md):
#
#     401 with a Bearer challenge      a token from its realm, with our login or as nobody
#     401 with a Basic challenge       user and password
#     400, 401 or 403 to an old token  the same without it: it has expired
#     401, 403 or 404 to no login      /v2/, which may have the challenge
#     a stored login that is refused   the same without it, and a warning

ERROR_BODY_LIMIT = 8 << 10  # bytes of an error's body that are read
PULL_LIMIT = 64 << 20  # bytes of all manifests and configs of a pull
TWICE = "twice: the registry's copy is damaged, or something on the way changes it"
LADDER = 8  # requests for one thing, at most
LOG_IN = "log in (docker login, podman login, or --user)"
WHO = f"check name and tag, or {LOG_IN}"
# Docker Hub's and ECR Public's words for a quota, which no retry restores.
QUOTA = re.compile("pull rate limit|toomanyrequests.*limit", re.I)

TOKEN_CHARACTERS = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
CHALLENGE = re.compile(
    rf"""[\s,]*(?:
    ({TOKEN_CHARACTERS})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))  # a parameter
    | ({TOKEN_CHARACTERS})(?:\ +[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$)))?  # a scheme, maybe a token68
    | .)""",
    re.VERBOSE | re.DOTALL,
)


def parse_challenges(value):
    """Return [(scheme in lower case, {parameter in lower case: value}), ...] (RFC 9110 11.6.1).

    value: str, the value of a WWW-Authenticate header. Malformed parts are skipped.

        Bearer realm="https://auth.example/token",service="x", Basic realm="y"
        [("bearer", {"realm": "https://auth.example/token", "service": "x"}),
         ("basic", {"realm": "y"})]
    """
    challenges = []
    for name, in_quotes, plain, scheme in CHALLENGE.findall(value[: 64 << 10]):
        if scheme:
            challenges.append((scheme.lower(), {}))
        elif name and challenges:
            text = re.sub(r"\\(.)", r"\1", in_quotes) or plain
            challenges[-1][1].setdefault(name.lower(), text)
    return challenges


def challenge_in(response):
    """Return {scheme: parameters} of the challenges of a 401, {} of another response."""
    # A header at a time: an open quote in one must not swallow the next. The first counts.
    headers = response.headers.get_all("WWW-Authenticate") or []
    pairs = [pair for each in headers for pair in parse_challenges(each)]
    return dict(pairs[::-1]) if response.status == 401 else {}


def explain(response):
    """Summarize an error response in one printable line, "" if it has no text."""
    text = ""
    # It may break off, and be JSON of any shape.
    with contextlib.suppress(Exception):
        text = response.first(ERROR_BODY_LIMIT).decode("utf-8", "replace")
        # Of a web page, its title says it; nginx repeats the status in it.
        text = re.sub(r"(?si)^\s*<.*?(<title>(\d+ )?|$)|</title>.*", "", text)
        value = load_json(text)
        first = (value.get("errors") or [value])[0]
        keys = ("code", "message", "error", "error_description", "details", "detail")
        text = ": ".join(first[key] for key in keys if isinstance(first.get(key), str)) or text
    # The query of a signed address is a secret.
    text = re.sub(r"\?[^\s?]+", "?***", text)
    return printable(text)


def answer_error(response, what, advice, own=True):
    """Return the ImgpullError for a response that is not a success, with its status.

    what: str, the thing that was asked for
    advice: str, what to do if access is denied
    own: bool, True if the registry itself answered
    """
    status, said = response.status, explain(response)
    text = f"{what}: {response.origin} answered {status}" + (f" ({said})" if said else "")
    if status == 429 and QUOTA.search(said):
        error = Resumable(f"{text}; wait, or {LOG_IN} for a higher limit")
    # Of a store, 4xx mean that its signed address has expired: the registry gives a new one.
    elif status in (408, 416, 425, 429) or status >= 500 or not own and status in (400, 401, 403):
        error = Temporary(text)
        error.delay = retry_after(response.headers.get("Retry-After"))
    elif status == 404:
        error = NotFound(f"{text}; not there, or private: {advice}")
    elif status in (401, 403, 407):
        error = NoAccess(f"{text}; no access: {advice}")
    else:
        more = "; leave out http:// or --scheme http" * ("HTTPS" in said)
        more += "; it requires a client certificate: --cert" * ("SSL cert" in said)
        error = Refused(text + more)
    error.status = status
    return error


class Registry:
    """Manifests and blobs of one repository. Every method raises ImgpullError.

    Safe to use from several threads.

    reference: Reference
    reporter: Reporter, or None
    transport: Transport to share with others, or None for one of its own
    documents: {digest: bytes} of manifests and configs that have been checked, to share, or None
    """

    def __init__(
        self, reference, settings=Settings(), reporter=None, transport=None, documents=None
    ):
        self.settings = settings
        self.transport = transport or Transport(settings, reporter or Reporter())
        # Reference, what the registry is asked for; and what the image is called
        self.reference, self.named, self.namespace = mirrored(reference, settings.namespace)
        self.speak(settings.scheme or "https")
        self.transport.own_hosts.add(self.origin.host)
        self.documents = {} if documents is None else documents
        self.ranged = True  # False once the server has refused a range
        self.lock = threading.Lock()  # one thread gets a token, the others wait for it
        self.headers = {}  # {Origin: Authorization, "" if /v2/ was asked and has no challenge}
        self.uses = 0  # requests that were given the last header
        self.known = {}  # {Origin: parameters of the challenge that its token came from}
        self.stored = None  # Credential, once it was looked for

    def speak(self, scheme):
        """Use a scheme from now on."""
        # Docker Hub's images are called docker.io/..., and served by another host.
        host = self.reference.registry
        host = "registry-1.docker.io" if host == "docker.io" else host
        self.base = f"{scheme}://{host}/v2/{self.reference.repository}/"
        self.origin = origin_of(self.base)

    def head(self, target=None):
        """Return the Descriptor of a tag's or digest's manifest, unchecked. Not tried again."""
        path = f"manifests/{target or self.reference.target}"
        with self.request("HEAD", path, str(self.named), {}) as response:
            length = response.headers.get("Content-Length", "")
            value = {
                "mediaType": response.headers.get("Content-Type"),
                "size": int(length) if re.fullmatch("[0-9]{1,18}", length) else -1,
                "digest": response.headers.get("Docker-Content-Digest"),
            }
        return parse_descriptor(value, "the manifest")

    def get(self, target=None):
        """Return the Manifest of a tag (str), digest (str) or Descriptor, checked.

        Without a target: of the reference. distribution-spec, "Pulling manifests".
        """
        name = getattr(target, "digest", target) or self.reference.target
        digest = name if ":" in name else ""
        what = f"{self.reference.name}{'@' if digest else ':'}{name}"
        body, _ = self.document(f"manifests/{name}", what, digest)
        if getattr(target, "size", len(body)) != len(body):
            raise Damaged(f"{what}: got {len(body)} bytes, expected {target.size}")
        digest = digest or digest_of(body)
        self.documents[digest] = body
        return parse_manifest(body, digest, what)

    def blob(self, descriptor):
        """Return the bytes of a small blob, such as a config, checked."""
        digest = descriptor.digest
        return self.document(f"blobs/{digest}", self.name_of(descriptor), digest)[0]

    def document(self, path, what, digest=""):
        """Return the bytes of a document, checked, and the headers that came with it.

        path: str, below the repository's URL
        digest: str, "" if the server is to say it
        """

        def attempt():
            with self.request("GET", path, what, {}) as response:
                return response.read(DOCUMENT_LIMIT), response.headers

        body, headers, is_again = self.documents.get(digest), {}, False
        while body is None:
            body, headers = self.transport.persist(what, attempt)
            with self.transport.lock:
                self.transport.taken += len(body)
                self.transport.fetched += len(body) * path.startswith("blobs/")
            if self.transport.taken > PULL_LIMIT:
                raise Damaged(f"{what}: this pull has documents of more than {human(PULL_LIMIT)}")
            expected = digest or headers.get("Docker-Content-Digest", "")
            got = digest_of(body, expected) if DIGEST.fullmatch(expected) else expected
            if got != expected:
                # Bytes get garbled on the way. Many registries announce wrong digests for tags.
                failure = f"{what}: {mismatch(got, expected)}"
                if is_again and digest:
                    raise Damaged(f"{failure}, {TWICE}")
                how = "using what the registry sent" if is_again else "downloading it again"
                self.transport.reporter.warn(f"{failure}; {how}")
                body, is_again = body if is_again else None, True
        if digest:
            self.documents[digest] = body
        return body, headers

    def name_of(self, descriptor):
        """Return the name of a blob in messages: its image, and the first digits of its digest."""
        kind = "layer" if is_layer_type(descriptor.media_type) else "blob"
        return f"{self.named}: {kind} {descriptor.short}"

    def pieces(self, descriptor, start, end, view):
        """Yield a blob's bytes from start to end as memoryviews: the one way to get them.

        descriptor: Descriptor of the blob
        start, end: int, the offsets of the first byte, and of the one behind the last
        view: memoryview that each chunk is read into, over the one before; no chunk is in two
            pieces of the blob

        A body that breaks off goes on from there, through as many requests as Retries allows.
        A server without ranges sends all that comes before start as well: raises RangeRefused
        the first time that this would fetch bytes twice, and sets self.ranged to False.
        The bytes are not checked against the digest: who puts them together does that.
        """
        what, size = self.name_of(descriptor), descriptor.size
        retries = Retries(self.transport, what)
        alone = not self.ranged or (start, end) == (0, size)  # nobody else fetches other parts
        ranged, last = True, None  # to ask for ranges; (status, start) of the last failure
        while start < end:
            try:
                with self.stream(descriptor, *((start, end) if ranged else ())) as response:
                    is_part = response.status == 206
                    if not (is_part or alone):
                        raise RangeRefused(f"{what}: {response.origin} does not do ranges")
                    if not is_part and response.left not in (None, size):
                        raise Unlikely(
                            f"{what}: {response.origin} announces {response.left} bytes, and the "
                            f"manifest {size}"
                        )
                    position = start if is_part else 0
                    while start < end:
                        # Up to start, then up to the end of a piece.
                        limit = start - position or min(end - start, PIECE - start % PIECE)
                        count = response.readinto(view[:limit])
                        if not count:
                            raise Temporary(f"{what}: {response.origin} sent too little")
                        with self.transport.lock:
                            self.transport.fetched += count
                        position += count
                        if position > start:
                            start = position
                            yield view[:count]
            except (RangeRefused, Temporary) as failure:
                # Some servers refuse ranges with an error that may also pass. Twice, it does not.
                before, last = last, (failure.status, start)
                is_repeated = before == last and failure.status in (400, 401, 403, 416, 500, 501)
                is_final = is_repeated or isinstance(failure, RangeRefused)
                if is_final and ranged and alone:
                    ranged = False
                elif is_final and ranged:
                    self.ranged = False
                    raise RangeRefused(str(failure)) from None
                elif is_final and failure.status not in (500, 501):
                    # A store that refuses its own signed address, say.
                    raise NoAccess(str(failure)) from None
                else:
                    retries.wait(failure, start)

    def stream(self, descriptor, start=0, end=None):
        """Return the Response with a blob's bytes from start to end (exclusive, None: to its end).

        distribution-spec, "Pulling blobs". A server may ignore a Range, and send all of it with
        status 200 (RFC 9110 14.2). Raises Temporary if another try may help, RangeRefused.
        """
        headers, end = {}, end or descriptor.size
        if (start, end) != (0, descriptor.size):
            headers["Range"] = f"bytes={start}-{end - 1}"
        what = self.name_of(descriptor)
        try:
            response = self.request("GET", f"blobs/{descriptor.digest}", what, headers)
        except (NoAccess, Refused) as error:
            # Servers refuse ranges in many ways, and serve the whole (registry.k8s.io: 400).
            if headers:
                raise RangeRefused(str(error)) from None
            raise
        content = response.headers.get("Content-Range", "")
        if response.status == 206 and not re.match(rf"\s*bytes\s+0*{start}-", content, re.I):
            response.close()
            raise RangeRefused(f"{what}: {response.origin} sent another range")
        return response

    def request(self, method, path, what, headers):
        """Return the successful Response to a request for this repository, authorized if need be.

        path: str, below the repository's URL
        what: str, the thing that is asked for, for messages
        """
        from urllib.parse import urlencode

        query, steps, is_blob = "", set(), path.startswith("blobs/")
        headers = headers if is_blob else {"Accept": ACCEPT}
        if self.namespace:
            query = ("&" if "?" in path else "?") + urlencode({"ns": self.namespace})
        # No ping of /v2/ before it: this request is challenged as well, and a public registry costs
        # no extra round trip.
        for _ in range(LADDER):
            with self.lock:
                self.uses += 1
                sent = dict(self.headers)
            try:
                response = self.transport.open(method, self.base + path + query, headers, sent)
            except NotTLS:
                # As docker does: a registry on this host mostly has no TLS.
                scheme, host, _ = self.origin
                if self.settings.scheme or scheme == "http" or not is_loopback(host):
                    raise
                self.speak("http")
                continue
            if response.status in (200, 206):
                return response
            is_own = response.origin == self.origin or not is_blob
            # This reads the body to its end, so that the connection can be used again.
            with response:
                error = answer_error(response, what, self.advice(), is_own)
            if not self.climb(response, sent, steps):
                break
        raise error

    def climb(self, response, sent, steps):
        """Return True if a refused request is worth another try: the ladder of CONTRIBUTING.

        sent: dict, the headers that the request was sent with
        steps: set of the steps that the request has taken; each is taken once
        """
        origin, status, challenge = response.origin, response.status, challenge_in(response)
        header, is_own = sent.get(origin), origin == self.origin
        with self.lock:
            if self.headers.get(origin) != header:
                return True  # another thread was faster
            # ECR Public says 400, ECR 403, others a bare 401 for a token that has expired. One that
            # this request has fetched itself is fresh.
            is_expired = header and origin in self.known and status in (400, 401, 403)
            if is_expired and not challenge and not steps:
                steps.add("drop")
                del self.headers[origin]
                return True
            # gcr.io and others have their challenge at /v2/ alone.
            is_first = is_own and header is None and not challenge
            if is_first and (status == 401 or status in (403, 404) and any(self.credential())):
                with self.transport.open("GET", f"{origin.scheme}://{origin}/v2/", {}, {}) as ping:
                    challenge = challenge_in(ping)
                self.headers[origin] = ""
            if "bearer" in challenge or is_own and challenge:
                return self.answer(origin, challenge, steps)
        return False

    def answer(self, origin, challenge, steps):
        """Answer a challenge, and return True if that gives a header to try."""
        credential = self.credential() if origin == self.origin else NOBODY
        if not any(credential[:4]):
            credential = NOBODY
        before = self.headers.get(origin)
        if credential.token and challenge.keys() & {"bearer", "basic"}:
            # An ECR token is base64 of AWS:password already.
            scheme = "Bearer" if "bearer" in challenge else "Basic"
            self.headers[origin] = f"{scheme} {credential.token}"
        # Bearer first if both are offered, as in containerd: Basic sends the password itself.
        elif "bearer" in challenge:
            parameters = new = challenge["bearer"]
            # nvcr.io names another realm once a token has expired, one that refuses the anonymous.
            old = self.known.pop(origin, new)
            if old.get("realm") not in {*steps, new.get("realm")}:
                parameters = old
            realm = parameters.get("realm")
            # A new token that is refused is no good, unless other threads have used it up: some
            # registries give out tokens for a few requests.
            if realm in steps and self.uses < 2:
                return False
            try:
                token = self.token(parameters, credential)
            except ImgpullError as error:
                # A stale "docker login" must not break the pull of a public image.
                if credential.source and isinstance(error, (NoAccess, Refused)):
                    # Its source stays, for the error of a private one.
                    self.stored = NOBODY._replace(source=credential.source)
                    text = (
                        f"{credential.source}: the token server refuses the login for {origin.host}"
                    )
                    self.warn(f"{text}; going on without it: log in again, or log out")
                elif parameters is new:
                    raise
                return self.answer(origin, challenge, steps)
            steps.add(realm)
            self.known[origin], self.uses = parameters, 0
            self.headers[origin], before = f"Bearer {token}", None
        elif "basic" in challenge and (credential.user or credential.password):
            self.headers[origin] = basic(credential.user, credential.password)
        else:
            schemes = printable(", ".join(challenge), 80)
            why = f"requires a login by {schemes} (imgpull knows basic and bearer)"
            raise NoAccess(f"{self.reference}: {self.origin} {why}: {self.advice()}")
        # A password or a token that was given stays the same, and so refused.
        return self.headers[origin] != before

    def credential(self):
        """Return the Credential for this repository, looked for once: options, then stored ones."""
        if self.stored is None:
            given = self.settings
            given = Credential(given.user or "", given.password or "", "", given.token or "", "")
            if not any(given):
                given = stored_credential(self.reference, os.environ, self.warn) or NOBODY
            for secret in given[1:4]:
                remember_secret(secret)
            self.stored = given
        return self.stored

    def warn(self, text):
        """Warn of a file or helper that cannot be used, once for all images."""
        if self.transport.warned.setdefault(text, text) is text:
            self.transport.reporter.warn(text)

    def advice(self):
        """Return the advice after a refusal: log in, or log in as somebody else."""
        if not any(self.stored or ()):
            return WHO
        where = self.stored.source or "the options"
        return f"the login from {where} is wrong, has expired or has no right to this image"

    def token(self, parameters, credential):
        """Return a token from the realm in a challenge's parameters, for a Credential.

        The rules are those of distribution's token and oauth2 specifications.
        """
        from urllib.parse import urlencode

        # Nexus behind a proxy repeats the port.
        pattern = r"^(https?://[^/?#]*[^:/?#](:\d+))\2(?=[/?#]|$)"
        realm = re.sub(pattern, r"\1", parameters.get("realm", "(no realm)"))
        origin = origin_of(realm)
        if any(credential) and origin.scheme == "http" and self.origin.scheme == "https":
            where = f"the plain-http token server {origin}"
            raise ImgpullError(f"{self.origin} sends us to {where}: credentials do not go there")
        # gcr.io and others name no scope: then we ask for what a pull needs.
        fields = {"scope": f"repository:{self.reference.repository}:pull"}
        fields.update((key, parameters[key]) for key in ("scope", "service") if parameters.get(key))
        if credential.identity:
            fields.update(grant_type="refresh_token", refresh_token=credential.identity)
            packed = urlencode(dict(fields, client_id="imgpull"), errors="surrogateescape")
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            request = ("POST", realm, kind, {}, packed)
        else:
            login = credential.user and basic(credential.user, credential.password)
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(fields)}"
            request = ("GET", url, {}, {origin: login})

        def attempt():
            with self.transport.open(*request) as response:
                if response.status != 200:
                    raise answer_error(response, "the token server", self.advice())
                return response.read(BUFFER)

        value = parse_json(self.transport.persist("the token server", attempt), "a token")
        # distribution's token specification allows either name; access_token is that of OAuth 2.0.
        for key in ("token", "access_token"):
            token = field(value, key, str, "a token")
            if re.fullmatch(r"[\x21-\x7e]+", token):
                return remember_secret(token)
        raise Damaged(f"the token server {origin} gave no token")


# ---- Referrers: signatures, SBOMs and whatever else refers to an image (distribution-spec) -------
#
# A referrer is a manifest with the image as its subject, listed by the referrers API, or on older
# registries under a tag made of the digest. cosign's older signatures have a tag of their own.

REFERRERS_LIMIT = 1000  # manifests that refer to an image or to its referrers; pages of a list
# cosign's older form: a tag beside the image names a manifest, which has no subject itself.
COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
COSIGN_ROLES = {".sig": "sigs", ".att": "atts"}  # {suffix: cosign's word for it in index.json}
COSIGN_BUNDLE = "application/vnd.dev.sigstore.bundle"  # the beginning of a media type

# The kind of a referrer: the word beside the first pattern that matches its types.
REFERRER_KINDS = (
    ("spdx|cyclonedx|syft|sbom", "SBOM"),
    ("slsa|provenance", "provenance"),
    ("signature|simplesigning|cosign/sign", "signature"),
    ("in-toto|dsse|attestation", "attestation"),
    # A bundle that does not say what is in it: cosign signs with these.
    (re.escape(COSIGN_BUNDLE), "signature"),
    ("", "artifact"),
)
PREDICATES = ("predicateType", "dev.sigstore.bundle.predicateType", "in-toto.io/predicate-type")


class Referrer(collections.namedtuple("Referrer", "subject suffix manifest")):
    """A manifest that refers to an image, or to another referrer.

    subject: str, digest of the manifest that it refers to; "" if an archive does not tell
    suffix: str, of the cosign tag that led to it, such as .sig; "" if its subject did
    manifest: Manifest
    """

    __slots__ = ()

    @property
    def digest(self):
        return self.manifest.digest

    @property
    def size(self):
        """Bytes of the manifest and of its layers."""
        return self.manifest.descriptor.size + sum(layer.size for layer in self.manifest.layers)

    @property
    def artifact_type(self):
        """Its type: of the artifact, or of the config, or if that is an image's, of a layer."""
        parts = [self.manifest.config] + self.manifest.layers
        types = [self.manifest.artifact_type] + [part.media_type for part in parts if part]
        return hide(
            next((each for each in types if each not in ("", OCI_CONFIG, DOCKER_CONFIG)), "")
        )

    @property
    def kind(self):
        """Its kinds in words, such as "SBOM, provenance"; "artifact" if they are unknown."""
        kinds = set()
        for part in self.manifest.layers or [self.manifest.descriptor]:
            notes = {**part.annotations, **self.manifest.annotations}
            predicates = [notes.get(key) for key in PREDICATES]
            types = f"{self.artifact_type} {part.media_type} {predicates}"
            words = (word for pattern, word in REFERRER_KINDS if re.search(pattern, types, re.I))
            kinds.add(next(words))
        return ", ".join(sorted(kinds))

    @property
    def role(self):
        """The one of COSIGN_ROLES that it has in index.json, "" if none."""
        # cosign's signatures have the config of an image: only their layers tell them from one.
        types = [layer.media_type for layer in self.manifest.layers]
        has_files = not types or any(map(is_layer_type, types))
        return "" if has_files else COSIGN_ROLES.get(self.suffix, "")

    @property
    def is_bundle(self):
        """True if cosign 3 takes it for a signature, or attestation, of its subject."""
        return any(layer.media_type.startswith(COSIGN_BUNDLE) for layer in self.manifest.layers)


def tag_of_digest(digest):
    """Return the tag that stands for a digest if tags are all there is (distribution-spec)."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}-{digits[:64]}"


def get_tagged(registry, tag, reporter):
    """Return the Manifest of a tag, or None if there is none."""
    try:
        return registry.get(tag)
    except NotFound:
        return None
    except NoAccess as error:
        # Artifactory answers 403 for a tag that is not there. The image itself could be read.
        reporter.note(f"taken for a tag that does not exist: {error}")
        return None


def listed_referrers(registry, digest, reporter):
    """Return [Descriptor, ...] of a registry's list of referrers to a digest.

    distribution-spec, "Listing Referrers". We ask for all types, so OCI-Filters-Applied is of no
    interest.
    """
    from urllib.parse import urljoin

    what = f"the list of referrers to {registry.reference.name}@{digest}"
    path, lists = f"referrers/{digest}", []
    try:
        while path:
            body, headers = registry.document(path, what)
            lists.append(parse_manifest(body, digest_of(body), what))
            # RFC 8288. No "<" within the parts of the pattern: else "<<<<…" takes minutes.
            links = ", ".join(headers.get_all("Link") or [])
            link = re.search(r'<([^<>]*)>[^<]*;\s*rel="?next\b', links, re.I)
            target = link.group(1) if link else registry.base
            with contextlib.suppress(ValueError):
                target = urljoin(registry.base + path, target)
            path = target.partition(registry.base)[2]
            if link and not path.startswith("referrers/") or len(lists) > REFERRERS_LIMIT:
                raise Damaged(
                    f"{what}: page {len(lists)} leads to {redacted(target)}: not followed"
                )
    except (NotFound, Refused, NoAccess) as error:
        # Registries that do not have the API answer with 404, some with 400, 405 or 406, Harbor 2.7
        # with 401. For those, the list is kept under a tag ("Referrers Tag Schema").
        if isinstance(error, NoAccess):
            if error.status != 401:
                raise
            reporter.note(f"looking for a tag instead: {error}")
        tagged = get_tagged(registry, tag_of_digest(digest), reporter)
        # GitLab has the image itself under that tag.
        lists = [tagged] if tagged and tagged.digest != digest else []
    if not all(page.is_index for page in lists):
        raise Damaged(f"{what} is an image's manifest, not an index")
    return [descriptor for page in lists for descriptor in page.children]


def find_referrers(registry, subjects, reporter):
    """Return [Referrer, ...] to the digests, and to those referrers, each once.

    Raises ImgpullError if a list is not available or endless. A listed one that is missing is an
    error, too: never skip a requested referrer silently.
    """

    def is_about(manifest, digest):
        subject = manifest.subject.digest if manifest.subject else "nothing"
        if subject != digest:
            reporter.note(f"passed over: {manifest.digest} refers to {subject}, not {digest}")
        return subject == digest

    pending, referrers = list(subjects), []
    seen = set(pending)
    for digest in pending:
        found = []
        listed = listed_referrers(registry, digest, reporter)
        if len(listed) + len(referrers) > REFERRERS_LIMIT:
            raise Damaged(f"{registry.named} has more than {REFERRERS_LIMIT} referrers")
        for descriptor in listed:
            manifest = registry.get(descriptor)
            if is_about(manifest, digest):
                found.append(Referrer(digest, "", manifest))
                # A referrer may be an index: its parts are included.
                parts = walk(descriptor, manifest, registry.get, "a referrer")
                found += [Referrer(descriptor.digest, "", part) for _, part in parts]
        for suffix in COSIGN_SUFFIXES:
            manifest = get_tagged(registry, tag_of_digest(digest) + suffix, reporter)
            if manifest and (not manifest.subject or is_about(manifest, digest)):
                found.append(Referrer(digest, suffix, manifest))
        for referrer in found:
            if referrer.digest not in seen:
                seen.add(referrer.digest)
                pending.append(referrer.digest)
                referrers.append(referrer)
    return referrers


# ---- Archive plan: the whole tar laid out before its first layer arrives (image-layout.md) -------
#
# An archive is a pure function of images: an OCI image layout that also has docker's manifest.json.
#
#     oci-layout       {"imageLayoutVersion": "1.0.0"}
#     index.json       a descriptor for each image, with its name; then unnamed ones for cosign
#     manifest.json    the same images for docker; artifacts are not in it
#     blobs/sha256/…   every index, manifest, config and layer, each once, sorted by name
#
# All documents are here when it is laid out. So each layer has its offset before it arrives, and
# several connections write to their places at once.

# Our annotations in index.json, with digests separated by commas.
OMITTED = "dev.imgpull.omitted"  # layers that a delta omits, and omitted images of an index
SOURCE = "dev.imgpull.source"  # the index that the tag named, if one platform was chosen from it
REFERRERS = "dev.imgpull.referrers"  # DIGEST=SUBJECT or DIGEST=SUBJECT.SUFFIX of each Referrer
CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
COSIGN_KIND = "dev.cosignproject.cosign/"  # followed by the role of a descriptor for cosign


class Image(
    collections.namedtuple(
        "Image",
        "name documents manifests configs source referrers registry omitted ref_name",
    )
):
    """An image in a registry or an archive: everything but the bytes of its layers.

    name: str, its full name in the archive
    documents: {digest: bytes} of all manifests and configs
    manifests: list of Manifest, the one that its name stands for and all below it, parents first
    configs: {digest of a manifest: ImageConfig}, for the manifests that runtimes can run
    source: str, digest of the index that one platform was chosen from, "" for none
    referrers: list of Referrer
    registry: Registry that has its layers; None in an archive
    omitted: frozenset of digests of layers that the archive omits
    ref_name: str, its name after oci-archive:TAR: in skopeo and podman, "" if it has none
    """

    __slots__ = ()

    @property
    def descriptor(self):
        """The Descriptor of its manifest or index, which index.json points to."""
        return self.manifests[0].descriptor

    @property
    def digest(self):
        return self.descriptor.digest

    @property
    def tag(self):
        return parse_reference(self.name).tag

    @property
    def offered(self):
        """The Manifest that manifest.json offers to docker, which knows one image a name.

        linux/amd64 if it is there, else the first: the same on every host. None for an artifact.
        """
        images = (each for each in self.manifests if each.digest in self.configs)
        return min(
            images,
            key=lambda each: self.configs[each.digest].platform[:2] != ("linux", "amd64"),
            default=None,
        )

    @property
    def image_id(self):
        """The digest of its config, the ID in "docker images"; None for an artifact."""
        return self.offered and self.offered.config.digest

    @property
    def platform(self):
        """Its Platform; None for several platforms, and for an artifact."""
        config = self.configs.get(self.digest)
        return config and config.platform

    @property
    def layers(self):
        """[Descriptor, ...], each once, bottom first; also those that are omitted."""
        layers = (layer for manifest in self.manifests for layer in manifest.layers)
        return list({layer.digest: layer for layer in layers}.values())

    @property
    def size(self):
        """Bytes of its layers in the archive."""
        return sum(layer.size for layer in self.layers if layer.digest not in self.omitted)

    @property
    def all_manifests(self):
        """The manifests of the image and of its referrers."""
        return self.manifests + [referrer.manifest for referrer in self.referrers]

    @property
    def parts(self):
        """The Descriptors of all layers and configs, repeated ones included."""
        parts = [part for each in self.all_manifests for part in [*each.layers, each.config]]
        return list(filter(None, parts))


def assemble_image(name, top, documents, load, source="", referrers=(), registry=None):
    """Return the Image made of documents, for a pull and for an archive alike.

    name: str, its full name
    top: Descriptor of its manifest or index
    documents: {digest: bytes}, checked, all that belong to the image, once they are loaded
    load: function from a digest to its Manifest, or to None if it is not there

    Raises Damaged if they do not make an image that runtimes load.
    """
    first = load(top.digest)
    manifests, configs = [], {}
    for descriptor, manifest in walk(top, first, load, name):
        manifests.append(manifest)
        # containerd reads an entry as its index describes it.
        is_index = descriptor.media_type in (OCI_INDEX, DOCKER_LIST)
        is_known = descriptor.media_type in ACCEPT
        if descriptor.size != len(manifest.body) or is_known and is_index != manifest.is_index:
            raise Damaged(f"{name}: {manifest.digest} has another size or type than its index says")
        if manifest.is_image:
            # Runtimes differ in what they do with an attestation that is an image.
            if descriptor.is_attestation:
                raise Damaged(f"{name}: the attestation {manifest.digest} has files to run")
            body = documents.get(manifest.config.digest)
            what = f"{name}: the config {manifest.config.digest}"
            if body is None:
                raise Damaged(f"{what} is missing or damaged")
            configs[manifest.digest] = parse_config(body, manifest, what)
    if first.is_index and len(manifests) == 1:
        raise Damaged(f"{name}: none of the manifests in the index {top.digest} is there")
    return Image(
        name, documents, manifests, configs, source, list(referrers), registry, frozenset(), ""
    )


# descriptor: of the layer; offset: int, of its first byte; registries: list of Registry with it
PlannedLayer = collections.namedtuple("PlannedLayer", "descriptor offset registries")


class ArchivePlan(collections.namedtuple("ArchivePlan", "images contents literals layers size")):
    """The place of every byte of an archive.

    images: list of Image, with omitted and ref_name as in this archive
    contents: ordered {name: bytes, or Descriptor of a layer}
    literals: list of (offset, bytes), known already: one before each layer, one at the end
    layers: list of PlannedLayer, in the order of their offsets
    size: int, bytes of the archive
    """

    __slots__ = ()

    @property
    def total(self):
        """Bytes of all layers."""
        return sum(layer.descriptor.size for layer in self.layers)


def compact(value):
    """Return JSON bytes without spaces: the same on every Python."""
    return json.dumps(value, separators=(",", ":")).encode()


def tar_header(name, size):
    """Return the tar header of a file: GNU format, mode 0644, all else zero.

    GNU format, since layers can pass the 8 GiB limit of plain ustar.
    """
    import tarfile

    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    # A long name is in a header of its own before the file's. Pythons differ in the device numbers
    # (329 to 345), in both headers.
    for start in {0, len(header) - 512}:
        block = memoryview(header)[start : start + 512]
        block[329:345] = bytes(16)
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(header)


def layout(contents):
    """Return (literals, [(Descriptor, offset), ...], size) of a tar. A pure function.

    contents: ordered {name: bytes, or Descriptor of a layer that arrives later}

        literal            layer            literal                 layer   literal
        documents, header  (bytes to come)  padding, header of the  (…)     padding, documents,
                                            next layer                      end of the tar
    """
    literals, placed = [], []
    pending, start = bytearray(), 0
    for name, content in contents.items():
        if isinstance(content, bytes):
            pending += tar_header(name, len(content)) + content + bytes(-len(content) % 512)
        else:
            pending += tar_header(name, content.size)
            literals.append((start, bytes(pending)))
            placed.append((content, start + len(pending)))
            start += len(pending) + content.size
            pending = bytearray(-content.size % 512)
    # A tar ends with two blocks of zeros.
    pending += bytes(1024)
    return literals + [(start, bytes(pending))], placed, start + len(pending)


def docker_manifest(images):
    """Return the list in manifest.json: config, names and layers of each image for docker.

    [{"Config": "blobs/sha256/…", "RepoTags": ["docker.io/library/alpine:3.20"],
      "Layers": ["blobs/sha256/…", …]}, …]
    """
    entries = {}
    for image in images:
        if image.offered:
            _, names = entries.setdefault(image.offered.digest, (image.offered, []))
            names += [image.name] * bool(image.ref_name)
    return [
        {
            "Config": offered.config.path,
            "RepoTags": names or None,  # as docker writes it for an image without a name
            "Layers": [layer.path for layer in offered.layers],
        }
        for offered, names in entries.values()
    ]


def signed_descriptor(image):
    """Return (Descriptor for cosign to verify, its kind) of an image with referrers.

    "cosign verify --local-image" takes the first descriptor of a kind as the signed one. Most
    signatures are on the index, even if the image is one of its manifests: then it is the index,
    unless the manifest is signed as well. Of cosign's two names for an index, bundles are found
    by "image" alone, and older signatures by "imageIndex" alone.
    """
    candidates = [image.manifests[0]]
    if image.source in image.documents:
        index = parse_manifest(image.documents[image.source], image.source, image.name)
        candidates.append(index)
    bundled = {each.subject for each in image.referrers if each.is_bundle}
    signed = bundled | {each.subject for each in image.referrers if each.role}
    best = next((each for each in candidates if each.digest in signed), candidates[0])
    kind = "imageIndex" if best.is_index and best.digest not in bundled else "image"
    return best.descriptor, kind


def image_descriptors(image):
    """Return the entries of an image in index.json: its own, then unnamed ones for cosign."""
    children = {child.digest for manifest in image.manifests for child in manifest.children}
    gone = image.omitted.union(children.difference(image.documents))
    referrers = sorted(image.referrers, key=lambda each: each.digest)
    notes = {
        CONTAINERD_NAME: image.name,
        REF_NAME: image.ref_name,
        SOURCE: image.source,
        OMITTED: ",".join(sorted(gone)),
        # Which referrer has which subject is not in every manifest: cosign's older ones have none.
        REFERRERS: ",".join(f"{each.digest}={each.subject}{each.suffix}" for each in referrers),
    }
    annotations = {key: value for key, value in notes.items() if value}
    entries = [(image.descriptor, annotations)]
    if referrers:
        signed, kind = signed_descriptor(image)
        if signed.digest == image.digest:
            annotations["kind"] = f"{COSIGN_KIND}{kind}"
        else:
            entries.append((signed, {"kind": f"{COSIGN_KIND}{kind}"}))
        entries += [
            (each.manifest.descriptor, {"kind": f"{COSIGN_KIND}{each.role}"})
            for each in referrers
            if each.subject == signed.digest and each.role
        ]
    keys = ("mediaType", "digest", "size")
    return [dict(zip(keys, descriptor), annotations=notes) for descriptor, notes in entries]


def oci_index(images):
    """Return the object in index.json: the named descriptors first, then each unnamed one once."""
    several = [image_descriptors(image) for image in images]
    unnamed = {str(each): each for _, *more in several for each in more}
    descriptors = [first for first, *_ in several] + list(unnamed.values())
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}


def admit(image, names, sizes):
    """Add an image to an archive's names and sizes. Raises Damaged if it contradicts the others.

    names: {full name: digest}
    sizes: {digest: bytes} of layers and documents
    """
    known = {digest: len(body) for digest, body in image.documents.items()}
    for part in image.parts:
        size = known.setdefault(part.digest, sizes.get(part.digest, part.size))
        # The digest of nothing is checked here: a pipe cannot hold back a layer without bytes.
        if size != part.size or not size and part.digest != digest_of(b"", part.digest):
            what = f"{image.name}: {part.digest} cannot have {part.size} bytes"
            raise Damaged(f"{what}, since another manifest or its digest differs")
    if sum({**sizes, **known}.values()) >= SIZE_LIMIT:
        raise Damaged(f"{image.name}: its layers have an impossible size")
    reference = parse_reference(image.name)
    if str(reference) != image.name or reference.digest not in ("", image.digest, image.source):
        raise Damaged(f"{quoted(image.name)} is not the full name of {image.digest}")
    if names.setdefault(image.name, image.digest) != image.digest:
        raise UsageError(f"{image.name} is the name of two different images")
    sizes.update(known)


def plan_archive(images, omit=frozenset()):
    """Return the ArchivePlan for images. A pure function.

    omit: set of the digests of layers to omit; layers of referrers are included all the same

    Raises ImgpullError if images contradict each other.
    """
    referrers = [referrer.manifest for image in images for referrer in image.referrers]
    omit = omit.difference(layer.digest for each in referrers for layer in each.layers)
    names, sizes, blobs, registries, planned = {}, {}, {}, {}, []
    for image in images:
        admit(image, names, sizes)
        # One rule for the name: the tag of a single image, the full name in an archive of several.
        ref_name = image.tag and (image.name if len(images) > 1 else image.tag)
        gone = omit.intersection(layer.digest for layer in image.layers)
        planned.append(image._replace(omitted=gone, ref_name=ref_name))
        for part in image.parts:
            if part.digest not in omit:
                blobs.setdefault(part.digest, part)
                registries.setdefault(part.digest, {})[image.registry] = True
        # Configs are documents. So may layers be, such as the empty object {}.
        blobs.update(image.documents)
    contents = {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": oci_index(planned),
        "manifest.json": docker_manifest(planned),
    }
    contents = {name: compact(value) for name, value in contents.items() if value}
    # In the order of their names, so that the same images give the same bytes on every host.
    contents.update(sorted((f"blobs/{key.replace(':', '/')}", blobs[key]) for key in blobs))
    literals, placed, size = layout(contents)
    layers = [PlannedLayer(layer, at, list(registries[layer.digest])) for layer, at in placed]
    return ArchivePlan(planned, contents, literals, layers, size)


# ---- Reading archives: only what imgpull wrote is read back --------------------------------------
#
# An archive is a function of its documents: plan_archive() gives each byte but those of the layers.
# So there is one rule: the documents of a tar, planned anew, must give that very tar. Then no two
# programs can read it differently, and no other check of its form is needed.

MEMBERS_LIMIT = 100000  # members of an archive
KEPT_LIMIT = 128 << 20  # bytes of JSON that are kept while an archive is read
STEP = 32 << 10  # bytes a read: Python copies the rest of them after each gzip stream
HEAD = 2 << 10  # bytes: a whole gzip header, of those that Go reads
ZEROS = bytes(512)
GZIP = b"\x1f\x8b"
PACKED = (GZIP, b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")  # gzip, zstd, bzip2, xz
# A gzip header with a name (flag 8) or comment (16) of 512 bytes and more, which Go refuses, or
# with one behind an extra field (4), which nobody writes.
LONG_NAME = re.compile(
    rb"(?s)\x1f\x8b.(?:[\x0c-\x0f\x14-\x17\x1c-\x1f]"
    rb"|(?:[\x08-\x0b\x10-\x13].{6}|[\x18-\x1b].{6}(?:[^\0]*\0)?)[^\0]{512})"
)
# A link of the annotation REFERRERS: digest, subject, suffix.
LINK = re.compile(rf"({DIGEST.pattern})=({DIGEST.pattern})((?:\.sig|\.att|\.sbom)?)")

# digest: str, in the name of a blob, "" of other members; source: Source; fault: str, how the bytes
# contradict the digest; diff_id: str, the digest of the unpacked bytes, or why there is none, "" if
# they were not unpacked; is_gzip: bool
Member = collections.namedtuple("Member", "digest source fault diff_id is_gzip")

# code: str, for programs: "digest" if a layer contradicts its digest or diff_id, "base" if a layer
# is in no base, "archive" if it cannot be read at all; text: str, for people
Fault = collections.namedtuple("Fault", "code text")


class Archive(collections.namedtuple("Archive", "path images sources faults unchecked size")):
    """The content of an archive, and its faults.

    path: str
    images: list of Image
    sources: {digest: Source} of its blobs
    faults: list of Fault
    unchecked: int, number of layers whose diff_ids were not checked
    size: int, bytes
    """

    __slots__ = ()

    @property
    def omitted(self):
        """The digests of the layers that it omits."""
        return frozenset().union(*(image.omitted for image in self.images))


class Source(collections.namedtuple("Source", "path offset size")):
    """Bytes of a blob in a local file, from the beginning of the blob.

    path: str
    offset: int, of the first byte in the file
    size: int, bytes, fewer than the blob's if the file has only its beginning
    """

    __slots__ = ()

    def pieces(self, view):
        """Yield the bytes in pieces of view, unchecked, fewer if the file ends. Raises OSError."""
        left = self.size
        with open(self.path, "rb", opener=open_at_once, buffering=0) as file:
            file.seek(self.offset)
            while left:
                # No chunk is in two pieces.
                piece_left = PIECE - (self.size - left) % PIECE
                count = file.readinto(view[: min(left, piece_left)])
                if not count:
                    return
                left -= count
                yield view[:count]


def archive_name(path):
    """Return the name of an archive for messages."""
    return "standard input" if path == "-" else printable(path)


@contextlib.contextmanager
def archive_errors(path):
    """Turn errors in a with block into ImgpullErrors with the archive's name."""
    name = archive_name(path)
    try:
        yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None
    except OSError as error:
        raise DiskError(f"{name} cannot be read: {printable(error.strerror or error)}") from None
    except (Damaged, UsageError) as error:
        raise Damaged(f"{name} is damaged, or not an archive of imgpull: {error}") from None


def unpacked_digest(head, pieces):
    """Return the digest of the unpacked bytes of a layer, or what it is that cannot be unpacked.

    Layers in zstd, bzip2 and xz are rare, and not unpacked: returns "".

    head: bytes, the first ones
    pieces: iterator of the others
    """
    import zlib

    hasher, stream = hashlib.sha256(), None
    pieces = itertools.chain([head], pieces)
    if not head.startswith(GZIP):
        for piece in pieces:
            hasher.update(piece)
        return "" if head.startswith(PACKED) else digest_in(hasher)
    for piece in pieces:
        data = bytes(piece)
        while data:
            if not stream:
                # Streams may follow one another. A header may continue in the next piece.
                data += next(pieces, b"") if len(data) < HEAD else b""
                if LONG_NAME.match(data):
                    return "gzip data with a name or comment of 512 bytes and more"
                stream = zlib.decompressobj(31)  # 31: gzip, with its header and checksum
            try:
                hasher.update(stream.decompress(data, BUFFER))
            except zlib.error as error:
                return f"damaged gzip data ({error})"
            data = stream.unconsumed_tail or stream.unused_data
            stream = None if stream.eof else stream
    return "gzip data that ends too early" if stream else digest_in(hasher)


def read_header(take, is_first):
    """Return (name, size) of the next member of a tar, None at its end.

    take: function from a number to that many bytes of the tar

    Raises Damaged on every header but those that tar_header() makes.
    """
    header = take(512)
    if header == ZEROS and not is_first:
        return None
    if header[156:157] == b"L":  # the name of a sha512 blob is long
        header += take(1024)
    name = (header[512:-512] or header[:100]).rstrip(b"\0").decode("ascii", "replace")
    number = header[-388:-376]
    with contextlib.suppress(ValueError):
        size = int.from_bytes(number[1:], "big") if number[0] == 0x80 else int(number[:11], 8)
        if 0 <= size < SIZE_LIMIT and tar_header(name, size) == header:
            return name, size
    if header.startswith(PACKED):
        raise Damaged("it is compressed: unpack it (gunzip -c) into -")
    is_tar = header[257:262] == b"ustar"
    raise Damaged("it is a tar that another program wrote" if is_tar else "it is not a tar")


def scan(path, unpack, reporter):
    """Return ({name: Member}, {name: bytes} of the JSON, size) of an archive, in one pass.

    unpack: bool or None, see read_archive()
    """
    members, documents, position, kept = {}, {}, 0, 0
    view, hasher = memoryview(bytearray(STEP)), hashlib.sha256()
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        if path == "-":
            os.set_blocking(0, True)
        total = os.fstat(file.fileno()).st_size  # 0 for a pipe

        def pieces(size):
            nonlocal position
            while size:
                count = file.readinto(view[:size])
                if not count:
                    raise Damaged("it ends too early")
                size -= count
                position += count
                hasher.update(view[:count])
                reporter.reading(archive_name(path), position, total)
                yield view[:count]

        def take(size):
            return b"".join(map(bytes, pieces(size)))

        for name, size in iter(lambda: read_header(take, not members), None):
            source, digest = Source(path, position, size), name[6:].replace("/", ":")
            digest = digest if DIGEST.fullmatch(digest) else ""  # no blob
            hasher = new_hash(digest or "sha256:")
            head = take(min(size, HEAD))
            rest = pieces(size - len(head))
            # index.json and manifest.json may have more bytes than other documents.
            if head.lstrip()[:1] in (b"{", b"[") and size <= 2 * DOCUMENT_LIMIT:
                head += b"".join(map(bytes, rest))
                kept += size
                if kept <= KEPT_LIMIT:  # beyond it, these are layers that look like JSON
                    documents[name] = head
            diff_id = unpacked_digest(head, rest) if unpack and digest else ""
            if unpack is None and total and name not in documents:
                position, got = file.seek(source.offset + size), digest
            else:
                for _ in rest:
                    pass
                got = digest_in(hasher)
            fault = mismatch(got, digest) if digest not in ("", got) else ""
            members[name] = Member(digest, source, fault, diff_id, head.startswith(GZIP))
            if any(take(-size % 512)):
                raise Damaged(f"there is data behind {quoted(name, 90)}")
            if len(members) > MEMBERS_LIMIT:
                raise Damaged(f"it has more than {MEMBERS_LIMIT} members")
        if take(512) != ZEROS or file.read(1):
            raise Damaged("there is data behind its end")
        reporter.reading(archive_name(path), position, position)
    return members, documents, position


def stored_image(top, bodies, parsed):
    """Return the Image for a Descriptor in index.json. Raises Damaged.

    bodies: {digest: bytes} of the documents in the archive, checked
    parsed: {digest: Manifest}, a cache
    """
    name, source = top.annotations[CONTAINERD_NAME], top.annotations.get(SOURCE, "")
    gone, documents = set(top.annotations.get(OMITTED, "").split(",")), {}

    def load(digest):
        if digest not in bodies or digest in gone:
            return None
        if digest not in parsed:
            parsed[digest] = parse_manifest(bodies[digest], digest, digest)
        manifest = parsed[digest]
        documents[digest] = manifest.body
        if manifest.config and manifest.config.digest in bodies:
            documents[manifest.config.digest] = bodies[manifest.config.digest]
        return manifest

    def found(digest):
        manifest = load(digest)
        if not manifest:
            raise Damaged(f"{name}: the manifest {digest} is missing or damaged")
        return manifest

    found(top.digest)
    # Whatever else the annotation has, plan_archive() will not have.
    links = LINK.findall(top.annotations.get(REFERRERS, ""))
    referrers = {link[0]: Referrer(link[1], link[2], found(link[0])) for link in links}
    image = assemble_image(name, top, documents, load, source, referrers.values())
    known = image.all_manifests
    if source and (referrers or not DIGEST.fullmatch(source)):
        index = found(source)
        known += [each for _, each in walk(index.descriptor, index, load, name)]
    digests = {each.digest for each in known}
    parts = {(each.digest, child.digest) for each in known for child in each.children}
    if source and referrers and (source, image.digest) not in parts:
        raise Damaged(f"{name}: the index {source} does not list {image.digest}")
    for each in image.referrers:
        own = each.manifest.subject
        # A part of an index that is a referrer may have another platform as its subject.
        is_own = not own or own.digest == each.subject or (each.subject, each.digest) in parts
        if each.subject not in digests or not is_own:
            raise Damaged(f"{name}: {each.digest} does not refer to {each.subject}")
    return image


def read_archive(path, unpack=None, reporter=None, bases=()):
    """Return the Archive at a path, "-" for standard input. Raises ImgpullError if it is not ours.

    unpack: None to pass over the bytes of layers, False to check them against their digests, True
        to check them against their diff_ids as well
    bases: list of Archives that a delta needs; their faults and sizes are included
    """
    with archive_errors(path):
        if path.endswith(".part"):
            raise Damaged("it is an unfinished download; run the pull again to complete it")
        members, documents, size = scan(path, unpack, reporter or Reporter())
        bodies = {
            members[name].digest: documents[name] for name in documents if not members[name].fault
        }
        index = parse_json(documents.get("index.json", b""), "index.json")
        tops = items(index, "manifests", dict, "index.json", MEMBERS_LIMIT)
        images, gone, parsed, kept = [], set(), {}, 0
        for top in (parse_descriptor(each, "index.json") for each in tops):
            if CONTAINERD_NAME in top.annotations:
                images.append(stored_image(top, bodies, parsed))
                gone.update(top.annotations.get(OMITTED, "").split(","))
                # Many names of one image would take a small archive long.
                kept += sum(map(len, images[-1].documents.values()))
                if kept > PULL_LIMIT:
                    raise Damaged(f"its images have more than {human(kept)} of manifests")
        if not images:
            raise Damaged("it holds no image")
        plan = plan_archive(images, gone)
        wanted = [(name, getattr(each, "size", each)) for name, each in plan.contents.items()]
        there = [
            (
                name,
                documents.get(name)
                if isinstance(plan.contents.get(name), bytes)
                else member.source.size,
            )
            for name, member in members.items()
        ]
        # The size tells if a name occurs twice.
        if there != wanted or size != plan.size:
            raise Damaged("its members are not those that its images require")
    faults, unchecked = layer_faults(plan.images, members)
    sources = {member.digest: member.source for member in members.values() if member.digest}
    size += sum(each.size for each in bases)
    archive = Archive(path, plan.images, sources, faults, unchecked, size)
    for each in bases:
        name = archive_name(each.path)
        faults += [fault._replace(text=f"{name}: {fault.text}") for fault in each.faults]
    if bases:
        gone = archive.omitted.difference(*(each.sources for each in bases))
        faults += [Fault("base", f"the layer {digest} is in no --base") for digest in sorted(gone)]
    return archive


def layer_faults(images, members):
    """Return [Fault, ...] of layers with wrong bytes, and the number of those not unpacked."""
    bad, unchecked = {}, set()
    for image in images:
        for manifest in image.all_manifests:
            config = image.configs.get(manifest.digest)
            diff_ids = config.diff_ids if config else []
            parts = filter(None, [*manifest.layers, manifest.config])
            for part, diff_id in itertools.zip_longest(parts, diff_ids):
                member, why = members.get(part.path), ""
                if not member:  # it is omitted
                    continue
                if diff_id is not None and not member.diff_id:
                    unchecked.add(part.digest)
                elif diff_id not in (None, member.diff_id):
                    why = f"diff_id {mismatch(member.diff_id, diff_id)}"
                if member.is_gzip and part.media_type.endswith("tar"):
                    why = "it is gzip data, and its media type is that of a plain tar"
                why = member.fault or why
                if why:
                    names = bad.setdefault(f"{part.digest} is damaged: {why}", {})
                    names[image.name] = True
    faults = [
        Fault("digest", printable(f"{text}; needed by {', '.join(names)}", 400))
        for text, names in bad.items()
    ]
    return faults, len(unchecked)


def verify_archive(path, base=()):
    """Return [fault (str), ...] of an archive, empty if it loads everywhere: every byte is right.

    path: str, of a tar that imgpull wrote; "-" for standard input
    base: list of paths of the archives with the layers that a delta omits

    Raises ImgpullError if one cannot be read at all.
    """
    bases = [read_archive(each, True) for each in base]
    return [fault.text for fault in read_archive(path, True, bases=bases).faults]


def list_archive(path, reporter=None):
    """Return [Image, ...] of an archive, without reading its layers. Raises ImgpullError."""
    return read_archive(path, reporter=reporter).images


# ---- Deltas: the layers that may be omitted ------------------------------------------------------
#
# A delta is an archive that omits layers which the far side has. Its manifests still list them.


def layer_stacks(images):
    """Return [[digest, ...], ...]: the layers of each manifest of Images, bottom first."""
    return [[layer.digest for layer in each.layers] for image in images for each in image.manifests]


def omissible(stacks, bases):
    """Return the frozenset of digests of layers that a delta may omit. A pure function.

    stacks, bases: lists of digests of layers, bottom first, of the pulled and the present images

    A runtime reuses a layer only on top of the same layers. So an image of the base must have it
    with the same ones below it, in every place that it has in the images.

        pulled    present    omitted
        a b c     a b        a b
        a b c     b c        none: b and c stand on a, and a is not there
        a b, c b  a b        a: the second b stands on c
    """
    held = {tuple(base[:height]) for base in bases for height in range(1, len(base) + 1)}
    stood, loose = set(), set()
    for stack in stacks:
        for height, digest in enumerate(stack, 1):
            (stood if tuple(stack[:height]) in held else loose).add(digest)
    return frozenset(stood - loose)


# ---- Part file and pipe: the destination of layers, piece by piece -------------------------------
#
# Layers arrive in pieces, in any order, and go into a file or a pipe. Both have read(), write() and
# note(). Offsets are those in the archive, or in the ring of a pipe. The state beside a part file:
#
#     {"imgpull": 4, "layers": [[digest, offset, size], …], "old": {digest: [offset, size], …}}
#     a byte for each piece of those layers: 1 if it has arrived

PIECE = 1 << 20  # bytes of a layer that are recorded as a whole
WINDOW = 14  # pieces read ahead of a pipe
STATE_LIMIT = 32 << 20  # bytes of a state file: a byte for each piece of the largest archive, twice
MAGIC = b'{"imgpull":'  # the beginning of a state file
ARRIVED = bytes([0, 1]) + bytes(254)  # a translation: every other byte of a state is "missing"


def piece_count(size):
    """Return the number of pieces in a layer of that many bytes."""
    return -(-size // PIECE)


def write_all(file, data):
    """Write all of data to an unbuffered file, which may take less at a time."""
    view = memoryview(data)
    while view:
        count = file.write(view)
        if count is None:  # a non-blocking pipe that is full
            import select

            select.select((), (file,), ())
        view = view[count or 0 :]


def remove(path):
    """Remove a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


@contextlib.contextmanager
def file_errors(name):
    """Turn OSErrors about one of our files in a with block into DiskErrors."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DiskError(f"{name} cannot be written: {error.strerror}") from None


def open_own(path):
    """Return our own file at a path, open for reading and writing, unbuffered.

    Others may have put a symlink, a FIFO or a file of theirs into a shared directory: raises
    DiskError on anything but a private regular file of this user.
    """
    import stat

    names = ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
    flags = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in names)
    try:
        file = open(os.open(path, flags, 0o600), "r+b", buffering=0)
    except OSError:
        if not os.path.lexists(path):
            raise
    else:
        status = os.fstat(file.fileno())
        # A regular file with one name, that only its owner may write.
        facts = (status.st_uid, status.st_nlink, status.st_mode & ~0o7755)
        if not hasattr(os, "geteuid") or facts == (os.geteuid(), 1, stat.S_IFREG):
            return file
        file.close()
    raise DiskError(f"{path} is not a file of yours: remove it, or choose another name")


def is_at(path, file):
    """True if an open file is the one at a path."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    return False


def file_mode(path):
    """Return the permissions for a new file: those of the file that it replaces, or the usual."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mode & 0o777
    # The umask can only be read by setting it. Files of other threads are private meanwhile.
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def parse_state(data):
    """Return [(digest, offset, size, pieces), ...] and {digest: (offset, size)} of a state file.

    The second is for the part file of an earlier plan. Both are empty if the state is damaged.
    """
    header, _, rest = data.partition(b"\n")
    layers = []
    with contextlib.suppress(Exception):  # it may be any JSON
        value = load_json(header.decode())
        for digest, offset, size in value["layers"]:
            pieces, rest = rest[: piece_count(size)], rest[piece_count(size) :]
            layers.append((str(digest), int(offset), size, pieces.translate(ARRIVED)))
        return layers, {digest: (at, size) for digest, (at, size) in value["old"].items()}
    return [], {}


class PartFile(contextlib.AbstractContextManager):
    """<destination>.part, of the archive's full size, and <destination>.part.state beside it.

    The state is a JSON line with the layers of the plan, and those in the part file of an earlier
    plan (.part.old), then a byte for each piece: 1 if it has arrived. It is a hint, never trusted:
    the digests decide. Its lock keeps two pulls from writing one file. Leaving the context without
    commit() keeps the files for the next run if there is anything in them.

    destination: absolute path

    Raises DiskError if the destination cannot be written, Busy if it is being written.
    """

    def __init__(self, destination, plan):
        self.destination, self.plan = destination, plan
        self.path, self.old_path = destination + ".part", destination + ".part.old"
        self.state_path = destination + ".part.state"
        self.arrived = bytearray(sum(piece_count(layer.size) for layer, _, _ in plan.layers))
        self.sources = {}  # {digest: Source} of layers in the part file of an earlier plan
        self.file = None  # the part file, once it is known to be ours
        self.lock = threading.Lock()  # guards the place in it
        with file_errors(destination):
            self.state = self.locked()
            try:
                self.recover()
                self.prepare()
            except BaseException as error:
                self.__exit__(None, error, None)
                raise

    def locked(self):
        """Return the state file, locked while this process lives."""
        try:
            import fcntl
        except ImportError:  # Windows
            return open_own(self.state_path)
        while True:
            file = open_own(self.state_path)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                # Some network file systems have no locks: the check in commit() has to do there.
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    raise Busy(
                        f"another imgpull is writing {self.destination}: wait for it, or choose "
                        "another name"
                    ) from None
            # Its last owner may have removed it between our opening and our locking.
            if is_at(self.state_path, file):
                return file
            file.close()

    def recover(self):
        """Take over the files of an earlier run, and record the plan of this one.

        The state is written before the part file exists, so a part file without it is not ours:
        browsers write such files, too.
        """
        data = self.state.read(STATE_LIMIT)
        if not data and not os.path.lexists(self.path):
            self.state.write(MAGIC)
        elif not data.startswith(MAGIC):
            if not data:
                remove(self.state_path)
            raise DiskError(
                f"{self.state_path if data else self.path} is not a file of imgpull: move it, or "
                "choose another name"
            )
        try:
            self.file = open_own(self.path)
        except OSError:
            if not data:
                remove(self.state_path)
            raise
        before, old = parse_state(data)
        layers = [(layer.digest, offset, layer.size) for layer, offset, _ in self.plan.layers]
        kept, size = {}, os.path.getsize(self.path)
        if (size, layers) == (self.plan.size, [each[:3] for each in before]):
            pieces = b"".join(each[3] for each in before)
            self.arrived[: len(pieces)] = pieces
        elif old or not os.path.lexists(self.old_path):
            # The tag has moved on, say: layers of both plans are copied from the old file.
            wanted = {layer[0] for layer in layers}
            kept = {
                digest: (offset, min(size, (pieces + b"\0").index(0) * PIECE))
                for digest, offset, size, pieces in before
                if digest in wanted and pieces.startswith(b"\1")
            }
        old = kept or old
        self.sources = {digest: Source(self.old_path, *old[digest]) for digest in old}
        header = compact({"imgpull": 4, "layers": layers, "old": old}) + b"\n"
        self.first = len(header)  # where the pieces begin
        self.state.seek(0)
        write_all(self.state, header + self.arrived)
        self.state.truncate()
        if kept:
            # Only now, so that there is no old file that the state does not tell of.
            self.file = self.file.close()
            os.replace(self.path, self.old_path)
            self.file = open_own(self.path)

    def prepare(self):
        """Bring the part file to its full size, and check that the disk has room for it."""
        status = os.stat(self.path)
        # Blocks count: the file has holes, so its size does not tell how much it occupies.
        missing = self.plan.size - getattr(status, "st_blocks", status.st_size // 512) * 512
        if self.sources and missing > free_space(self.path):
            remove(self.old_path)
            self.sources = {}
        check_space(self.destination, missing)
        self.file.truncate(self.plan.size)
        for offset, literal in self.plan.literals:
            self.write(offset, literal)

    def write(self, offset, data):
        with file_errors(self.destination), self.lock:
            self.file.seek(offset)
            write_all(self.file, data)

    def note(self, number, arrived):
        """Record that a piece has arrived (1), or has to come again (0), for one thread a time."""
        self.arrived[number] = arrived
        with file_errors(self.destination):
            self.state.seek(self.first + number)
            self.state.write(bytes([arrived]))

    def read(self, offset, size):
        """Return at most size bytes. Raises DiskError at the end of the file."""
        with file_errors(self.destination), self.lock:
            self.file.seek(offset)
            data = self.file.read(size)
        if not data:
            raise DiskError(f"{self.path} was truncated by another program: start again")
        return data

    def flush(self):
        """Have the disk write the data that it has.

        Linux reports a failed write-back once for an open file: whoever ignores it here lets the
        fsync of commit() succeed on a damaged file.
        """
        with file_errors(self.destination):
            getattr(os, "fdatasync", os.fsync)(self.file.fileno())

    def commit(self):
        """Rename the archive into place, durably: every byte of it has been checked."""
        with file_errors(self.destination):
            os.fsync(self.file.fileno())
            # A truncated file does not get its full size back: its last zeros are written once.
            if not is_at(self.path, self.file) or os.path.getsize(self.path) != self.plan.size:
                raise DiskError(
                    f"{self.path} was removed, replaced or truncated by another program: run the "
                    "same command again"
                )
            if hasattr(os, "fchmod"):
                os.fchmod(self.file.fileno(), file_mode(self.destination))
            self.file.close()  # Windows renames no open file
            os.replace(self.path, self.destination)
        # The rename must outlast a power loss, on systems that can open a directory.
        with contextlib.suppress(OSError):
            directory = os.open(os.path.dirname(self.path), os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def __exit__(self, kind, error, _):
        if self.file:
            self.file.close()
            # There is none after commit(), even if Ctrl-C struck before its end.
            if os.path.lexists(self.path) and (any(self.arrived) or self.sources):
                error.kept = True
            else:
                if self.sources:
                    remove(self.old_path)
                remove(self.path)
                # Before the lock goes, or another run's state might be removed.
                remove(self.state_path)
        self.state.close()


def free_space(path):
    """Return the bytes that are free on the disk of a file that may not exist yet."""
    import shutil

    return shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free


def check_space(destination, missing):
    """Raise DiskError if the disk of a destination has no room for that many bytes more."""
    free = free_space(destination)
    if missing > free:
        raise DiskError(
            f"{destination} needs {human(missing)}, and its disk has {human(free)} free: make "
            "room, or write it elsewhere"
        )


class Pipe:
    """Standard output, with a ring of pieces that are read ahead of it."""

    def __init__(self, out, plan):
        # Not through Python's buffer, whose lock a thread that is stuck in a write would keep:
        # after Ctrl-C, the interpreter needs it to exit.
        self.out = getattr(out, "raw", out)
        self.arrived = bytearray(sum(piece_count(layer.size) for layer, _, _ in plan.layers))
        self.ring = memoryview(bytearray(min(WINDOW, len(self.arrived)) * PIECE))

    def read(self, offset, size):
        """Return the bytes of the ring at an offset, all in one piece."""
        start = offset % len(self.ring)
        return self.ring[start : start + size]

    def write(self, offset, data):
        self.read(offset, len(data))[:] = data

    def note(self, number, arrived):
        self.arrived[number] = arrived

    def put(self, data):
        """Write bytes to the pipe."""
        with file_errors("standard output"):
            write_all(self.out, data)


# ---- Download: workers fetch runs of pieces, and hash each layer from front to end ---------------

LEAST_RUN = 8  # pieces of one request, if several connections share a layer
LOOK_SECONDS = 0.05  # between two looks at the workers
BUSY = 0.9  # of a core: beyond that, this process is the limit and not the network
# A flush is due whenever so much has come. Measured: for 381 MB over http in 8 layers, 0.76 s, and
# 0.97 s with a flush every quarter of a second.
FLUSH_SECONDS, FLUSH_BYTES = 0.02, 8 << 20

# The layers of an archive, cut into pieces, in a file or in a pipe's ring:
#
#     ── hashed ──|── arrived ──|── taken ──|── arrived ──|── taken ──|── free ──
#
# - A worker takes the first free run of pieces, so all of them work at the same few layers.
# - A layer is hashed from front to end: by the worker that fetches its front, while the bytes are
#   in the processor's cache; the rest is read back from the page cache by whoever is free.
# - A pipe has a reader of its own, which hashes and writes, the end of a layer only if it is right.


class Layer:
    """A layer to download.

    planned: PlannedLayer
    first: int, the number of its first piece in the archive
    arrived: memoryview, 1 for each piece that is there, as the store records it
    source: Source to copy it from, or None
    """

    def __init__(self, planned, first, arrived, source):
        self.descriptor, self.offset, registries = planned
        self.size = self.descriptor.size
        self.registries = list(registries) * 2  # those to try, in their order
        self.first, self.arrived, self.source = first, arrived, source
        self.taken = bytearray(arrived)  # 1 for a piece that is there, or that a worker is fetching
        self.hasher, self.hashed = new_hash(self.descriptor.digest), 0  # and how many bytes it saw
        self.is_hashing = False  # True while a thread is at its front, and if it is complete
        self.runs = 0  # runs that workers are fetching
        # Its origin for the reporter, as long as nothing of it came over the network.
        self.origin = f"from {source.path}" if source else "already downloaded"

    def hash(self, data):
        self.hasher.update(data)
        self.hashed += len(data)


class Download:
    """The layers of a plan, fetched over several connections: call run().

    store: PartFile or Pipe
    sources: {digest: Source} of layers that are copied from local files
    """

    def __init__(self, plan, store, transport, sources):
        self.plan, self.store, self.transport = plan, store, transport
        self.jobs, self.reporter = transport.jobs, transport.reporter
        self.is_pipe = isinstance(store, Pipe)
        self.changed = threading.Condition()  # guards what follows
        self.layers, first = [], 0
        for planned in plan.layers:
            end = first + piece_count(planned.descriptor.size)
            arrived = memoryview(store.arrived)[first:end]
            source = None if any(arrived) else sources.get(planned.descriptor.digest)
            if source and source.size > planned.descriptor.size:
                source = None  # the manifest lies about one of them
            layer = Layer(planned, first, arrived, source)
            if self.is_pipe:  # which has a reader, and a ring of pieces
                layer.is_hashing, layer.offset = True, first * PIECE
            self.layers.append(layer)
            first = end
        if not self.is_pipe:
            # The largest first: one connection has to fetch it from a server without ranges.
            self.layers.sort(key=lambda layer: -layer.size)
        self.missing = {layer.descriptor.digest for layer in self.layers}  # those not yet complete
        # [(Image, digests of its layers)] that are not complete, if the reporter is told of images
        several = plan.images if len(plan.images) > 1 else []
        self.images = [(each, {layer.digest for layer in each.layers}) for each in several]
        # Bytes that are there.
        self.written = sum(min(each.size, each.taken.count(1) * PIECE) for each in self.layers)
        self.passed = 0  # pieces that are through the pipe
        self.error = None  # the first failure of any thread
        self.over = threading.Event()
        self.threads = []  # the flusher of a file, or the reader of a pipe, then the workers

    def run(self):
        """Fetch and check everything. Raises the first failure of any thread."""
        if self.written:
            there, total = human(self.written), human(self.plan.total)
            self.reporter.note(f"resuming: {there} of {total} already downloaded")
        self.complete()
        self.start(self.read if self.is_pipe else self.flush)
        self.guard(self.watch)
        self.over.set()
        deadline = time.monotonic() + 0.5
        for number, thread in enumerate(self.threads, self.is_pipe):
            # One that waits for a name server may stay behind, and writes no more. The flusher
            # alone learns of a failed write-back. Ctrl-C may come before a thread has started.
            if thread.is_alive():
                thread.join(max(0, deadline - time.monotonic()) if number else None)
        if self.error:
            raise self.error
        # The silence of all threads is not enough: every layer must have been found right.
        if self.missing:
            raise ImgpullError("not all layers arrived: run the same command again")

    def watch(self):
        """Start workers, more as long as they help, until all is done.

        More connections help while the network is the limit. On two cores over loopback, six
        workers took 1.77 s of CPU for 381 MB over https, and two took 1.22 s: they hinder each
        other if Python itself is the limit.
        """
        wall, cpu = time.monotonic(), time.process_time()
        while not self.error:
            self.reporter.progress(self.written)
            workers = self.threads[1:] = [each for each in self.threads[1:] if each.is_alive()]
            now, used = time.monotonic(), time.process_time()
            is_idle = len(workers) < 2 - self.is_pipe or used - cpu < BUSY * (now - wall)
            wall, cpu = now, used
            if len(workers) < self.jobs and is_idle and self.task():
                self.start(self.work)
                if not workers:
                    continue
            waiting = self.threads[:1] if self.is_pipe and self.threads[0].is_alive() else workers
            if not waiting:
                break
            # Not Condition.wait: Ctrl-C in the midst of it may leave its lock taken.
            waiting[0].join(LOOK_SECONDS)
        self.reporter.progress(self.written)

    def start(self, target):
        """Start a thread, whose failure ends the download."""
        thread = threading.Thread(target=self.guard, args=(target,), daemon=True)
        self.threads.append(thread)
        thread.start()

    def guard(self, target):
        """Call a function; record the first failure of any, and stop the other threads."""
        try:
            target()
        except BaseException as error:  # also Ctrl-C
            if not isinstance(error, Stopped):
                self.error = self.error or error
            # A thread that was left behind must not stop the pull that comes after.
            if not self.over.is_set():
                self.over.set()
                self.transport.stopping.set()

    def flush(self):
        """Have the disk write all along, so that the end does not wait for it."""
        flushed = 0
        while not self.over.wait(FLUSH_SECONDS):
            if self.written >= flushed + FLUSH_BYTES:
                flushed = self.written
                self.store.flush()

    def wait_until(self, condition):
        """Wait until a function returns true. Raises Stopped if the download is over."""
        with self.changed:
            while not self.over.is_set():
                if condition():
                    return
                self.changed.wait(LOOK_SECONDS)
        raise Stopped("stopped")

    # Workers:

    def is_ahead(self, layer, number):
        """True if a piece of a layer is too far ahead of the pipe."""
        return self.is_pipe and layer.first + number >= self.passed + WINDOW

    def is_ready(self, layer):
        """True if the front of a layer has arrived and nobody hashes it."""
        # One look at hashed, which another thread may move. Nothing is behind the last piece.
        is_there = layer.arrived[layer.hashed // PIECE :][:1] != b"\0"
        return is_there and not layer.is_hashing

    def is_open(self, layer):
        """True if a worker can begin a run of a layer: one at a time if there are no ranges."""
        return 0 in layer.taken and (layer.registries[0].ranged or not layer.runs)

    def task(self):
        """Return a layer to hash, or else one to fetch, or None."""
        tests = (self.is_ready, self.is_open)
        return next((layer for test in tests for layer in self.layers if test(layer)), None)

    def work(self):
        """Hash the fronts of layers, and fetch runs of pieces, until there are none to begin."""
        # Less for many workers, and a part of PIECE, so that no chunk is cut short.
        view = memoryview(bytearray(BUFFER >> min(self.jobs // 8, 4)))
        while not self.over.is_set():
            with self.changed:
                layer = self.task()
                if layer is None:
                    return
                start, end = layer.taken.find(0), 0
                if self.is_ready(layer):
                    layer.is_hashing = True
                elif self.is_ahead(layer, start + WINDOW // (self.jobs + 1)):
                    # All of a run has room in the ring. Else it could wait for a front that no
                    # other worker may fetch, from a server without ranges.
                    self.changed.wait(LOOK_SECONDS)
                    continue
                else:
                    end = self.take_run(layer, start)
            try:
                if end:
                    self.fetch(layer, start, end, view)
                else:
                    self.follow(layer)
            except ImgpullError as error:
                error.layer = layer.descriptor.digest
                raise

    def take_run(self, layer, start):
        """Take free pieces of a layer for one request, and return the end of their numbers."""
        end = layer.taken.find(1, start) % (len(layer.taken) + 1)
        if self.jobs > 1 and not layer.source and layer.registries[0].ranged:
            # The share of one connection. Of a pipe, what fits into its ring.
            run = WINDOW // (self.jobs + 1) or 1
            if not self.is_pipe:
                run = max(LEAST_RUN, (end - start) // max(2, len(self.threads) - 1))
            end = min(end, start + run)
        layer.taken[start:end] = b"\1" * (end - start)
        layer.runs += 1
        return end

    def fetch(self, layer, start, end, view):
        """Fetch a run of pieces; those that do not come are free again."""
        # Of a front that broke off within a piece, what is hashed is in place.
        position, limit = max(start * PIECE, layer.hashed), min(end * PIECE, layer.size)
        source, registry = layer.source, layer.registries[0]
        # Bytes in a pipe cannot be taken back, so a local file is checked first.
        if source and self.is_pipe and not is_intact(source, layer.descriptor, view):
            source = layer.source = None
        with self.changed:
            is_front = not layer.is_hashing and layer.hashed == position
            layer.is_hashing |= is_front
        try:
            if source:
                chunks = source.pieces(view)
            else:
                chunks, layer.origin = registry.pieces(layer.descriptor, position, limit, view), ""
            for data in chunks:
                number = position // PIECE
                self.wait_until(lambda number=number: not self.is_ahead(layer, number))
                self.store.write(layer.offset + position, data)
                if is_front:
                    layer.hash(data)
                position += len(data)
                with self.changed:
                    self.written += len(data)
                    if position % PIECE == 0 or position == layer.size:
                        self.store.note(layer.first + number, 1)
                        self.changed.notify_all()
        except RangeRefused as error:
            self.reporter.debug(f"{error}; going on without ranges")
        except (NotFound, NoAccess, Resumable):
            # Another registry of a bundle may have this layer, too.
            others = [each for each in layer.registries if each is not registry]
            if not others:
                raise
            layer.registries = others
        except OSError as error:
            why = printable(error.strerror or error)
            self.reporter.warn(f"{source.path} cannot be read: {why}")
        with self.changed:
            layer.runs -= 1
            if position < limit:
                layer.source = None
                layer.taken[position // PIECE : end] = bytes(end - position // PIECE)
                self.written -= 0 if is_front else position % PIECE
        if is_front:
            self.follow(layer)

    def follow(self, layer):
        """Hash a layer as far as it has arrived, and judge it at its end.

        Into a pipe, wait for all of it, and write it, its last bytes only if it is right.
        """
        data = b""
        while layer.hashed < layer.size:
            number = layer.hashed // PIECE
            if self.is_pipe:
                self.store.put(data)
                with self.changed:
                    self.passed = layer.first + number
                    self.changed.notify_all()
            elif not layer.arrived[number]:
                break
            self.wait_until(lambda number=number: layer.arrived[number])
            size = min(BUFFER, PIECE - layer.hashed % PIECE, layer.size - layer.hashed)
            data = self.store.read(layer.offset + layer.hashed, size)
            layer.hash(data)
        if layer.hashed == layer.size:
            self.judge(layer)
        if self.is_pipe:
            self.store.put(data)
        layer.is_hashing = layer.descriptor.digest not in self.missing

    def judge(self, layer):
        """Compare the digest of a whole layer; a wrong one is fetched once more.

        Raises Damaged if that has been done, or cannot be done.
        """
        got, source = digest_in(layer.hasher), layer.source
        if got == layer.descriptor.digest:
            self.reporter.layer(layer.descriptor, layer.origin)
            self.complete(got)
            return
        text = f"{layer.registries[0].named}: {mismatch(got, layer.descriptor.digest)}"
        if not source:  # which would tell nothing about the registry's copy
            layer.registries = layer.registries[1:]
        if self.is_pipe or not layer.registries:
            error = Damaged(text if self.is_pipe else f"{text}, {TWICE}")
            error.layer = layer.descriptor.digest
            raise error
        place = f" in {source.path}" if source else ""
        self.reporter.warn(f"{text}{place}; downloading it again")
        with self.changed:
            self.written -= layer.size
            for number in range(len(layer.taken)):
                self.store.note(layer.first + number, 0)
            layer.source, layer.taken = None, bytearray(len(layer.taken))
            layer.hasher, layer.hashed = new_hash(layer.descriptor.digest), 0

    def complete(self, digest=None):
        """Record a complete layer, and report the images that are complete now."""
        with self.changed:
            self.missing.discard(digest)
            done = [pair for pair in self.images if pair[1].isdisjoint(self.missing)]
            self.images = [pair for pair in self.images if pair not in done]
        for image, _ in done:
            self.reporter.image(image)

    # The reader of a pipe:

    def read(self):
        """Write the archive to the pipe: its literals, and each layer as it arrives."""
        for layer, (_, literal) in zip(self.layers, self.plan.literals):
            self.store.put(literal)
            self.follow(layer)
        self.store.put(self.plan.literals[-1][1])


def is_intact(source, descriptor, view):
    """True if a local file has a whole blob with the right digest."""
    hasher = new_hash(descriptor.digest)
    with contextlib.suppress(OSError):
        for piece in source.pieces(view):
            hasher.update(piece)
    return digest_in(hasher) == descriptor.digest


# ---- Pull: from references to an archive ---------------------------------------------------------
#
# Documents first, then layers: everything that is JSON is fetched, checked and judged before the
# first byte of a layer. So a wrong platform or a name that occurs twice costs no gigabytes.

UNDECLARED_LIMIT = 50  # entries of an index without platform whose configs are fetched
NESTED_LIMIT = 4  # indexes within indexes


class PullResult(
    collections.namedtuple(
        "PullResult",
        "images destination size fetched present omitted seconds failures unchanged replaced free",
    )
):
    """The result of a pull, or of its dry run.

    images: list of Image
    destination: str, as given
    size: int, bytes of the archive
    fetched: int, bytes of configs and layers that came over the network
    present: {digest: bytes} of each layer that were local already
    omitted: {digest: bytes} of the layers that a base has
    seconds: float
    failures: list of ImgpullError, of the images that keep_going skipped
    unchanged: bool, True if the destination held exactly this already, and was left alone
    replaced: list of str, names of images that the destination held and the new archive does not
    free: int, bytes free on the disk of the destination; 0 for standard output
    """

    __slots__ = ()


def parse_platforms(text):
    """Return a tuple of Platform for "os/arch,…" or a Platform; "all" and None as they are."""
    if text in (None, "all"):
        return text
    return tuple(parse_platform(part) for part in str(text).split(","))


def wanted_platforms(platforms):
    """Return the Platforms to look for, best first: the requested ones, or this host's."""
    if platforms:
        return platforms
    host = host_platform()
    # Hosts with other systems, such as macOS, run linux images in a virtual machine.
    return host, host._replace(os="linux")


def resolve(registry, manifest, platforms):
    """Return the Manifest for a platform, through indexes. Raises NotFound if there is none.

    platforms: tuple of one Platform, or None for this host's
    """
    wanted = wanted_platforms(platforms)
    for platform in wanted:
        found = manifest
        for _ in range(NESTED_LIMIT):
            if found and found.is_index:
                # Entries with a platform come first: the others cost a request each.
                choice = choose(found.children, platform)
                choice = choice or choose(undeclared(registry, found), platform)
                found = choice and registry.get(choice)
        if found and found.is_index:
            raise Damaged(f"{registry.named} has more than {NESTED_LIMIT} nested indexes")
        if found:
            if platform != wanted[0]:
                text = f"{registry.named} is not for {wanted[0]}: pulling {platform}"
                registry.transport.reporter.note(text)
            return found
    offered = runnable(manifest.children) + undeclared(registry, manifest)
    names = sorted({str(each.platform) for each in offered}) or ["no platform at all"]
    raise NotFound(
        f"{registry.named} is not available for {wanted[0]} (available: "
        f"{printable(', '.join(names))}): choose with --platform"
    )


def undeclared(registry, index):
    """Return Descriptors of the images among entries without platform, with that of the config."""
    descriptors = []
    silent = [each for each in index.children if not (each.platform or each.is_attestation)]
    for child in silent[:UNDECLARED_LIMIT]:
        # An unreadable one is skipped: another one may match.
        with contextlib.suppress(NotFound, Damaged):
            manifest = registry.get(child)
            if manifest.is_image:
                config = parse_config(registry.blob(manifest.config), manifest, child.digest)
                descriptors.append(child._replace(platform=config.platform))
    return descriptors


def find_known(registry):
    """Return the Manifest of a registry's reference, without a GET if registry.documents has it.

    Docker Hub's quota counts each GET of a manifest, and no HEAD.
    """
    # Whatever is wrong with HEAD, GET may be right. The index of a single platform is not in an
    # archive, and its claim of one (SOURCE) proves nothing: it costs a GET.
    with contextlib.suppress(ImgpullError):
        digest = registry.reference.digest or registry.head().digest
        if digest in registry.documents:
            return registry.get(digest)
    return registry.get()


def documents_of(registry, manifests):
    """Return {digest: bytes} of Manifests and their configs."""
    documents = {}
    for manifest in manifests:
        documents[manifest.digest] = manifest.body
        if manifest.config:
            documents[manifest.config.digest] = registry.blob(manifest.config)
    return documents


def find_image(registry, target, platforms, name, with_referrers):
    """Return the Image of a registry's reference: all its documents, fetched and checked.

    target: Manifest of the reference
    platforms: tuple of Platforms, None for this host's, or "all"
    name: str, the image's full name in the archive, or None for its own
    with_referrers: bool, include them
    """
    reporter = registry.transport.reporter
    named = parse_reference(name) if name else registry.named
    full = named.name + (f":{named.tag}" if named.tag else f"@{target.digest}")
    if not named.tag:
        reporter.note(f"{full} has no name in the archive: give it one with --name")
    if platforms == "all":
        manifests = [each for _, each in walk(target.descriptor, target, registry.get, full)]
    elif platforms and len(platforms) > 1:
        manifests = [target] + [resolve(registry, target, (one,)) for one in platforms]
    else:
        manifests = [resolve(registry, target, platforms)]
    top, source = manifests[0].descriptor, "" if target in manifests else target.digest
    if source and registry.reference.digest:
        reporter.note(f"{registry.named} is an index: pulling {top.digest}")
    referrers = all_referrers(registry, target, manifests) if with_referrers else []
    more = [target] * bool(referrers) + [each.manifest for each in referrers]
    documents = documents_of(registry, manifests + more)
    load = {each.digest: each for each in manifests}.get
    image = assemble_image(full, top, documents, load, source, referrers, registry)
    if signed_descriptor(image)[0].digest != top.digest:
        # With the index in index.json, containerd walks through it to all of its manifests and
        # configs with --all-platforms (as k3s does), but not to their layers.
        for child in target.children:
            with contextlib.suppress(NotFound, Damaged):
                documents.update(documents_of(registry, [registry.get(child)]))
    if not image.configs:
        reporter.note(
            f"{full} is not a container image but an artifact: archived as an OCI layout, without "
            "docker's manifest.json"
        )
    elif not target.is_index and image.platform.os and platforms != "all":
        wanted, offered = wanted_platforms(platforms), [top._replace(platform=image.platform)]
        if not any(choose(offered, each) for each in wanted):
            text = f"{full} is not available for {wanted[0]} (available: {image.platform})"
            if platforms:
                raise NotFound(text)
            reporter.warn(f"{text}: pulling it anyway")
    if any(layer.media_type.endswith("zstd") for layer in image.layers):
        reporter.warn(f"{full} has zstd layers, which docker before version 23 cannot unpack")
    return image


def all_referrers(registry, index, manifests):
    """Return [Referrer, ...] to Manifests of an image, and to the index that they are from.

    BuildKit's attestations count as well, which refer to a platform's manifest by an annotation
    in the index, and which may be signed themselves. Raises ImgpullError.
    """
    digests = {each.digest: each for each in [index] + manifests}
    attestations = {}
    for child in index.children:
        subject = child.annotations.get("vnd.docker.reference.digest")
        if child.is_attestation and subject in digests and child.digest not in digests:
            attestations[child.digest] = Referrer(subject, "", registry.get(child))
    reporter = registry.transport.reporter
    found = find_referrers(registry, [*digests, *attestations], reporter)
    if not (attestations or found):
        reporter.note(f"no signatures or other referrers found for {registry.named}")
    return [*attestations.values(), *found]


def find_images(requests, find, transport, keep_going=False):
    """Return ([Image, ...], [ImgpullError, ...]): the images of the requests, and the failures.

    requests: list of ImageRequest; one that occurs twice is looked up once
    find: function from an ImageRequest to its Image
    keep_going: bool, skip images that fail; otherwise the first failure is raised
    """
    requests = list({each._replace(place=""): each for each in requests}.values())
    waiting, results = iter(requests), {}  # next() is atomic: no two threads get the same request

    def work():
        for request in waiting:
            try:
                results[request] = find(request)
            except BaseException as error:
                results[request] = error
                error.image = request.name or str(request.reference)
                if request.place:
                    error.args = (f"{request.place}: {error}",)
                if not keep_going:
                    transport.stopping.set()
            transport.reporter.status(
                f"looked up {len(results)} of {plural(len(requests), 'image')}"
            )

    transport.reporter.status(f"looking up {requests[0].reference}")
    # Each look-up waits for a few answers, one after the other: more at once than for layers.
    threads = [threading.Thread(target=work, daemon=True) for _ in requests[: 2 * transport.jobs]]
    for thread in threads:
        thread.start()
    for thread in threads:
        # Not join() alone: Ctrl-C would wait for its end.
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
    ended = [results[each] for each in requests]
    images = [each for each in ended if isinstance(each, Image)]
    failures = [each for each in ended if not isinstance(each, (Image, Stopped))]
    for error in failures:
        if not (keep_going and isinstance(error, ImgpullError)):
            raise error
    return images, failures


def check_registries(requests, settings):
    """Raise UsageError if options for one registry are given with images of several.

    A password for one would be sent to another.
    """
    names = "user token cert insecure namespace scheme".split()
    given = [name for name in names if getattr(settings, name) not in (None, False, "https")]
    registries = sorted({request.reference.registry for request in requests})
    if len(registries) > 1 and given:
        raise UsageError(
            f"the option {given[0]} is for one registry, and the images are from several ("
            f"{printable(', '.join(registries))}): log in to each (docker login, podman login), "
            "put certificates into certs.d, write http://HOST/NAME for a registry without TLS, or "
            "pull from one registry at a time"
        )


def check_destination(destination, base, force):
    """Return the Archive at a destination in a list, which is empty if there is none.

    base: list of paths of archives that must not be replaced
    force: bool, overwrite a file that imgpull has not written

    Raises ImgpullError if the destination cannot be written.
    """
    if destination == "-":
        return []
    parent, name = os.path.split(destination)
    is_there = os.path.exists(destination)
    if not name or is_there and not os.path.isfile(destination):
        hint = "give the name of a file, or - to write to a pipe"
        raise DiskError(f"{destination} is a directory or a device: {hint}")
    if not os.access(os.path.join(parent, "."), os.W_OK):
        why = f"there is no directory {parent or '.'} that you may write to"
        raise DiskError(f"{destination} cannot be written: {why}")
    if is_there and any(
        os.path.exists(each) and os.path.samefile(each, destination) for each in base
    ):
        raise UsageError(f"{destination} is the base: the delta needs another name")
    try:
        return [read_archive(destination)] if is_there and os.path.getsize(destination) else []
    except ImgpullError as error:
        if force:
            return []
        raise DiskError(f"{error}; --force overwrites it, or choose another name") from None


def read_base(path, reporter):
    """Return the Archive of --base, verified. Raises ImgpullError."""
    try:
        archive = read_archive(path, False, reporter)
    except Damaged as error:
        raise Damaged(f"{error}; --base-image REF takes the layers of an image instead") from None
    if archive.faults:
        raise Damaged(f"{printable(path)} cannot be used as a base: {archive.faults[0].text}")
    return archive


def is_up_to_date(plan, path, reporter):
    """True if a file is, byte for byte, the archive of a plan."""
    view = memoryview(bytearray(BUFFER))
    with contextlib.suppress(OSError):
        if os.path.getsize(path) == plan.size:
            reporter.status(f"checking if {path} is up to date")
            return all(
                b"".join(map(bytes, Source(path, offset, len(literal)).pieces(view))) == literal
                for offset, literal in plan.literals
            ) and all(
                is_intact(Source(path, offset, layer.size), layer, view)
                for layer, offset, _ in plan.layers
            )
    return False


def find_present(plan, destination, sources):
    """Return {digest: bytes} of each layer of a plan that are local already."""
    blobs, present = {}, {}
    state = destination + ".part.state"
    with contextlib.suppress(OSError), open(state, "rb", opener=open_at_once) as file:
        blobs = {digest: pieces for digest, _, _, pieces in parse_state(file.read(STATE_LIMIT))[0]}
    for layer, _, _ in plan.layers:
        pieces = blobs.get(layer.digest, b"")
        there = layer.size if layer.digest in sources else pieces.count(1) * PIECE
        present[layer.digest] = min(there, layer.size)
    return present


def write_images(images, failures, held, omit, destination, keep_going, force, write):
    """Write images into an archive, without those that fail; return the PullResult.

    failures: list of ImgpullError, of the images that could not be looked up
    held: list of the names of images at the destination
    omit: frozenset of digests of layers to omit
    write: function from an ArchivePlan, the failures and the names that it lacks to a PullResult
    """
    while True:
        # Anew each time, since an image that contradicts a failed one may fit now.
        fits, conflicts, names, sizes = {}, [], {}, {}
        # Those that the destination holds come first: they are not given up for others.
        for image in sorted(images, key=lambda image: image.name not in held):
            try:
                admit(image, names, sizes)
                fits.setdefault(image.name, image)
            except ImgpullError as error:
                error.image = image.name
                if not keep_going:
                    raise
                conflicts.append(error)
        good = [image for image in images if fits.get(image.name) is image]
        failed, replaced = failures + conflicts, [name for name in held if name not in fits]
        if failed and good and replaced and not force:
            stays = ImgpullError(
                f"{destination} stays as it is: it holds {printable(', '.join(replaced), 200)}, "
                "which the new archive would lack; --force replaces it"
            )
            failed, good = [stays] + failed, []
        if not good:
            failed[0].others = [str(each) for each in failed[1:]]
            raise failed[0]
        try:
            return write(plan_archive(good, omit), failed, replaced)
        except (NotFound, NoAccess, Damaged, Resumable) as error:
            lost = [
                image
                for image in good
                if error.layer
                in [layer.digest for each in image.all_manifests for layer in each.layers]
            ]
            error.image = ", ".join(image.name for image in lost)
            # Bytes in a pipe cannot be taken back.
            if destination == "-" or not (keep_going and lost):
                raise
            images = [image for image in images if image not in lost]
            failures = [error] + failures


def write_plan(destination, transport, sources, dry_run, begun, plan, failures, replaced):
    """Write the archive of a plan, if it is not there already, and return the PullResult."""
    transport.stopping.clear()
    is_pipe, reporter = destination == "-", transport.reporter
    present = find_present(plan, destination, sources)
    unchanged = not is_pipe and is_up_to_date(plan, destination, reporter)
    if not (dry_run or unchanged):
        reporter.start([layer for layer, _, _ in plan.layers], plan.total, plan.images)
        if is_pipe:
            pipe = Pipe(sys.stdout.buffer, plan)
            Download(plan, pipe, transport, sources).run()
        else:
            # Through a symlink: the link stays, and its target is replaced.
            with PartFile(os.path.realpath(destination), plan) as part:
                found = dict(part.sources, **sources)
                Download(plan, part, transport, found).run()
                part.commit()
    elif not (is_pipe or unchanged):
        check_space(destination, plan.size - sum(present.values()))
    omitted = {
        layer.digest: layer.size
        for image in plan.images
        for layer in image.layers
        if layer.digest in image.omitted
    }
    return PullResult(
        plan.images, destination, plan.size, transport.fetched, present, omitted,
        time.monotonic() - begun, failures, unchanged, replaced,
        0 if is_pipe else free_space(destination),
    )  # fmt: skip


def pull(
    references, destination, platform=None, name=None, jobs=6, base=(), base_images=(), reuse=(),
    force=False, keep_going=False, dry_run=False, reporter=None, referrers=False, **connection
):  # fmt: skip
    """Pull one or several images into one archive, and return a PullResult.

    references: str, or list of str or ImageRequest; "http://HOST/NAME" if it has no TLS
    destination: path of the tar, or "-" for standard output
    platform: "os/arch[/variant][,…]", Platform, "all", or None for this host's
    name: str, the image's name in the archive, or None for its own; jobs: int, most connections
    base, base_images: lists of archives' paths, and of references, whose layers are omitted
    reuse: list of paths of archives whose blobs are copied instead of fetched
    force: bool, overwrite a destination that imgpull has not written, or that holds more images
    keep_going: bool, skip images that fail, and list them in the result
    dry_run: bool, look everything up and write nothing; reporter: Reporter, or None
    referrers: bool, include signatures, SBOMs and all other referrers of the images
    connection: the fields of Settings, such as scheme, insecure, user and password

    Every byte is checked before the destination appears; a failed pull leaves it as it was, and
    keeps the downloaded bytes for the next run. Raises ImgpullError.
    """
    begun, destination, reporter = time.monotonic(), os.fspath(destination), reporter or Reporter()
    references = [references] if isinstance(references, str) else references
    settings, platforms = Settings(**connection), parse_platforms(platform)
    requests = [parse_request(one, name) if isinstance(one, str) else one for one in references]
    if not requests or name and len(requests) > 1 or jobs < 1:
        raise UsageError("pull() needs a reference, one reference for a name, and jobs >= 1")
    base_requests = [parse_request(one) for one in base_images]
    check_registries(requests + base_requests, settings)
    there = check_destination(destination, base, force)
    bases = [read_base(each, reporter) for each in base]
    archives = there + bases + [read_archive(each, reporter=reporter) for each in reuse]
    documents, sources = {}, {}  # {digest: bytes}, {digest: Source}: nothing is fetched twice
    for archive in archives:
        sources.update(archive.sources)
        for image in archive.images:
            documents.update(image.documents)
    transport = Transport(settings, reporter, jobs)

    def find(request):
        own = settings._replace(scheme=request.scheme or settings.scheme)
        registry = Registry(request.reference, own, reporter, transport, documents)
        target = find_known(registry) if archives else registry.get()
        # Of a base, only the layers are needed.
        more = referrers and request in requests
        return find_image(registry, target, platforms, request.name, more)

    try:
        images, failures = find_images(requests, find, transport, keep_going)
        based = [image for archive in bases for image in archive.images]
        based += find_images(base_requests, find, transport)[0] if base_requests else []
        omit = omissible(layer_stacks(images), layer_stacks(based))
        if based and not omit:
            reporter.note("no layer is in the base: nothing is omitted")
        write = functools.partial(write_plan, destination, transport, sources, dry_run, begun)
        held = [image.name for archive in there for image in archive.images]
        return write_images(images, failures, held, omit, destination, keep_going, force, write)
    finally:
        reporter.finish()
        transport.close()


# ---- Progress: what a person at the terminal sees ------------------------------------------------
#
# Lines that stay go above one live line, which is drawn anew. Without a terminal, there is no live
# line, but a line of progress now and then.

DRAW_SECONDS = 0.1  # between two drawings of the live line
PLAIN_SECONDS = 10  # between two lines of progress if there is no terminal
NEVER = 359999  # seconds: 99:59:59 is the longest time left that is shown


class Terminal(Reporter):
    """Reports on standard error: lines that stay and, on a terminal, a live line below them.

    quiet: bool, print only warnings and errors
    debugging: bool, print requests and every layer
    """

    def __init__(self, quiet, debugging):
        self.stream = sys.stderr
        self.quiet, self.debugging = quiet, debugging
        self.live = not quiet and self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.bar = "█░" if "utf" in (self.stream.encoding or "").lower() else "#."
        self.lock = threading.RLock()  # guards the stream and what is shown on it
        self.shown = ""  # the live line as it is on the screen
        self.listed = False  # images of a pull have got their lines here
        self.start([], 0, [])
        self.finish()
        if self.live:
            threading.Thread(target=self.animate, daemon=True).start()

    def animate(self):
        """Redraw the live line forever, since a countdown goes on while nothing else happens."""
        while True:
            time.sleep(DRAW_SECONDS)
            self.line("")

    def line(self, text):
        """Print a line that stays, "" for none, and redraw the live line below it."""
        with self.lock:
            live = self.live_line() if self.live else ""
            if text or live != self.shown:
                text = "\r\033[K" * bool(self.shown) + text + "\n" * bool(text)
                self.shown = live
                # Failures are ignored: there is nowhere to report them. The cursor waits in the
                # first column, where a shell prints "Killed" if this process could not clean up.
                with contextlib.suppress(OSError, ValueError):
                    print(text + live + "\r" * bool(live), end="", file=self.stream, flush=True)

    def note(self, text):
        if not self.quiet:
            self.line(f"imgpull: {printable(text, 1000)}")

    def warn(self, text):
        # Even with --quiet: another platform than requested must not go unnoticed.
        self.line(f"imgpull: warning: {printable(text, 1000)}")

    def debug(self, text):
        if self.debugging:
            self.line(f"imgpull: debug: {printable(text, 1000)}")

    def status(self, text):
        self.doing = printable(text, 1000)
        self.line("")

    def reading(self, name, done, total):
        share = f"{100 * done // total}% of {human(total)}" if total else human(done)
        self.doing = f"reading {name}: {share}"
        if done == total:
            self.finish()

    def retry(self, failure, delay, number, limit):
        if not self.live:
            super().retry(failure, delay, number, limit)
        self.failure, self.retry_at = printable(failure, 1000), time.monotonic() + delay

    def start(self, layers, total, images):
        self.several = len(images) > 1
        self.total, self.done = total, 0  # bytes of layers
        self.kept = total  # bytes that are local from the start: they do not count as speed
        self.begun = self.printed = time.monotonic()
        self.running = True

    def layer(self, descriptor, how):
        if self.debugging or not (self.several or self.quiet):
            self.line(f"{descriptor.short}  {human(descriptor.size):>9}  {how}".rstrip())

    def image(self, image):
        self.listed = self.live
        if not self.quiet:
            self.line(f"{image.name}  {image.descriptor.short}  {human(image.size)}")

    def progress(self, done):
        self.done, now = done, time.monotonic()
        self.kept = min(self.kept, done)
        if not self.live and self.running and now - self.printed >= PLAIN_SECONDS:
            self.printed = now
            self.note(self.facts())

    def facts(self):
        """Return the progress in words of constant order and width."""
        rate = max(self.done - self.kept, 0) / max(time.monotonic() - self.begun, 0.001)
        left = int(min((self.total - self.done) / rate, NEVER)) if rate else NEVER
        return (
            f"{100 * self.done // max(self.total, 1):3d}%  {human(self.done):>8} of "
            f"{human(self.total):>8}  {human(rate):>8}/s  "
            f"{left // 3600:2d}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )

    def live_line(self):
        """Return the live line: the current retry, the status, or the progress with a bar."""
        columns = 80
        with contextlib.suppress(OSError, ValueError):
            columns = os.get_terminal_size(self.stream.fileno()).columns or columns
        line, wait = self.facts() if self.running else self.doing, self.retry_at - time.monotonic()
        bar = columns - 3 - len(line)
        if wait > 0:
            share = line[:4] + "  " if self.running else ""
            line = f"{share}retry in {int(wait) + 1} s: {self.failure}"
        elif self.running and bar > 0:
            full = bar * self.done // max(self.total, 1)
            line += "  " + self.bar[0] * full + self.bar[1] * (bar - full)
        # Text in the last column would make some terminals wrap.
        return line[: columns - 1]

    def finish(self):
        self.running, self.doing, self.retry_at = False, "", 0.0
        self.line("")


# ---- Command line, archives: what --list-tar and --verify print ----------------------------------
#
# The same records are printed for people, as JSON for programs, and as NAME@DIGEST for --quiet.


def image_document(image):
    """Return an Image as --json prints it; .github/SCRIPTS.md explains each key."""
    diff_ids = {
        layer.digest: diff_id
        for manifest in image.manifests
        if manifest.digest in image.configs
        for layer, diff_id in zip(manifest.layers, image.configs[manifest.digest].diff_ids)
    }
    return {
        "name": image.name,
        "digest": image.digest,
        "source_digest": image.source or None,
        "image_id": image.image_id,
        "platform": image.platform and str(image.platform),
        "size": image.size,
        "layers": [
            {
                "digest": layer.digest,
                "size": layer.size,
                "omitted": layer.digest in image.omitted,
                "diff_id": diff_ids.get(layer.digest),
            }
            for layer in image.layers
        ],
        "referrers": [
            {key: getattr(each, key) for key in "digest subject kind artifact_type size".split()}
            for each in image.referrers
        ],
    }


def print_json(document):
    """Print a document as JSON on standard output.

    The version of its schema grows when a key changes its meaning.
    """
    print(json.dumps(dict(document, schema=1), indent=2))


def say(text, out=None):
    """Print a line of the result on standard output, or on another stream.

    Digests are short on a terminal, so that a line fits, and whole in a pipe. A character that
    the stream's encoding lacks is escaped.
    """
    out = out or sys.stdout
    encoding = out.encoding or "ascii"
    if out.isatty():
        text = re.sub("(sha(?:256|512):[0-9a-f]{12})[0-9a-f]+", r"\1", text)
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=out)


def print_name(image, out=None):
    """Print NAME@DIGEST: the line of --quiet about an Image, in a pull and in an archive."""
    print(f"{image.name.partition('@')[0]}@{image.digest}", file=out)


def run_archives(options, reporter):
    """List or verify archives, print the results, and return the exit status.

    An archive that cannot be read does not keep the others from being examined.
    """
    bases = [read_archive(each, True, reporter) for each in options.base if options.verify]
    status, documents = 0, []
    for path in options.archives:
        document = {"archive": path, "images": []}
        try:
            archive = read_archive(path, options.verify or None, reporter, bases)
            if options.verify:
                needed = 0 if bases else len(archive.omitted)
                document.update(checked=archive.size, needed=needed, unchecked=archive.unchecked)
            document["images"] = list(map(image_document, archive.images))
            faults = archive.faults
            if not options.json:
                show_archive(archive, options, document)
        except ImgpullError as error:
            status, faults = status or error.exit_code, [Fault("archive", str(error))]
            reporter.line(f"imgpull: error: {printable(error, 1000)}")
        status = status or Damaged.exit_code * bool(faults)
        document["faults"] = [fault._asdict() for fault in faults]
        documents.append(document)
    if options.json:
        print_json({"archives": documents})
    return status


def show_archive(archive, options, document):
    """Print the findings about an Archive for people, or NAME@DIGEST lines with --quiet."""
    shown = archive_name(archive.path)
    for fault in archive.faults:
        say(f"{shown}: bad: {fault.text}")
    if archive.faults:
        return
    if options.verify and not options.quiet:
        facts = f"{plural(len(archive.images), 'image')}, {human(archive.size)} checked"
        referrers = {each.digest for image in archive.images for each in image.referrers}
        if referrers:
            facts += (
                f" (with {plural(len(referrers), 'referrer')}; signatures are not verified: unpack "
                "the archive into DIR, then run cosign verify --key cosign.pub "
                "--insecure-ignore-tlog --local-image DIR)"
            )
        if document["needed"]:
            needed = plural(document["needed"], "layer")
            facts += f" (it needs {needed} already on the target: verify it together with --base)"
        if document["unchecked"]:
            unchecked = plural(document["unchecked"], "layer")
            facts += f" ({unchecked} not unpacked, only the digests checked)"
        say(f"{shown}: good: {facts}")
    for image in archive.images:
        if options.quiet:
            print_name(image)
        elif options.verify:
            say(f"{shown}: {image.name} {printable(image.platform or '')}".rstrip())
            show_identity(image, f"{shown}:   ")
        else:
            show_image(image, shown)


def show_identity(image, indent):
    """Print the digests that show both sides of a gap that they have the same Image."""
    if image.source:
        # An annotation alone proves nothing.
        is_there = image.source in image.documents
        proof = "what the tag named" if is_there else "the archive claims; it is not in it"
        say(f"{indent}index     {image.source} ({proof})")
    kind = "index" if image.manifests[0].is_index else "manifest"
    say(f"{indent}{kind:<9} {image.digest}")
    if image.image_id:
        say(f"{indent}image ID  {image.image_id} (docker with graph drivers)")


def show_image(image, path):
    """Print the contents of an Image in the archive at a path."""
    say(image.name)
    show_identity(image, "  ")
    if image.ref_name:
        name = image.ref_name
        say(f"  name      {name} for skopeo and podman: oci-archive:{path}:{name}")
    for manifest in image.manifests:
        config = image.configs.get(manifest.digest)
        # Neither indexes nor the attestations in them, but artifacts.
        if config or len(image.manifests) == 1:
            if manifest.digest != image.digest:
                say(f"  manifest  {manifest.digest}")
            say(f"  platform  {printable(config.platform) if config else 'none'}")
            sizes = [each.size for each in manifest.layers if each.digest not in image.omitted]
            say(f"  layers    {len(manifest.layers)}, {human(sum(sizes))}")
            for layer in manifest.layers:
                mark = "  left out" * (layer.digest in image.omitted)
                say(f"    {layer.digest}  {human(layer.size):>9}{mark}")
    for each in image.referrers:
        about = f" of {each.subject[:19]}" * (each.subject != image.digest)
        kind = printable(each.artifact_type, 90) or "no type"
        say(f"  referrer  {each.digest}  {each.kind}{about}, {human(each.size)}, {kind}")


# ---- Command line: options, what each of them does, and how a failure is reported ----------------

# {group: {spellings and value: help}}. An option with "..." may be repeated.
OPTIONS = {
    "images": {
        "--platform P": "os/arch[/variant][,...] or all (default: this host's)",
        "-o --os OS": "operating system, such as linux",
        "-a --arch ARCH": "architecture, such as amd64 or arm64",
        "-n --ns HOST": "REF's registry is a mirror of HOST",
        "--name REF": "name of the image in the archive",
        "--from FILE...": "pull the images listed in FILE (- for standard input), "
        'one "REF [NAME]" per line',
        "--keep-going": "archive the other images if some fail (exit code 1)",
        "--base TAR...": "leave out layers that TAR holds",
        "--base-image REF...": "leave out layers that REF has",
        "--reuse TAR...": "copy layers from TAR instead of downloading them",
        "--referrers": "include signatures, SBOMs and provenance",
        "--dry-run": "show what a pull would download, and write nothing",
        "--force": "overwrite a file of others, or an archive of more images",
        "-m --manifest list|image": "print a manifest of REF instead of pulling",
        "-l --list-tar TAR...": "list the images in archives",
        "--verify TAR...": "check every byte of archives",
    },
    "registry": {
        "-u --user NAME": "default: the credentials of docker login, podman login",
        "-p --password PW": "visible to other users of this host; better:",
        "--password-stdin": "read the password from standard input",
        "-t --token TOKEN": "registry token, for Bearer or (ECR) Basic",
        "-s --scheme http|https": "http for a registry without TLS; or write http://REF",
        "-x --cacert --ca PEM": "trust this CA too",
        "-c --cert PEM": "client certificate (mTLS)",
        "-k --key PEM": "key of the client certificate",
        "-i --insecure": "do not verify certificates",
        "-j --jobs N": "maximum connections (default 6)",
        "--timeout S": "abort a connection after S seconds without data (default 30)",
        "--retries N": "retries without progress (default: 2 minutes)",
    },
    "output": {
        "-q --quiet": "print only NAME@DIGEST, warnings and errors",
        "--json": "print the result as JSON",
        "--debug": "print every request, without secrets",
        "--parsed": "print the options as understood, and exit",
    },
}
DESCRIPTION = """Pull the images REF into one archive that every container runtime loads.
TAR may be - for standard output."""
EPILOG = """examples:
  imgpull alpine alpine.tar
  imgpull --platform linux/arm64 quay.io/curl/curl:8.10.1 - | ssh host docker load
  imgpull --verify alpine.tar

exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found or no access,
  4 network (try again), 5 damaged data, 6 disk, 7 another imgpull writes the
  same file, 130 interrupted"""

PULL_OPTIONS = "platform name jobs base reuse force keep_going referrers dry_run".split()

# Patterns of other tools' options, and what to write instead.
OPTION_HINTS = {
    "--?ls": "did you mean --list-tar?",
    "--((src-|dest-)?tls-?verify|(plain-|use-)?http|insecure-(registry|skip-verify))": (
        "--insecure does not verify certificates; --scheme http is for a registry without TLS"
    ),
    "--(src-|dest-)?(creds|username)": "did you mean --user NAME:PASSWORD?",
    "--(src-)?(registry-token|bearer)": "did you mean --token?",
    "--authfile": "set REGISTRY_AUTH_FILE=FILE in the environment",
    "--(src-)?(cert-dir|ca-?cert-?file|ca-file)": "did you mean --cacert, --cert and --key?",
    "--proxy": "set https_proxy=URL in the environment",
    "--(all(-platforms|-arch)?|multi-arch)": "did you mean --platform all?",
    "--(override-(os|arch|variant)|variant)": "did you mean --platform linux/arm/v7?",
    "--(output|out|file|dest|tarball)": "the TAR comes last: imgpull alpine alpine.tar",
    "--(format|type|oci|docker)": "there is one format, which every runtime loads",
    "-z|--((dest-)?compress|gzip)": "write to a pipe: imgpull alpine - | gzip > alpine.tar.gz",
    "--(parallel|concurrency|threads|max-parallel-downloads)": "did you mean --jobs?",
    "--verbose": "did you mean --debug?",
}
# Patterns of mistakes, and hints. They are matched against the options (--name=value, in the order
# of OPTIONS), a newline, and the other words, each option and word followed by a blank.
PULL = r"(?!.*--(?:manifest|list-tar|verify)=).*"
WORDS = PULL + "\n"
TOOL = r"((?:sudo )?(?:(?:docker|podman|nerdctl|crane) (?:image )?)?(?:pull|run|save|imgpull)) "
NAME = r"((?:\S*/)?([^\s/:@]+)\S*) "  # of quay.io/curl/curl:8.10.1, the last group is curl
MISTAKES = {
    r".*--(jobs|timeout|retries)=(-|inf|nan|\d{7}|\de)": r"--\1 is out of range",
    ".*--manifest=(?!(list|image) )": "--manifest takes list or image",
    ".*--scheme=(?!https? )": "--scheme takes http or https",
    r".*--(jobs|timeout)=0(\.0)? ": r"--\1 must be more than 0",
    r".*--([\w-]+)= ": r"--\1 is empty: is the variable set?",
    r".*\n(\S+ )* ": "the name of an image or of the TAR is empty: is the variable set?",
    r"(?=.*--cert=)(?!.*--key=)|(?!.*--cert=)(?=.*--key=)": "--cert and --key go together",
    ".*--platform=.*--(os|arch)=": "either --platform, or --os and --arch",
    ".*--user=.*--token=": "either --token, or --user",
    ".*--password=.*--password-stdin=": "either --password, or --password-stdin",
    "(?!.*--user=).*--password": "a password needs its --user",
    r".*--name=.*(--from=|\n\S+ \S+ \S)": "--name is for one image",
    ".*--list-tar=.*--verify=": "either --list-tar, or --verify",
    ".*--(base|reuse)=- ": "--base and --reuse take a file, not standard input",
    r".*--os=\S*[./]": "-o is --os, such as linux; the TAR comes last: imgpull alpine alpine.tar",
    ".*--platform=all .*--manifest=image": "--manifest image takes one platform",
    r".*--manifest=.*\n(\S+ \S+ \S|$)": "--manifest takes one REF",
    PULL + r"--json=.*\n.* - $": "--json and - both write to standard output: name a file",
    PULL + "--from=.*\n$": "no output file given: imgpull --from FILE bundle.tar",
    f"{WORDS}$": "no image given: imgpull alpine alpine.tar",
    f"{WORDS}(help|version) $": r"did you mean --\1?",
    rf"{WORDS}(?:verify|check) (\S+\.tar) $": r"did you mean --verify \1?",
    rf"{WORDS}(?:list|ls|inspect|load) (\S+\.tar) $": r"did you mean --list-tar \1?",
    rf"{WORDS}(\S+\.(?:txt|list)) (\S+) $": r"did you mean --from \1 \2?",
    f"{WORDS}{TOOL}$": r"leave out '\1': imgpull alpine alpine.tar",
    rf"{WORDS}{TOOL}(?!\S*\.tar ){NAME}": r"leave out '\1': imgpull \2 \3.tar",
    rf"{WORDS}(?:sudo )?(?:skopeo )?(?:copy )?(?:docker://)?(\S+) "
    r"(?:docker-archive|oci-archive|oci|docker|dir):([^ :]+)\S* $": (
        r"such prefixes are not needed: imgpull \1 \2"
    ),
    rf"{WORDS}(?:\S* )*(localhost|[\w-]+(?:\.[\w-]+)+):(\d{{3,5}}) ": (
        r"\1:\2 means the image \1 with the tag \2; an image of that registry is \1:\2/NAME"
    ),
    r"(?!.*--from=)" + WORDS + r"(\S+\.tar) $": (
        r"which image goes into \1? (to list the images in it: imgpull --list-tar \1)"
    ),
    rf"(?!.*--from=){WORDS}{NAME}$": (
        "no output file given; use - to write to standard output, or name a file: "
        r"imgpull \1 \2.tar"
    ),
    rf"{WORDS}(?:\S* )*(\S+\.(?:tgz|gz|zst|xz|bz2)) $": (
        r"\1 would be an uncompressed tar: name it .tar, or pipe it (imgpull REF - | gzip > \1)"
    ),
    rf"{WORDS}(?:\S* )*([\w.-]{{2,}}(?::\d+)?(?:/[\w.-]+)*:[\w.-]+)(?<!\.tar) $": (
        r"'\1' looks like an image: the TAR to write comes last"
    ),
    rf"{WORDS}(?:\S* )*(\S+\.tar(?:\.\w+)?) \S": (
        r"'\1' looks like an archive: the images come first, and one TAR last"
    ),
}


class Parser(argparse.ArgumentParser):
    """Parses the options. Its errors are UsageErrors, which main() prints."""

    def error(self, message):
        raise UsageError(message.replace("expected one argument", "its value must follow it"))


def make_parser():
    """Return the Parser of OPTIONS."""
    parser = Parser(
        "imgpull",
        "imgpull [OPTION ...] REF [REF ...] TAR",
        DESCRIPTION,
        EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("refs", nargs="*", help=argparse.SUPPRESS)
    for group, rows in OPTIONS.items():
        add = parser.add_argument_group(group).add_argument
        for row, text in rows.items():
            *names, value = row.split()
            kind = {"metavar": value, "type": {"N": int, "S": float}.get(value)}
            if value.startswith("-"):
                names, kind = names + [value], {"action": "store_true"}
            elif "..." in value:
                kind = {"metavar": value[:-3], "action": "append", "default": []}
            add(*names, help=text, **kind)
    parser.set_defaults(jobs=6, timeout=30.0)
    version = f"imgpull version: {__version__} build date: {__build_date__}"
    parser.add_argument("-v", "--version", action="version", version=version)
    return parser


def check_spelling(argv, table):
    """Raise UsageError, with a hint, for an option that is unknown or given twice.

    table: {spelling: argparse.Action}

    What follows an unknown option is not repeated: it may be a secret.
    """
    import difflib

    seen = []
    for word in argv:
        if re.match("-[^0-9]", word):
            typed = word.partition("=")[0]
            name = typed if word.startswith("--") else word[:2]
            hints = [hint for pattern, hint in OPTION_HINTS.items() if re.fullmatch(pattern, typed)]
            # -platform would be -p latform, a password.
            if hints or name not in table or "-" + typed in table:
                near = difflib.get_close_matches(typed, table, 1, 0.7)
                hints += [f"did you mean {each}?" for each in near]
                hints.append("imgpull --help lists the options")
                raise UsageError(f"unknown option {typed if name in table else name}: {hints[0]}")
            action = table[name]
            # argparse would repeat the value, or take -i=true for -i -t rue in old versions.
            if action.nargs == 0 and word != name:
                raise UsageError(f"{name} takes no value")
            if action in seen:
                raise UsageError(f"{name} is given twice")
            seen += [action] * (action.default != [])


def parse_options(argv):
    """Return the options of a command line, checked. Raises UsageError.

    refs (list of str), tar (str) and archives (list of str) are added to them.
    """
    parser = make_parser()
    check_spelling(argv, parser._option_string_actions)
    # argparse leaves over the words behind an option that follows a word.
    options, more = parser.parse_known_args(argv)
    words = vars(options).pop("refs") + more
    line = ""
    for name, value in vars(options).items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None and each is not False:
                line += f"--{name.replace('_', '-')}={printable(each, 9999)} "
    line += "\n" + "".join(word + " " for word in words)
    archives = options.list_tar + options.verify
    options.archives = archives + words if archives else []
    # The Go imgpull takes a TAR behind --manifest as well, and ignores it.
    options.refs = words[:1] if options.manifest else words[:-1]
    options.tar = "".join(words[-1:])
    user, colon, password = (options.user or "").partition(":")
    if colon and not options.password:
        options.user, options.password = user, password
    # User info: what is before an @ behind a scheme, or with a colon before the first slash.
    user_info = r"(?i)[\s=](?:[a-z]+://|(?=[^\s/:@=]+:(?!//)))(\S+)@(?!sha(?:256|512):)"
    for secret in re.findall(user_info, line) + [options.password, options.token]:
        remember_secret(secret)
    for pattern, hint in MISTAKES.items():
        match = re.match(pattern, line)
        if match:
            raise UsageError(match.expand(hint))
    if options.os or options.arch:
        host = str(host_platform()).partition("/")[2]
        options.platform = f"{options.os or 'linux'}/{options.arch or host}"
    return options


def read_password(options):
    """Complete the options with a password from standard input or a prompt. Raises UsageError."""
    if options.password_stdin:
        options.password = sys.stdin.readline().rstrip("\r\n") if sys.stdin else ""
        if not options.password:
            raise UsageError("--password-stdin: there is no password on standard input")
    elif options.user and options.password is None:
        import getpass

        if not (sys.stdin and sys.stdin.isatty()):
            raise UsageError("--user needs --password-stdin, since there is no terminal to ask at")
        options.password = getpass.getpass(f"Password for {printable(options.user)}: ")
    remember_secret(options.password)


def show_manifest(options, settings, reporter):
    """Print the manifest of a reference as JSON, and its digest and media type on stderr."""
    request = parse_request(options.refs[0])
    settings = settings._replace(scheme=request.scheme or settings.scheme)
    registry = Registry(request.reference, settings, reporter)
    manifest = registry.get()
    if options.manifest == "image":
        manifest = resolve(registry, manifest, parse_platforms(options.platform))
    elif not manifest.is_index:
        raise ImgpullError(
            f"{registry.named} is not an index but the manifest of one image: --manifest image "
            "prints it"
        )
    reporter.finish()
    registry.transport.close()
    if not options.quiet:
        print(manifest.descriptor.digest, manifest.descriptor.media_type, file=sys.stderr)
    print(json.dumps(parse_json(manifest.body, "the manifest"), indent=2))


def show_result(result, options, reporter):
    """Print the result of a pull: on standard output, unless the archive went there."""
    out, where = sys.stdout, printable(result.destination)
    if result.destination == "-":
        out, where = sys.stderr, "stdout"
    present, omitted = sum(result.present.values()), sum(result.omitted.values())
    if result.replaced:
        verb = "would replace" if options.dry_run else "replaces"
        reporter.note(f"{verb} {where}, which held {', '.join(result.replaced)}")
    if options.json:
        failures = [
            {"image": each.image, "error": str(each), "exit_code": each.exit_code}
            for each in result.failures
        ]
        images = list(map(image_document, result.images))
        more = {"dry_run": options.dry_run, "present": present, "omitted": omitted}
        print_json(dict(result._asdict(), failures=failures, images=images, **more))
        return
    how = "is up to date" if result.unchanged else f"in {result.seconds:.1f} s"
    for image in result.images:
        if options.quiet:
            print_name(image, out)
        elif not (reporter.listed and out.isatty()):
            platform = image.platform or (options.platform if image.image_id else "artifact")
            text = f"{image.name.partition('@')[0]} {image.digest} {printable(platform)} "
            text += human(image.size)
            if options.dry_run:
                here = sum(result.present.get(layer.digest, 0) for layer in image.layers)
                text += f", {plural(len(image.layers), 'layer')}, {human(here)} already here"
            if image.omitted:
                size = sum(map(result.omitted.get, image.omitted))
                text += f", {plural(len(image.omitted), 'layer')} ({human(size)}) left out"
            if image.referrers:
                text += f", {plural(len(image.referrers), 'referrer')}"
            if not (options.dry_run or out.isatty()):
                text += f" -> {where} {how}"
            say(text, out)
    total = f"{where}: {plural(len(result.images), 'image')}, {human(result.size)}"
    if options.dry_run and not options.quiet:
        here = f"{human(present)} of it already here, {human(omitted)} left out"
        say(f"{total}, {here}, {human(result.free)} free", out)
    elif len(result.images) > 1 or out.isatty():
        reporter.note(f"{total}, {human(result.fetched)} downloaded, {how}")


def run(options, reporter):
    """Do what the options request, and return the exit status. Raises ImgpullError."""
    is_pipe = sys.stdout and not sys.stdout.isatty()
    sys.stdout = sys.stdout or open(os.devnull, "w")
    if options.parsed:
        options.password, options.token = options.password and "***", options.token and "***"
        say(hide(json.dumps(vars(options), indent=2, ensure_ascii=False)))
        return 0
    if options.archives:
        return run_archives(options, reporter)
    read_password(options)
    if options.insecure:
        reporter.warn(
            "certificates are not verified: anyone on the way can read and change what is sent"
        )
    # All fields of Settings are options but one: the namespace is --ns.
    settings = Settings(*(getattr(options, name, options.ns) for name in Settings._fields))
    if options.manifest:
        show_manifest(options, settings, reporter)
        return 0
    if options.tar == "-" and not is_pipe:
        raise UsageError("- needs a pipe or a file as standard output: imgpull REF - | docker load")
    result = pull(
        options.refs + [each for path in getattr(options, "from") for each in read_list(path)],
        options.tar,
        base_images=options.base_image,
        reporter=reporter,
        **{name: getattr(options, name) for name in PULL_OPTIONS},
        **settings._asdict(),
    )
    show_result(result, options, reporter)
    for error in result.failures:
        text = str(error) if error.image in str(error) else f"{error.image}: {error}"
        reporter.line(f"imgpull: error: {printable(text, 1000)}")
    return ImgpullError.exit_code if result.failures else 0


def failure_text(error, reporter):
    """Return (message, exit status) for an exception that ended the program."""
    resume = "; run the same command again to resume" if getattr(error, "kept", False) else ""
    if isinstance(error, ImgpullError):
        return f"error: {error}{resume}", error.exit_code
    if interrupted(error):
        return f"interrupted{resume}", 130
    if isinstance(error, BrokenPipeError):
        # Python would report it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "error: the reader of standard output has closed it", 1
    if isinstance(error, OSError):
        text = f"error: the output cannot be written: {printable(error.strerror or error)}{resume}"
        return text, DiskError.exit_code
    if reporter.debugging:
        raise error
    text = f"error: internal error, {type(error).__name__}: {printable(error)}"
    return f"{text} (--debug prints where)", 1


def main(argv=None):
    """Run the command line, and return the exit status."""
    sys.stderr = sys.stderr or open(os.devnull, "w")  # a service manager may have closed it

    def interrupt(*_):
        # Only once: a second signal would strike in the middle of the clean-up.
        for number in handlers:
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    reporter = Terminal(True, False)
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        options = parse_options(sys.argv[1:] if argv is None else argv)
        reporter = Terminal(options.quiet, options.debug)
        status = run(options, reporter)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)  # Ctrl-C must not interrupt the message
        text, status = failure_text(error, reporter)
        reporter.finish()
        for line in [text] + [f"error: {other}" for other in getattr(error, "others", ())]:
            reporter.line(f"imgpull: {printable(line, 1000)}")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return status


if __name__ == "__main__":
    sys.exit(main())
