"""What the HTTP door costs: the intake beside a bare FastAPI route that validates the same body and publishes nothing.

``python -m tests.bench.web`` (it takes ``wrk``). The targets are 0.6 of the bare route's requests per second, and a p50
of 5 ms and a p99 of 25 ms at half the intake's top rate. Both are served by one process of uvicorn, asked in turn.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from fastapi import FastAPI

from penstock.applying import apply
from penstock.clock import new_job_id
from penstock.testing.broker_node import PrivateBroker
from penstock.testing.free_ports import free_ports
from penstock.topology.reading import parse_spec
from penstock_jobs import SendEmail
from tests.support.intake import WELCOME, head, intake_process

TOPOLOGY = "queues: {email: [email.*]}"
ROUNDS = 3
SECONDS = 5
CONNECTIONS = 16

bare = FastAPI()


@bare.post("/v1/jobs/email.send", status_code=202)
async def take(args: SendEmail) -> dict[str, str]:
    """What any service would write."""
    return {"id": new_job_id(), "kind": args.template}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name, PrivateBroker(Path(name) / "node") as info:
        asyncio.run(apply(info.amqp_url, parse_spec(TOPOLOGY)))
        script = Path(name) / "post.lua"
        script.write_text(_script())
        limits = {"INTAKE_RATE": "1000000", "INTAKE_BURST": "1000000"}
        with (
            intake_process(info.amqp_url, Path(name), INTAKE_PORT=str(port := free_ports(1)[0]), **limits),
            _bare() as other,
        ):
            print(f"RabbitMQ {info.version}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # noqa: T201
            rates = [(_rate(port, script), _rate(other, script)) for _ in range(ROUNDS)]
            top, plain = (statistics.median(found) for found in zip(*rates, strict=True))
            print(f"intake {top:,.0f}/s, bare route {plain:,.0f}/s: {top / plain:.2f}")  # noqa: T201
            p50, p99 = asyncio.run(_paced(port, top / 2))
            print(f"at {top / 2:,.0f}/s: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")  # noqa: T201


def _script() -> str:
    body = orjson.dumps(WELCOME).decode()
    return f"""wrk.method = "POST"\nwrk.body = [[{body}]]\nwrk.headers["Content-Type"] = "application/json"\n"""


def _rate(port: int, script: Path) -> float:
    """Requests answered per second; none may be refused."""
    url = f"http://127.0.0.1:{port}/v1/jobs/email.send"
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script), url]
    said = subprocess.run(words, capture_output=True, timeout=120, check=True).stdout.decode()
    assert "Non-2xx" not in said, said
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found, said
    return float(found[1])


async def _paced(port: int, rate: float) -> tuple[float, float]:
    """p50 and p99 of requests that are begun at *rate*, whatever became of those before: from when each was due."""
    count, took = int(rate * SECONDS), list[float]()
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    body = orjson.dumps(WELCOME)
    headers = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
    request, began = head("POST", "/v1/jobs/email.send", headers) + body, time.perf_counter()

    async def ask(due: float) -> None:
        reader, writer = await free.get()
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer)
        assert length
        await reader.readexactly(int(length[1]))
        took.append(time.perf_counter() - due)
        assert answer.startswith(b"HTTP/1.1 202"), answer
        free.put_nowait((reader, writer))

    async with asyncio.TaskGroup() as asking:
        for number in range(count):
            due = began + number / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            asking.create_task(ask(due))
    quantiles = statistics.quantiles(took, n=100)
    return quantiles[49], quantiles[98]


@contextmanager
def _bare() -> Iterator[int]:
    [port] = free_ports(1)
    words = ["-m", "uvicorn", "tests.bench.web:bare", "--port", str(port), "--no-access-log", "--log-level", "warning"]
    process = subprocess.Popen([sys.executable, *words])
    try:
        asyncio.run(_listening(port))
        yield port
    finally:
        process.kill()
        process.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(40):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


if __name__ == "__main__":
    main()
