"""Where the programs are, and of which version."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# How each tells its version; `None` where it cannot.
VERSION = {
    "age": ["--version"], "b3sum": ["--version"], "kopia": ["--version"], "minio": ["--version"], "pacharc": ["--version"],
    "pg_dump": ["--version"], "pg_restore": ["--version"], "psql": ["--version"], "rclone": ["version"],
    "restic": ["version"], "s5cmd": ["version"], "sha256sum": ["--version"], "tar": ["--version"],
    "versitygw": ["--version"], "zstd": ["--version"],
}


def search_path(pacharc):
    """The PATH of every contestant: the cache of test tools, pacharc's own folder, one version of PostgreSQL's programs, and
    the caller's."""
    cache = Path(os.environ.get("PACHARC_TOOLS", Path.home() / ".cache/pacharc-tests")) / "bin"
    # Debian's wrappers in /usr/bin choose a version by themselves, and cost a start of Perl.
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=lambda path: int(path.parts[-3]))
    postgresql = [str(path.parent) for path in versions[-1:]]
    return os.pathsep.join([str(Path(pacharc).parent), *postgresql, str(cache), os.environ.get("PATH", "")])


def find(names, path):
    """Which of the programs are here: name to place."""
    return {name: place for name in names if (place := shutil.which(name, path=path))}


def versions(found):
    """What each says of itself, its numbers only; of what Go built, the module's version."""
    said = {}
    for name, place in sorted(found.items()):
        if (module := go_module(place)):
            said[name] = module
            continue
        output = subprocess.run([place, *VERSION[name]], capture_output=True, text=True, check=False).stdout
        number = re.search(r"v?\d+\.\d+[\w.+-]*", output)
        said[name] = number.group() if number else (output.split("\n")[0] or "unknown")
    return said


def go_module(place):
    """The version of the module that a program was built from, where Go is here to tell; servers so built say `dev`."""
    if not shutil.which("go"):
        return None
    told = subprocess.run(["go", "version", "-m", place], capture_output=True, text=True, check=False).stdout
    module = re.search(r"^\tmod\t\S+\t(v\S+)", told, re.MULTILINE)
    return module and module.group(1)


def machine():
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", read("/proc/meminfo"))
    return {
        "cpu": cpu.group(1) if cpu else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20) if memory else None,
        "kernel": os.uname().release,
        "load_before": os.getloadavg()[0],
    }


def read(path):
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def commit():
    """The commit that this tree is at, with a mark if it has been changed."""
    told = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return told.stdout.strip()
