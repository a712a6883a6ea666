# `make` lists the targets.

PYTHON  ?= python3
RUFF    ?= ruff
PREFIX  ?= /usr/local
DESTDIR ?=
LIB      = $(PREFIX)/lib/imgpull

.PHONY: help imgpull test test-all demo interop bench lint install uninstall clean

help:  ## list the targets
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '  %-10s %s\n' "$$name" "$$what"; done

imgpull:  ## write bin/imgpull: one executable file with its build date (honors SOURCE_DATE_EPOCH)
	@mkdir -p bin
	@$(PYTHON) -c "$$STAMP" imgpull.py bin/imgpull
	@$(PYTHON) bin/imgpull --version

test:  ## run the tests with python3, or with PYTHON=...
	$(PYTHON) test_imgpull.py

test-all:  ## run the tests with every Python that can be found, from 3.6 on
	@$(PYTHON) -c "$$TEST_ALL"

demo:  ## pull an image from a registry on loopback, and list the archive; needs no network
	@$(PYTHON) test_imgpull.py demo

interop:  ## pull from real registries, load into real runtimes; as root, needs Debian packages (see .ci/run)
	$(PYTHON) .ci/interop.py

bench:  ## compare speed, memory, disk and requests with other tools; needs Debian packages (see .ci/run)
	$(PYTHON) .ci/bench.py

lint:  ## run the linters, and check the format
	@command -v $(RUFF) > /dev/null || { echo "ruff not found: python3 -m pip install ruff, or RUFF=..."; exit 1; }
	$(RUFF) check .
	$(RUFF) format --check imgpull.py .ci/bench.py
	bash -n .ci/run

# Python keeps the compiled form of a module, not of a script: the launcher starts in half the time of bin/imgpull.
# The compiled form is marked as unchecked, so that it stays valid whatever happens to the time of the file.
install: imgpull  ## install the module, compiled, to $(DESTDIR)$(PREFIX)/lib/imgpull, and a launcher to …/bin
	install -d '$(DESTDIR)$(LIB)' '$(DESTDIR)$(PREFIX)/bin'
	install -m 644 bin/imgpull '$(DESTDIR)$(LIB)/imgpull.py'
	@$(PYTHON) -c "$$INSTALL" '$(DESTDIR)$(LIB)/imgpull.py' '$(LIB)/imgpull.py' \
		'$(DESTDIR)$(PREFIX)/bin/imgpull'

uninstall:  ## remove what install wrote
	rm -rf '$(DESTDIR)$(LIB)' '$(DESTDIR)$(PREFIX)/bin/imgpull'

clean:  ## remove everything that was built
	rm -rf bin __pycache__ .ci/__pycache__ .ruff_cache

# Copy argv[1] to argv[2] with the build date. Not with date(1) and sed, which differ between systems.
define STAMP
import os, re, sys, time
source, target = sys.argv[1:]
now = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%02dZ" % (now % 1 * 100)
with open(source, encoding="utf-8") as file:
    text, found = re.subn('(?m)^__build_date__ = ".*"$$', '__build_date__ = "%s"' % stamp, file.read())
if found != 1:
    sys.exit("%s: one line __build_date__ expected, %d found" % (source, found))
with open(target, "w", encoding="utf-8", newline="\n") as file:
    file.write(text)
os.chmod(target, 0o755)
endef
export STAMP

# Compile the module argv[1], to be found under the name argv[2], and write the launcher argv[3].
define INSTALL
import os, py_compile, sys
source, name, launcher = sys.argv[1:]
mode = {"invalidation_mode": py_compile.PycInvalidationMode.UNCHECKED_HASH} if sys.version_info >= (3, 7) else {}
py_compile.compile(source, dfile=name, doraise=True, **mode)
with open(launcher, "w", encoding="utf-8", newline="\n") as file:
    file.write("""#!/usr/bin/env python3
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)  # until main() handles it: Ctrl-C prints no traceback
import os, sys
sys.path[0] = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib", "imgpull")
import imgpull
sys.exit(imgpull.main())
""")
os.chmod(launcher, 0o755)
endef
export INSTALL

# Find interpreters on the PATH and in pyenv; one with several names runs once.
define TEST_ALL
import glob, os, re, shutil, subprocess, sys
places = os.environ["PATH"].split(os.pathsep)
if shutil.which("pyenv"):
    root = subprocess.check_output(["pyenv", "root"], universal_newlines=True).strip()
    places += glob.glob(os.path.join(root, "versions", "*", "bin"))
found = {}
for path in (path for place in places for path in sorted(glob.glob(os.path.join(place, "python3*")))):
    if re.match(r"python3(\.\d+)?$$", os.path.basename(path)):
        question = "import os, sys; print(*sys.version_info[:3], os.path.realpath(sys.executable))"
        asked = subprocess.run([path, "-c", question], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               universal_newlines=True)
        if asked.returncode == 0:  # a pyenv shim without a version behind it is no interpreter
            major, minor, micro, real = asked.stdout.strip().split(" ", 3)
            found[real] = (int(major), int(minor), int(micro))
failed = []
for real, version in sorted(found.items(), key=lambda item: item[1]):
    if version >= (3, 6):
        print("== Python %d.%d.%d, %s" % (version + (real,)), flush=True)
        if subprocess.call([real, "test_imgpull.py"]):
            failed.append(real)
sys.exit("failed with " + ", ".join(failed) if failed else 0)
endef
export TEST_ALL
