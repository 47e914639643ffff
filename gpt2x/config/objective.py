"""What a search optimizes: one number of a job."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """A number that a task computes, and which values of it are good."""

    name: str
    """Its name among the numbers of a job."""
    maximize: bool = False
    """Whether larger values are better; else smaller ones are."""
