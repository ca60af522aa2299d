"""A candidate: one source text in one language, named by the hash of its content."""

import hashlib

from pydantic import model_validator

from kernelevolve_lab.records.base import Record
from kernelevolve_lab.records.case import Scalar


def candidate_id(language: str, source: str) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of language and source."""
    return hashlib.sha256(f"{language}\0{source}".encode()).hexdigest()[:12]


class Candidate(Record):
    """One kernel source. The id is computed; one that is given must agree with the content.

    `parents` are candidate ids (none for a draft, two for a crossover). `template` and `knobs` say which schedule template with which
    values made it. `title` is a short description for people, `notes` the proposer's own words (untrusted text).
    """

    id: str = ""
    language: str
    source: str
    parents: tuple[str, ...] = ()
    proposer: str = "manual"
    title: str = ""
    notes: str = ""
    template: str | None = None
    knobs: dict[str, Scalar] = {}

    @model_validator(mode="before")
    @classmethod
    def _name_by_content(cls, data: dict) -> dict:
        computed = candidate_id(data["language"], data["source"])
        given = data.get("id") or computed
        if given != computed:
            raise ValueError(f"candidate id {given} does not match its content ({computed})")
        return {**data, "id": computed}
