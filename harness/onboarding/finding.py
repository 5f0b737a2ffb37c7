"""What a first look finds: facts, what stands in the way, and what is worth knowing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found about one thing.

    Attributes:
        title: What it is, and where.
        facts: Pairs of a short name and a text.
        problems: A sentence for each thing that stands in the way, with the way out.
        notes: A sentence for each thing that is worth knowing.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the text for a terminal."""
        width = max((len(name) for name, _ in self.facts), default=0)
        return [
            self.title,
            *(f"  {name:{width}}  {text}" for name, text in self.facts),
            *(f"  note: {text}" for text in self.notes),
            *(f"  problem: {text}" for text in self.problems),
        ]
