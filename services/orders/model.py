"""An order as the shop writes it down: one line of CSV or NDJSON, checked."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from penstock_jobs.email import Address
from penstock_jobs.reports import Region


def _slug(region: object) -> object:
    """Make one region of its spellings, so that two of them cannot share a file: ``North  West`` is ``north-west``."""
    return "-".join(region.lower().split()) if isinstance(region, str) else region


_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class Order(BaseModel):
    """One order. *amount* is the price of all pieces together, in the shop's currency."""

    model_config = ConfigDict(frozen=True, str_strip_whitespace=True, coerce_numbers_to_str=True)

    order_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    name: _Text
    email: Address
    region: Annotated[Region, BeforeValidator(_slug)]
    item: _Text
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]
    amount: Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2, allow_inf_nan=False)]


#: The columns of an orders file, in the order in which we write them.
COLUMNS = tuple(Order.model_fields)


def words(error: ValidationError) -> str:
    """What is wrong with an order, a clause for each field, without quoting the customer's data."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, p['loc'])) or 'order'}: {p['msg']}" for p in problems)
