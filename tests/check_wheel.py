"""Check a wheel where nothing else is: ``python tests/check_wheel.py dist/*.whl`` (``make wheel`` does).

What only an installed wheel shows: that twistd finds the plugins, that no ``twisted`` package of ours hides
Twisted's own, and that the dependencies are declared.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

PLUGIN = "twisted/plugins/ces_plugins.py"
NEEDED = (PLUGIN, "ces/__init__.py", "ces/py.typed")


def wheel_faults(wheel: Path) -> list[str]:
    """What is wrong with the names of the files in a wheel, one sentence each."""
    names = zipfile.ZipFile(wheel).namelist()
    faults = [f"{name} is missing" for name in NEEDED if name not in names]
    for name in names:
        top = name.split("/")[0]
        if top == "twisted" and name != PLUGIN:
            faults.append(f"{name} would overwrite or hide a part of Twisted")
        elif top not in ("ces", "twisted") and not top.endswith(".dist-info"):
            faults.append(f"{name} is no part of what is installed")
    return faults


def installed_faults(wheel: Path, directory: Path) -> list[str]:
    """What is wrong with a wheel once it is installed into a new environment in `directory`."""
    venv.create(directory / "venv", with_pip=True)
    commands = directory / "venv" / "bin"

    def run(*command: str) -> str:
        done = subprocess.run(
            [str(commands / command[0]), *command[1:]],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return done.stdout if done.returncode == 0 else f"failed: {done.stdout}{done.stderr}"

    wanted = [
        (("python", "-m", "pip", "install", "--quiet", str(wheel)), ""),
        (("python", "-m", "pip", "check"), "No broken requirements found"),
        (("twistd", "--help"), "ces-hub"),
        (("twistd", "--help"), "ces-repeater"),
        (("twistd", "ces-hub", "--check"), "ces-hub: the configuration is valid"),
        (("twistd", "ces-repeater", "--check"), "ces-repeater: the configuration is valid"),
        (("python", "-c", "import ces.hub.service, ces.repeater.service, ces.messenger"), ""),
        (("ces", "--help"), "demo"),
    ]
    faults = []
    for command, sign in wanted:
        output = run(*command)
        if output.startswith("failed: ") or sign not in output:
            faults.append(f"`{' '.join(command)}` does not show {sign!r}:\n{output}")
    return faults


def main() -> None:
    """Check the one wheel that the command line names; exit 1 with what is wrong."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: check_wheel.py WHEEL (exactly one)")
    wheel = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory:
        faults = wheel_faults(wheel) or installed_faults(wheel, Path(directory))
    if faults:
        raise SystemExit(f"{wheel.name}: " + "\n".join(faults))
    print(f"{wheel.name}: installs into a fresh environment, and twistd shows both plugins")


if __name__ == "__main__":
    main()
