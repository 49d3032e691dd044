"""A federation on one machine: a coordinator and eight nodes, each a process of its own, over TLS.  `make federation` runs it.

Every step is a command that somebody types: the coordinator's operator, the IT of a partner, its data steward, a researcher.
docs/tutorial-federation.md tells the same story.  On real machines only the addresses differ.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ahh_federated.lab.synthetic import write_partners

STUDY = Path(__file__).parents[1] / "child-overweight.toml"
COLUMNS = "sex,birth_weight,mother_origin,deprived,maternal_bmi,smoked,breastfed,bmi_2y,bmi_6y,recorded"
EXAMPLE = "hospital-zas"  # the partner to look at
AHH = [sys.executable, "-m", "ahh_federated"]


class Script:
    """Runs `ahh` commands in a folder, prints each, and ends every process it started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.served = folder, list[subprocess.Popen[bytes]]()
        self.environment = {**os.environ, "AHH_CONFIG": str(folder / "researcher"), "OMP_NUM_THREADS": "1"}

    def ahh(self, command: str, *, quiet: bool = False) -> None:
        print(f"$ ahh {command}", flush=True)
        output = subprocess.DEVNULL if quiet else None
        subprocess.run([*AHH, *shlex.split(command)], cwd=self.folder, env=self.environment, check=True, stdout=output)

    def serve(self, command: str, log: str) -> None:
        print(f"$ ahh {command}", flush=True)
        with (self.folder / log).open("wb") as file:
            process = subprocess.Popen([*AHH, *shlex.split(command)], cwd=self.folder, env=self.environment, stderr=file)
        self.served.append(process)

    def until(self, log: str, words: str) -> None:
        """Until a served process has said something."""
        while words not in (self.folder / log).read_text(errors="replace"):
            for process in self.served:
                if process.poll() is not None:
                    raise SystemExit(f"{process.args} ended: {(self.folder / log).read_text(errors='replace')}")
            time.sleep(0.05)

    def stop(self) -> None:
        for process in self.served:
            process.terminate()
        for process in self.served:
            process.wait()


def tell(story: str) -> None:
    print(f"\n# {story}", flush=True)


def main(out: Path, children: int, port: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    names = sorted(write_partners(out / "partners", children=children, seed=2026))
    shutil.copy(STUDY, out)
    script = Script(out.resolve())
    try:
        play(script, names, port)
    finally:
        script.stop()


def play(script: Script, names: list[str], port: int) -> None:
    tell("The coordinator's operator makes a coordinator and lets it serve")
    script.ahh(f"coordinator init --home coordinator --name antwerp --address localhost:{port} --listen 127.0.0.1:{port}")
    script.serve("coordinator serve --home coordinator", "coordinator.log")
    script.until("coordinator.log", "listens on")

    tell("and sends each partner an invitation, and the researcher an access file")
    for name in names:
        script.ahh(f"coordinator invite {name} --home coordinator --out {name}.invitation")
    script.ahh("coordinator welcome an-peeters --home coordinator --out an-peeters.access")

    tell("The IT of each partner makes a node, joins, connects its table, and lets the node serve")
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda name: equip(script, name), names))
    script.ahh("coordinator roster --home coordinator")

    tell("The researcher hands the study in")
    script.ahh("login an-peeters.access")
    script.ahh("submit child-overweight.toml")

    tell("Each data steward reads what would leave, and decides")
    for name in names:
        script.until(f"{name}.log", "is pending")
    script.ahh(f"node inspect child-overweight --home nodes/{EXAMPLE}")
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda name: script.ahh(f"node approve child-overweight --home nodes/{name}", quiet=True), names))

    tell("The researcher follows the study, and fetches the answers")
    script.ahh("wait child-overweight")
    script.ahh("fetch child-overweight --out .")
    script.ahh("replay .")
    script.ahh(f"node ledger show --home nodes/{EXAMPLE}")


def equip(script: Script, name: str) -> None:
    script.ahh(f"node init --home nodes/{name} --name {name}", quiet=True)
    script.ahh(f"node join {name}.invitation --home nodes/{name}", quiet=True)
    script.ahh(f"node connect partners/{name}.csv --allow {COLUMNS} --home nodes/{name}", quiet=True)
    script.serve(f"node serve --home nodes/{name}", f"{name}.log")
    script.until(f"{name}.log", "connected")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("federation-output"))
    parser.add_argument("--children", type=int, default=20_000)
    parser.add_argument("--port", type=int, default=8443)
    chosen = parser.parse_args()
    main(chosen.out, chosen.children, chosen.port)
    print(f"\nLook at {chosen.out / 'report.html'}")
