"""OpenTelemetry set up for a process by its own standard variables, unless the application has done it itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock import __version__, tracing
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

#: Where spans go, by the names of https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
EXPORTER = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def setup(service: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send this process's spans where ``OTEL_TRACES_EXPORTER`` (``otlp``, ``console``, ``none``) or an OTLP endpoint
    say; do nothing when neither is set, when ``OTEL_SDK_DISABLED`` is ``true``, or when a provider is set up already.

    *service*: its name where ``OTEL_SERVICE_NAME`` gives none. Raises ``ConfigError`` for an exporter nobody knows and
    where the packages are missing.
    """
    exporter = _chosen(environ)
    if exporter is None or tracing.active():
        return
    try:
        _install(exporter, service)
    except ImportError as error:
        raise ConfigError(f"traces are asked for, but {error.name} is missing: pip install penstock[otel]") from None


def _chosen(environ: Mapping[str, str]) -> str | None:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    asked = environ.get(EXPORTER, "").strip().lower()
    if not asked:
        return "otlp" if any(environ.get(name) for name in ENDPOINTS) else None
    if asked not in ("otlp", "console", "none"):
        raise ConfigError(f"{EXPORTER} is {asked!r}; it is one of otlp, console, none")
    return None if asked == "none" else asked


def _install(exporter: str, service: str) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    names = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(names | {"service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    trace.set_tracer_provider(provider)


def _exporter(exporter: str) -> SpanExporter:
    if exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
