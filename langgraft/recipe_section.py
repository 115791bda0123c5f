"""What every section of a recipe shares."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Common rules of all sections."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
