"""What one gateway process is told. In: command line arguments. Out: a validated, frozen `ServeSettings`."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from preforch_models.bundle import Precision
from pydantic import Field, model_validator

from preforch_service.flags import Metavar
from preforch_service.keys import Keys
from preforch_service.recommendation.presets import Presets
from preforch_service.requests.ignored import UnknownFields
from preforch_service.requests.limits import RequestLimits
from preforch_service.telemetry.logs import LogFormat

Device = Literal["auto", "cpu", "cuda"]
ControlMode = Literal["escape", "reject"]

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def upstream_name(url: str) -> str:
    """A URL as a label: without scheme and password."""
    return url.partition("://")[2].rpartition("@")[2].rstrip("/")


class ServeSettings(RequestLimits):
    """All settings of a gateway, the limits of a request among them. Times are in seconds.

    Each field is a flag of `preforch serve`, with its description as help: see `flags`. Of `keys` and
    `presets` it is a file.
    """

    path: Annotated[Path, Metavar("RUN|BUNDLE")] = Field(
        description="a run folder; or a bundle, with --upstream or --weights-only; "
        "or either as hf:ORG/NAME@COMMIT"
    )
    upstreams: Annotated[tuple[str, ...], Metavar("URL")] = Field(
        default=(), description="a vLLM server that runs already; repeat"
    )
    policy_card: Path | None = Field(default=None, description="preference.json of the policy at --upstream")
    weights_only: bool = Field(default=False, description="recommend weights, serve no language model")
    policy: Annotated[Path | None, Metavar("FOLDER")] = Field(
        default=None, description="a policy folder, in place of one of the run's"
    )
    policy_name: Annotated[str | None, Metavar("NAME")] = Field(
        default=None, description="a policy of the run; default: the one that its run.json serves"
    )
    served_model_name: str | None = Field(default=None, description="default: the name on the policy card")
    host: str = Field(
        default="127.0.0.1", description="address to listen on; others than loopback want API keys"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes a free one")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="default --port + 1, none where --port is 0; 0 is off"
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="metrics want no key, so open them to Prometheus alone"
    )
    keys: Keys = Field(default=Keys(), description="without data keys, only loopback is served")
    no_auth: bool = Field(default=False, description="serve other machines without API keys")
    cors_origins: Annotated[tuple[str, ...], Metavar("URL")] = Field(
        default=(), description="origin whose pages may call; '*': any; repeat"
    )
    allowed_hosts: Annotated[tuple[str, ...], Metavar("NAME")] = Field(
        default=(), description="Host header to answer, besides loopback; '*': any; repeat"
    )
    device: Device = Field(default="auto", description="where the orchestrator runs")
    orchestrator_threads: int = Field(default=2, ge=1, description="of ONNX Runtime")
    precision: Precision = Field(default="fp32", description="of the orchestrator; int8: faster, less exact")
    orchestrator_deadline: float = Field(
        default=2.0,
        gt=0,
        description="for one prompt, waiting included (n inputs: n times as long); then fallback weights",
    )
    orchestrator_queue: int = Field(
        default=256, ge=1, description="requests that may wait for the orchestrator"
    )
    batch_tokens: int | None = Field(
        default=None, ge=1, description="padded tokens of a batch; default 512 on a CPU, 16384 on CUDA"
    )
    cache_entries: int = Field(
        default=16_384, ge=0, description="texts whose recommendation is kept; 0 is off"
    )
    min_confidence: Annotated[float, Metavar("X")] = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="confidence below which a recommendation is blended towards the fallback weights, by how "
        "far it is below; 0 is off",
    )
    presets: Presets = Field(default={}, description="TOML, [presets] with weights by name")
    control_tokens: ControlMode = Field(
        default="escape", description="what to do with a text that holds control strings"
    )
    unknown_fields: UnknownFields = Field(
        default="ignore",
        description="what to do with fields that change neither prompt nor answer, and with unknown ones; "
        "reject: a 400",
    )
    template_kwargs: Annotated[tuple[str, ...], Metavar("KEY")] = Field(
        default=(), description="of chat_template_kwargs, which users may set; repeat"
    )
    log_format: LogFormat = Field(default="text", description="of the lines on stderr")
    access_log: bool = Field(default=True, description="one line per request")
    otlp_endpoint: Annotated[str | None, Metavar("URL")] = Field(
        default=None, description="OpenTelemetry collector; spans go to its /v1/traces; default none"
    )
    max_running: int = Field(default=256, ge=1, description="generations in the engines at once")
    max_waiting: int = Field(default=512, ge=0, description="generations in line for a slot; more are a 429")
    max_weights: int = Field(default=64, ge=1, description="requests to /weights at once; more are a 429")
    first_byte_timeout: float = Field(
        default=600.0,
        gt=0,
        description="for the engine to begin an answer; one that is not streamed comes whole",
    )
    idle_timeout: float = Field(
        default=120.0, gt=0, description="between two pieces of an answer, on either side"
    )
    sse_keep_alive: float = Field(
        default=0.0,
        ge=0,
        description="of silence in a stream, after which a comment is sent that keeps the connection open; "
        "0 is off",
    )
    health_timeout: float = Field(
        default=10.0, gt=0, description="for a health check of the engine; also: silence that asks for one"
    )
    hang_timeout: float = Field(
        default=600.0, gt=0, description="an engine of our own that hangs longer is restarted"
    )
    drain_timeout: float = Field(default=30.0, ge=0, description="for running answers after SIGTERM")
    tool_call_parser: Annotated[str | None, Metavar("NAME")] = Field(
        default=None, description="of an engine of our own: vLLM's, so that tools can be called"
    )
    reasoning_parser: Annotated[str | None, Metavar("NAME")] = Field(
        default=None, description="of an engine of our own: vLLM's, which tells reasoning from answer"
    )
    engine_args: tuple[str, ...] = Field(default=(), description="to vLLM: --engine-arg=--flag; repeat")
    engine_log: Path | None = Field(
        default=None, description="kept small; default: a temporary file, shown when the engine fails"
    )

    @model_validator(mode="after")
    def _check(self) -> "ServeSettings":
        if self.upstreams and self.weights_only:
            raise ValueError("upstream and weights_only exclude each other")
        if bool(self.upstreams) != (self.policy_card is not None):
            raise ValueError(
                "upstream and policy_card belong together: the gateway cannot see the checkpoint there"
            )
        if self.policy_name is not None and (self.upstreams or self.weights_only or self.policy is not None):
            raise ValueError(
                "policy_name chooses among a run's policies; it excludes policy, upstream and weights_only"
            )
        for name in ("tool_call_parser", "reasoning_parser"):
            if getattr(self, name) is not None and (self.upstreams or self.weights_only):
                raise ValueError(
                    f"{name} is for an engine that the gateway starts, not with upstream or weights_only; "
                    f"`preforch engine-args --{name.replace('_', '-')} NAME` says how to start any other"
                )
        for url in self.upstreams:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"upstream must be an http:// or https:// URL, got {url!r}")
        if len(set(map(upstream_name, self.upstreams))) < len(self.upstreams):
            raise ValueError(f"upstream is given twice: {[upstream_name(url) for url in self.upstreams]}")
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise ValueError(f"otlp_endpoint must be an http:// or https:// URL, got {self.otlp_endpoint!r}")
        if "weights" in self.template_kwargs:
            raise ValueError("template_kwargs cannot hold 'weights': the gateway sets them")
        if self.keys.keys and self.no_auth:
            raise ValueError("API keys and no_auth (--no-auth) exclude each other")
        if not is_loopback(self.host) and not self.keys.keys and not self.no_auth:
            allowed = "only with API keys (--api-keys, PREFORCH_API_KEYS) or no_auth (--no-auth)"
            raise ValueError(f"host {self.host!r} is open to other machines; {allowed}")
        for origin in self.cors_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"cors_origins: an origin is '*' or like https://host:port, got {origin!r}")
        if self.metrics_at > 65535:
            raise ValueError(
                f"port {self.port} leaves no port + 1 for metrics; give metrics_port (--metrics-port)"
            )
        return self

    @property
    def metrics_at(self) -> int:
        """The port of the metrics, 0 for none.

        After `port` by default, so that a second gateway has its own.
        """
        if self.metrics_port is not None:
            return self.metrics_port
        return self.port + 1 if self.port else 0

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the Host header (without port) that are answered."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset(name.lower() for name in (*LOOPBACK_NAMES, host, *self.allowed_hosts))
