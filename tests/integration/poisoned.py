"""A ``hearback`` whose member stage raises on one member; run by a test as a worker."""

from __future__ import annotations

from stream import cli
from stream.events.structs import Application, ScoredApplication
from stream.partitions import member
from stream.stages.member import MemberStage

POISON = "poison"


class PoisonedStage(MemberStage):
    """Raises what nobody has thought of."""

    def score(
        self, app: Application, partition: int, watermark_ms: int | None
    ) -> ScoredApplication:
        """Score, but for one member."""
        if app.member_id == POISON:
            raise ZeroDivisionError("nobody has thought of this")
        return super().score(app, partition, watermark_ms)


def main() -> None:
    """Be the command line, with the poisoned stage."""
    member.__dict__["MemberStage"] = PoisonedStage
    cli.main()


if __name__ == "__main__":
    main()
