"""Runs rendered containers as processes of this machine, as the kubelet would.

In:  a pod, a folder for each of its volumes, and what a name of the cluster is here.
Out: processes with the container's command, arguments and environment, and its probes.

Mounts are folders: every path below a mount path becomes one below the volume's folder. Nothing else is
changed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from chart import Manifest, container

POD_ADDRESS = "10.1.2.3"


@dataclass(frozen=True)
class Kubelet:
    """A pod on this machine. `names`: what a host name of the cluster is here."""

    pod: Manifest
    volumes: Mapping[str, Path]
    names: Mapping[str, str]

    def here(self, each: Manifest, text: str) -> str:
        """Text of a container with its mount paths, and names of the cluster, as they are here."""
        folders = {
            mount["mountPath"]: str(self.volumes[mount["name"]]) for mount in each.get("volumeMounts", [])
        }
        paths = "|".join(re.escape(path) for path in sorted(folders, key=len, reverse=True)) or "(?!)"
        # In one go, for the folders here may hold such a path themselves; and whole names alone.
        text = re.sub(rf"(?<![\w./-])({paths})(?![\w.-])", lambda match: folders[match[1]], text)
        for name, address in self.names.items():
            text = text.replace(f"//{name}:", f"//{address}:")
        return text

    def command(self, each: Manifest) -> list[str]:
        """The command line."""
        return [self.here(each, word) for word in [*each["command"], *each.get("args", [])]]

    def environment(self, each: Manifest) -> dict[str, str]:
        """The image's environment (here: this Python's), and the container's."""
        image = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
        image["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = {variable["name"]: self.value(each, variable) for variable in each.get("env", [])}
        return image | {name: self.here(each, value) for name, value in given.items()}

    def value(self, each: Manifest, variable: Manifest) -> str:
        """Of a variable; of a limit no more than this machine has, as if it were the node."""
        if "value" in variable:
            return str(variable["value"])
        assert variable["valueFrom"]["resourceFieldRef"] == {"resource": "limits.cpu"}, variable
        return str(min(int(each["resources"]["limits"]["cpu"]), os.cpu_count() or 1))

    def run(self, name: str) -> str:
        """Run an init container to its end. Returns what it printed."""
        each = container(self.pod, name)
        done = subprocess.run(
            self.command(each), env=self.environment(each), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, name: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A container as long as the block runs; killed at its end."""
        each = container(self.pod, name)
        with (
            log.open("wb") as output,
            subprocess.Popen(
                self.command(each),
                env=self.environment(each),
                stdout=output,
                stderr=output,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    def probe(self, name: str, kind: str) -> bool:
        """Whether a probe succeeds."""
        each = container(self.pod, name)
        probe = each[f"{kind}Probe"]
        if "exec" in probe:
            command = [self.here(each, word) for word in probe["exec"]["command"]]
            done = subprocess.run(
                command, env=self.environment(each), capture_output=True, timeout=probe["timeoutSeconds"]
            )
            return done.returncode == 0
        port = self.port(name, probe["httpGet"]["port"])
        try:
            # The kubelet asks by the address of the pod.
            answer = httpx.get(
                f"http://127.0.0.1:{port}{probe['httpGet']['path']}",
                headers={"Host": f"{POD_ADDRESS}:{port}"},
                timeout=probe["timeoutSeconds"],
            )
        except httpx.TransportError:
            return False
        return 200 <= answer.status_code < 400

    def port(self, name: str, port_name: str) -> int:
        """A port by its name."""
        ports: dict[str, Any] = {
            port["name"]: port["containerPort"] for port in container(self.pod, name).get("ports", [])
        }
        return int(ports[port_name])
