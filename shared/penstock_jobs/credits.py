"""Credits of users: kinds ``credit.add`` and ``credit.transfer``."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from penstock import JobKind

#: Who has credits. Every language reads so large a number from JSON without loss.
UserId = Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)]

#: A billion at most: nine billion of the largest gifts fit a balance of 64 bits.
Amount = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]

#: What it was for; no control characters, which some databases cannot keep.
Why = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]


class CreditAdd(BaseModel):
    """Give *user* so much more."""

    model_config = ConfigDict(
        frozen=True, json_schema_extra={"examples": [{"user": 123, "amount": 5, "reason": "late parcel"}]}
    )

    user: UserId
    amount: Amount
    reason: Why | None = None


class CreditTransfer(BaseModel):
    """Move so much from one user to another: all of it or, when there is not enough, nothing."""

    model_config = ConfigDict(
        frozen=True,
        validate_by_name=True,
        serialize_by_alias=True,
        json_schema_extra={"examples": [{"from": 123, "to": 124, "amount": 5}]},
    )

    from_: Annotated[UserId, Field(validation_alias="from", serialization_alias="from")]
    to: UserId
    amount: Amount
    reason: Why | None = None

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.from_ == self.to:
            raise PydanticCustomError("transfer", "from and to are the same user")
        return self


CREDIT_ADD = JobKind("credit.add", CreditAdd)
CREDIT_TRANSFER = JobKind("credit.transfer", CreditTransfer)
