"""Made-up orders: plausible ones, some to addresses that do not exist, and a few lines that are no orders."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from services.demo.sink import REFUSED_DOMAIN

REGIONS = ("north", "south", "east", "west", "overseas", "islands")

#: One order in so many goes to an address that is refused.
REFUSED_EVERY = 50

_COLUMNS = ("order_id", "name", "email", "region", "item", "quantity", "amount")
_NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Niklaus", "Radia", "Tony", "Frances", "Leslie", "Karen")
_ITEMS = {"teapot": 24.90, "cup": 7.10, "kettle": 39.00, "tray": 15.50, "strainer": 4.80, "tin of tea": 12.30}
_NO_ORDERS = (
    "A-x,Nobody,not an address,north,cup,1,7.10",
    "A-y,Nobody,nobody@example.org,north,cup,some,7.10",
    "torn li",
)


def write(path: Path, orders: int, run: str) -> None:
    """Write *orders* orders to *path* as CSV, in turn from every region, and between them the lines that are none.

    The same orders for every *run*, but for the addresses.
    """
    dice = random.Random(7)
    torn = {orders * (n + 1) // 5: f"{line}\n" for n, line in enumerate(_NO_ORDERS)}
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for number in range(orders):
            rows.writerow(_order(number, run, dice))
            file.write(torn.get(number, ""))


def _order(number: int, run: str, dice: random.Random) -> tuple[object, ...]:
    name, item, quantity = dice.choice(_NAMES), dice.choice(list(_ITEMS)), dice.randint(1, 5)
    domain = REFUSED_DOMAIN if number % REFUSED_EVERY == REFUSED_EVERY // 2 else "example.org"
    region = REGIONS[number % len(REGIONS)]
    address = f"{name.lower()}+{run}-{number}@{domain}"
    return f"A-{number:05}", name, address, region, item, quantity, f"{_ITEMS[item] * quantity:.2f}"
