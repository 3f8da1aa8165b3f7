"""Candidates that end the processes of their job: what is known of them, and when they are given up."""

from __future__ import annotations

from ...space import Configuration
from ...store import Events, Store
from .pipe import InHand

DEATH = "death"  # kind of the events that remember them
_MOST_DEATHS = 2  # with a candidate in hand, the last with it alone, until it is given up


def had_deaths(store: Store, job_id: str) -> bool:
    """Whether a process of this job died while it evaluated: then candidates are evaluated alone."""
    return bool(Events(store).after(job_id, count=1, kinds=[DEATH]))


def blame(store: Store, job_id: str, in_hand: InHand, cause: str) -> bool:
    """Remember that a process died with candidates in hand; give one up that was alone and is not the first time.

    What is given up becomes a failure of the candidate that is not final: it may be tried again after a day.

    Args:
        store: leased.
        job_id: whose.
        in_hand: what was evaluated.
        cause: one line.

    Returns:
        Whether a candidate was given up.
    """
    events = Events(store)
    candidates = [Configuration.from_dict(each) for each in in_hand.candidates]
    digests = [each.digest for each in candidates]
    about = {"context": in_hand.context, "split": in_hand.split, "candidates": digests, "cause": cause}
    earlier = [each.content for each in events.after(job_id, kinds=[DEATH])]
    events.add(job_id, [(DEATH, about)])
    if len(candidates) > 1:
        return False
    deaths = 1 + sum(
        digests[0] in each["candidates"] and (each["context"], each["split"]) == (in_hand.context, in_hand.split)
        for each in earlier
    )
    if deaths < _MOST_DEATHS:
        return False
    reason = f"given up after the deaths of {deaths} processes: {cause}"
    store.save_failure(in_hand.context, candidates[0], in_hand.split, reason, final=False, worker="quarantine")
    events.add(job_id, [("log", {"line": f"candidate {digests[0]}: {reason}"})])
    return True
