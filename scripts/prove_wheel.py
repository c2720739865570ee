"""Install a wheel where there is no compiler and no development package, and run it: benchmarks/results/wheel.json.

Usage, as root: prove_wheel.py WHEEL [--no-record | --short]. debootstrap makes a minimal Debian with Python and nothing
else. In it, pip installs the wheel with the extra [cpu]; the demo, embed and evaluate run as a user types them. Then
QEMU runs the wheel as a processor of 2008, which has none of the instruction sets that are chosen at run time: it gives
the same bits as the scalar kernels on the real one. It ends with status 1 where something is not as it should be.

With --short, by anybody and without a record: into a fresh environment without extras, and what runs without them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from check_wheel import check, described, read_wheel

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "wheel.json"
RELEASE, MIRROR = "bookworm", "http://deb.debian.org/debian"
PACKAGES = "python3,python3-venv,ca-certificates"
MOUNTED = ("proc", "sys", "dev")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
OLD_PROCESSOR = "Nehalem"  # x86-64-v2: SSE 4.2, which NumPy's own wheels need, and no AVX
FOREIGN = r"""
set +e
for program in cc c++ gcc g++ clang clang++ as ld make cmake; do command -v $program; done
dpkg-query -W -f '${Package}\n' | grep -e -dev$
find / -xdev -path /venv -prune -o -name 'libisal*' -print -o -name 'libdeflate*' -print -o -name Python.h -print
true
"""
BITS = """
import hashlib, sys
from pathlib import Path
from chammi_fast import Preprocess, _core, load_batch, read_image
paths = [*sorted(Path(sys.argv[1]).rglob("*.png"))[:10], *sorted(Path(sys.argv[1]).rglob("*.tif*"))[:20]]
digest = hashlib.sha256()
for path in paths:
    image = read_image(path)
    digest.update(image.tobytes())
    digest.update(load_batch([path], None, Preprocess(size=64)).images.tobytes())
print(len(paths), _core.isa(), digest.hexdigest())
"""


class Room:
    """A minimal Debian in a folder, whose mounts end with each command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(folder), MIRROR]
        finished(subprocess.run(command, capture_output=True, text=True, check=False), "debootstrap")  # noqa: S603
        # How this machine reaches registries: names, certificates, proxies.
        shutil.copy("/etc/resolv.conf", folder / "etc" / "resolv.conf")
        shutil.copy(ssl.get_default_verify_paths().cafile or CERTIFICATES, folder / CERTIFICATES.lstrip("/"))
        self._settings = {name: text for name, text in os.environ.items() if name.lower().endswith("_proxy")}
        self._settings |= {"PATH": "/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        self._settings |= {"PIP_CERT": CERTIFICATES, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.seconds: dict[str, float] = {}

    def run(self, command: str, name: str | None = None, *, isa: str | None = None) -> str:
        """Run a line of the shell in the room; return what it writes. With a name, its seconds are kept."""
        mounts = "; ".join(f"mount --rbind /{there} {shlex.quote(str(self.folder / there))}" for there in MOUNTED)
        inside = f"set -e; {mounts}; exec chroot {shlex.quote(str(self.folder))} sh -ec {shlex.quote(command)}"
        settings = self._settings | ({"CHAMMI_FAST_ISA": isa} if isa else {})
        start = time.perf_counter()
        words = ["unshare", "--mount", "sh", "-c", inside]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=settings)  # noqa: S603
        if name:
            self.seconds[name] = round(time.perf_counter() - start, 1)
        finished(done, command)
        return done.stdout.strip()


def finished(done: subprocess.CompletedProcess[str], what: str) -> None:
    """End where a program failed."""
    if done.returncode:
        sys.exit(f"prove_wheel: {what}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def expect(outcome: bool, what: str) -> None:
    """Say what was checked; end where it is not so."""
    sys.stdout.write(f"{'ok  ' if outcome else 'FAIL'}  {what}\n")
    sys.stdout.flush()
    if not outcome:
        sys.exit(1)


def prove(room: Room, wheel: Path) -> dict[str, Any]:
    """Install and run; return what was seen."""
    foreign = room.run(FOREIGN)
    expect(not foreign, f"no compiler, no development package, no codec library {foreign}")
    shutil.copy(wheel, room.folder / "root")
    room.run("python3 -m venv /venv")
    room.run(f"pip install -q '/root/{wheel.name}[cpu]'", "pip install")
    said = room.run("chammi-fast --version", "chammi-fast --version").splitlines()
    expect(len(said) > 1 and all(word in "".join(said) for word in ("ISA-L", "libdeflate", "zstd")), "; ".join(said))
    room.run("cd /root; chammi-fast demo --out demo", "chammi-fast demo")
    cps, before = (score(room, f"root/demo/results/{name}") for name in ("demo", "demo-untrained"))
    expect(cps > before, f"the demo's CPS {cps:.3f}, untrained {before:.3f}")
    room.run("cd /root; chammi-fast synth --out cells --images 60 --seed 3", "chammi-fast synth")
    room.run("cd /root; chammi-fast embed --model demo --data cells --out features", "chammi-fast embed")
    room.run("cd /root; chammi-fast evaluate --data cells --features features --out results", "chammi-fast evaluate")
    own = score(room, "root/results")
    expect(0 < own <= 1, f"embed and evaluate: CPS {own:.3f} of 60 images of each set")
    foreign = room.run(FOREIGN)
    expect(not foreign, "and none of it was installed by pip")
    return {
        "debian": room.run("cat /etc/debian_version"),
        "version": said,
        "demo_cps": {"trained": cps, "untrained": before},
        "evaluate_cps": own,
        "old_processor": old_processor(room),
        "seconds": room.seconds,
    }


def prove_shortly(folder: Path, wheel: Path) -> None:
    """Install into a fresh environment, make cells and read them."""
    cells = str(folder / "cells")
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    run(str(folder / "venv" / "bin" / "pip"), "install", "-q", str(wheel))
    program = str(folder / "venv" / "bin" / "chammi-fast")
    said = run(program, "--version")
    expect("backends  none" in said, "; ".join(said.splitlines()))
    run(program, "synth", "--out", cells, "--images", "60")
    expect("60 files are there" in run(program, "check", "--data", cells), "cells are made and checked")


def run(*words: str) -> str:
    """Run a program, away from this checkout; return what it writes."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")  # noqa: S603
    finished(done, shlex.join(words))
    return done.stdout.strip()


def score(room: Room, folder: str) -> float:
    """Return the CPS that `evaluate` wrote."""
    return float(json.loads((room.folder / folder / "scores.json").read_text())["cps"])


def old_processor(room: Room) -> dict[str, Any]:
    """Compare the bits on an emulated processor without AVX with those of the scalar kernels on the real one."""
    (room.folder / "root" / "bits.py").write_text(BITS)
    command = "python /root/bits.py /root/cells"
    expected = room.run(command, isa="scalar").split()
    native = room.run(command).split()
    room.run("apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends qemu-user")
    found = room.run(f"qemu-x86_64 -cpu {OLD_PROCESSOR} /venv/bin/python {command.partition(' ')[2]}")
    images, isa, digest = found.split()
    expect(isa == "scalar" and int(images) > 0, f"on a {OLD_PROCESSOR} the core chooses {isa}; here {native[1]}")
    expect(digest == expected[2], f"{images} images decoded and preprocessed there, to the same bits")
    return {"name": OLD_PROCESSOR, "isa": isa, "isa_of_this_machine": native[1], "images": int(images)}


def main() -> None:
    """Check the wheel, prove it, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--no-record", action="store_true", help="leave the recorded result as it is")
    parser.add_argument("--short", action="store_true", help="a fresh environment on this system")
    arguments = parser.parse_args()
    wheel = read_wheel(arguments.wheel)
    expect(not check(wheel), f"{wheel.name} passes check_wheel.py")
    if arguments.short:
        with tempfile.TemporaryDirectory() as folder:
            prove_shortly(Path(folder), arguments.wheel.resolve())
        return
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("prove_wheel: needs to be root, and debootstrap (apt install debootstrap).")
    with tempfile.TemporaryDirectory() as folder:
        record = described(wheel) | prove(Room(Path(folder) / "room"), arguments.wheel)
    if not arguments.no_record:
        RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
