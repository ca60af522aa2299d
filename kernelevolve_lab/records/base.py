"""What all records share: frozen, strict about unknown fields, and equal when their content is equal."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """An immutable piece of data; collections in it are tuples or read-only mappings by convention."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
