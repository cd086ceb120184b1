"""The image and docker-compose.yml as they are used: built, brought up, scaled, crashed and restarted under load.

Run by ``make test-containers``, as root; takes some minutes.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from penstock.testing.free_ports import free_ports
from tests.containers.daemon import daemon
from tests.containers.load import Account, Load
from tests.containers.stack import SERVICES, Stack
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(1200)]

#: A mail takes its server that long (s): at every stop and crash, some are under way.
_MAIL_TAKES = 0.3

#: Megabytes.
_MOST = 250

#: What penstock-media is built from where the builder reaches no archive; infra/scripts/stand-in-images makes it.
_MEDIA_BASE = "penstock-media-base"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole application, ready, in a copy of the checkout with secrets of its own; nothing of it is left."""
    folder = tmp_path_factory.mktemp("checkout")
    _copy_to(folder)
    name = f"penstock-{secrets.token_hex(3)}"
    management, intake = free_ports(2)
    with daemon() as where:
        variables = {
            **where,
            "COMPOSE_PROJECT_NAME": name,
            "PENSTOCK_IMAGE_TAG": name,
            "PENSTOCK_MANAGEMENT_PORT": str(management),
            "PENSTOCK_INTAKE_PORT": str(intake),
            "PENSTOCK_MAIL_TAKES": str(_MAIL_TAKES),
            "PENSTOCK_LOG_LEVEL": "DEBUG",  # a line for each job that is done, with its attempt
            "PYTHON": sys.executable,
        }
        stack = Stack(folder, variables)
        print(stack.run("infra/scripts/stand-in-images", within=1200).strip())  # noqa: T201
        if stack.run("docker", "image", "ls", "--quiet", _MEDIA_BASE).strip():
            stack = Stack(folder, {**variables, "PENSTOCK_MEDIA_BASE": _MEDIA_BASE})
        try:
            stack.run("infra/scripts/image", "--wheels", within=1200)
            stack.up()
            stack.all_ready(*SERVICES)
            yield stack
        finally:
            stack.compose("--profile", "demo", "down", "--volumes", "--remove-orphans", "--timeout", "40")
            stack.run("docker", "image", "rm", "--force", f"penstock:{name}", f"penstock-media:{name}")


def _copy_to(folder: Path) -> None:
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, timeout=30, check=True
    ).stdout.split(b"\0")
    for name in (os.fsdecode(file) for file in files if file):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _load(stack: Stack, rate: float) -> Load:
    port = int(stack.variables["PENSTOCK_INTAKE_PORT"])
    return Load(port, (stack.folder / "secrets" / "intake_token").read_text().strip(), rate)


def _accounted(stack: Stack, load: Load, within: float = 180) -> Account:
    """The account once every job that was taken has had its effect."""
    assert load.failed is None, load.failed
    found: list[Account] = []

    def all_done() -> bool:
        found[:] = [Account(stack)]
        return not found[0].lost(load.taken)

    wait_until(all_done, within=within)
    return found[0]


def _nothing_dead(stack: Stack) -> bool:
    return not any(n for queue, n in stack.queues().items() if queue.endswith(".dead") or queue == "jobs.unrouted")


def test_the_image_is_small_closed_and_without_a_compiler(stack: Stack) -> None:
    image = stack.inspect(f"penstock:{stack.variables['PENSTOCK_IMAGE_TAG']}")
    size = image["Size"] / 1_000_000
    print(f"the image has {size:.0f} MB")  # noqa: T201
    assert size < _MOST
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image["Config"]["User"])
    assert image["Config"]["Healthcheck"]["Test"][0] == "CMD"
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == "penstock"
    [mailer] = stack.containers("mailer")
    look = "for tool in gcc cc g++ make ffmpeg; do command -v $tool; done; touch /app/x 2>&1; ls -a /app; id -u"
    said = stack.run("docker", "exec", mailer, "sh", "-c", look)
    assert "Read-only file system" in said
    assert not {"gcc", "cc", "g++", "make", "ffmpeg", "secrets", ".git", "tests"} & set(
        said.replace("/", " ").split()
    ), said
    assert said.split()[-1] == "10001"


def test_a_video_is_made_in_the_container_that_has_ffmpeg(stack: Stack) -> None:
    [media] = stack.containers("media")
    pattern = ("-f", "lavfi", "-i", "testsrc=size=64x64:rate=10:duration=0.5", "-f", "matroska", "pipe:1")
    clip = subprocess.run(
        ["docker", "exec", media, "ffmpeg", "-v", "error", *pattern],
        env=os.environ | stack.variables,
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout
    put = ["docker", "run", "--rm", "-i", "--user", "0", "--network", "none", "-v", f"{stack.name}_media_source:/in"]
    image = f"penstock:{stack.variables['PENSTOCK_IMAGE_TAG']}"
    subprocess.run(
        [*put, image, "sh", "-c", "mkdir -p /in/july && cat > /in/july/clip.mkv"],
        env=os.environ | stack.variables,
        input=clip,
        timeout=60,
        check=True,
    )
    token = (stack.folder / "secrets" / "intake_token").read_text().strip()
    answer = httpx2.post(
        f"http://127.0.0.1:{stack.variables['PENSTOCK_INTAKE_PORT']}/v1/jobs/video.transcode",
        json={"folder": "july", "source": "clip.mkv"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=10,
    )
    made = f"var/media/output/july/clip-{answer.json()['id']}.mp4"
    wait_until(
        lambda: "made" in stack.run("docker", "exec", media, "sh", "-c", f"test -s {made} && echo made; true"), 60
    )
    looked = stack.run("docker", "exec", media, "ffprobe", "-v", "error", "-show_entries", "stream=codec_name", made)
    assert "codec_name=h264" in looked


def test_both_generations_of_compose_take_the_file(stack: Stack) -> None:
    tree = stack.run(str(ROOT / "infra/scripts/debian-tree"), "compose", "trixie", "docker-compose", within=900).strip()
    words = ["--profile", "demo", "--profile", "monitoring", "--profile", "tools", "config", "--quiet"]
    for program in ("/usr/bin/docker-compose", f"{tree}/usr/bin/docker-compose"):
        assert stack.run(program, *words).strip() == ""
        print("read by", stack.run(program, "version").split("\n")[0])  # noqa: T201


def test_only_the_doors_for_people_are_open_and_only_to_this_machine(stack: Stack) -> None:
    ours = f"label=com.docker.compose.project={stack.name}"
    published = re.findall(r"(\S+):\d+->(\d+)", stack.run("docker", "ps", "--format", "{{.Ports}}", "--filter", ours))
    assert sorted(published) == [("127.0.0.1", "15672"), ("127.0.0.1", "8000")]


def test_every_job_is_accounted_for_while_mailers_are_scaled_and_one_crashes(stack: Stack) -> None:
    with _load(stack, rate=25) as load:
        wait_until(lambda: len(load.taken) > 50 or load.failed, within=60)
        stack.up(mailer=4)
        stack.all_ready("mailer")
        victim = stack.containers("mailer")[0]
        stack.crash(victim)
        wait_until(lambda: stack.inspect(victim)["RestartCount"] == 1 and stack.ready(victim), within=90)
        stack.up(mailer=1)
        assert len(stack.containers("mailer")) == 1
    account = _accounted(stack, load)
    doubled = len(set(account.mails_doubled()) & load.taken.keys())
    print(f"1 -> 4 -> 1 mailers, one killed: {len(load.taken)} jobs taken, 0 lost, {doubled} mails doubled by the kill")  # noqa: T201
    assert doubled <= 16  # what one mailer had in hand
    assert not account.credits_doubled
    assert _nothing_dead(stack)


def test_a_rolling_restart_loses_nothing_burns_no_attempt_and_keeps_nobody_waiting(stack: Stack) -> None:
    stack.up(mailer=2, credits=2)
    stack.all_ready(*SERVICES)
    workers = [one for service in SERVICES if service != "intake" for one in stack.containers(service)]
    with _load(stack, rate=15) as load:
        wait_until(lambda: len(load.taken) > 30 or load.failed, within=60)
        for worker in workers:
            stack.restart(worker)
    account = _accounted(stack, load)
    longest = account.longest_wait(load.taken)
    print(f"{len(workers)} workers restarted: {len(load.taken)} jobs taken, 0 lost, longest wait {longest:.1f} s")  # noqa: T201
    done = [line for worker in workers for _, line in stack.log(worker) if line.get("job_id") in load.taken]
    assert {line["job_id"] for line in done} >= load.taken.keys()
    assert {line["attempt"] for line in done} == {1}
    assert not set(account.mails_doubled()) & load.taken.keys()
    assert not account.credits_doubled
    assert longest < 10
    assert _nothing_dead(stack)
