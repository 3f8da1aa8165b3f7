r"""Multi-fidelity: successive halving, so that most candidates cost a fraction of a whole measurement.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943): n contestants are measured at the first rung of a
ladder of resources :math:`r_0 < r_1 < \dots < r_K` (first samples of a split, epochs of finetuning); the best
:math:`\lceil n / \eta \rceil` go on to the next, and so on. As every rung contains the samples of the one below, only
the missing ones are run. Hyperband (Li et al. 2018, arXiv:1603.06560) runs brackets that begin at different rungs, in
case the first rungs rank badly: the fewer contestants a bracket has, the higher it begins. Here the contestants are
dealt out by their predicted quality: those foreseen as best begin highest.

Nothing is redone when the largest resource grows or contestants are added (Iterative Deepening Hyperband: Brandt et al.
2023, arXiv:2302.00511): what is known of a contestant at any rung, or beyond it, enters its rung for nothing.

Who goes on is judged on the same samples for all: rank is by Pareto layer of (value, costs), then by value. A
contestant that would be left behind though the paired bootstrap cannot tell it from those that cost no more and went
on is in doubt; the best of these go on too, at most half as many again.

A bracket is a coroutine without side effects: it yields requests, is sent a measurement (or ``None``: out) for each,
and returns its standing. ``OnSamples`` (``rungs``) makes rounds of work of one, for ``yield from`` inside the rounds of
a search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from ..errors import InvalidInput
from ..measurement import Measurement, difference
from .pareto import non_dominated

Key = TypeVar("Key", bound=Hashable)

FACTOR = 3
_DOUBT = 0.5  # of those that go on: how many more may


@dataclass(frozen=True)
class Request(Generic[Key]):
    """A contestant to be measured at a rung.

    Attributes:
        contestant: who.
        resource: of the rung.
    """

    contestant: Key
    resource: int


@dataclass(frozen=True)
class Standing(Generic[Key]):
    """How a bracket ended.

    Attributes:
        finalists: who was measured with the whole resource, best first.
        measured: the measurement of every contestant at its highest rung.
        out: who was not measured where it was asked for: failures and lost races.
    """

    finalists: tuple[Key, ...]
    measured: Mapping[Key, Measurement]
    out: tuple[Key, ...] = ()


#: What is known of a contestant at a rung, before anything is asked for.
Known = Callable[[Key, int], "Measurement | None"]
#: What a contestant is worth by its measurement at a rung, lower is better.
Worth = Callable[[Key, Measurement], float]
Bracket = Generator[list[Request[Key]], list[Measurement | None], Standing[Key]]


def survivors(count: int, factor: int = FACTOR) -> int:
    """How many of ``count`` go on without doubt."""
    return math.ceil(count / factor)


def cost(contestants: int, resources: Sequence[int], factor: int = FACTOR) -> float:
    """What halving costs, in measurements with the whole resource, if nobody is in doubt."""
    total, before, left = 0.0, 0, contestants
    for resource in resources:
        total += left * (resource - before)
        before, left = resource, survivors(left, factor)
    return total / resources[-1]


def affordable(budget: float, resources: Sequence[int], factor: int = FACTOR) -> int:
    """With how many contestants halving may begin, for so many whole measurements; at least 1."""
    count = 1
    while cost(count + 1, resources, factor) <= budget:
        count += 1
    return count


def successive_halving(
    contestants: Sequence[Key],
    resources: Sequence[int],
    *,
    costs: Mapping[Key, Sequence[float]] | None = None,
    known: Known[Key] | None = None,
    factor: int = FACTOR,
    keep: int = 1,
    doubt: float = _DOUBT,
    worth: Worth[Key] | None = None,
) -> Bracket[Key]:
    """One bracket; see the module docstring.

    Args:
        contestants: all different.
        resources: of the rungs, ascending.
        costs: prices that count as objectives beside the value; for a constrained problem none.
        known: measurements that need not be asked for again. A contestant that is known at the next rung goes on for
            nothing.
        factor: what share goes on.
        keep: go on at least.
        doubt: how many more may go on because they cannot be told from those that do, as a share of these.
        worth: what decides who goes on, such as an estimate of the whole from the part and a prediction; default: the
            measured value.

    Returns:
        By ``yield from``: the standing.

    Raises:
        InvalidInput: no rungs, rungs that do not ascend, or numbers out of range.
    """
    if not resources or list(resources) != sorted(set(resources)) or factor < 2 or keep < 1 or doubt < 0:
        raise InvalidInput(
            f"resources={list(resources)}, factor={factor}, keep={keep}, doubt={doubt}; give ascending resources, a "
            "factor of at least 2 and at least 1 to keep"
        )
    prices = costs or {}
    best: dict[Key, Measurement] = {}
    out: list[Key] = []
    running, order = list(dict.fromkeys(contestants)), []
    for rung, resource in enumerate(resources):
        here = {each: one for each in running if (one := known(each, resource)) is not None} if known else {}
        requests = [Request(each, resource) for each in running if each not in here]
        found = (yield requests) if requests else []
        for request, measurement in zip(requests, found, strict=True):
            if measurement is None:
                out.append(request.contestant)
            else:
                here[request.contestant] = measurement
        best |= here
        order = ranked({each: here[each] for each in running if each in here}, prices, worth)
        if rung + 1 == len(resources):
            break
        running = promoted(order, here, prices, max(keep, survivors(len(order), factor)), doubt)
        if known:
            ahead = resources[rung + 1]
            running += [each for each in order if each not in running and known(each, ahead) is not None]
    return Standing(tuple(order), best, tuple(out))


def ranked(
    measured: Mapping[Key, Measurement], costs: Mapping[Key, Sequence[float]], worth: Worth[Key] | None = None
) -> list[Key]:
    """Contestants by Pareto layer of (worth, costs), then by worth; worth is the measured value unless given."""
    left, order = list(measured), []
    values = {each: worth(each, found) if worth else found.value for each, found in measured.items()}
    table = {each: [values[each], *costs.get(each, ())] for each in left}
    while left:
        front = non_dominated(np.array([table[each] for each in left]))
        layer = [each for each, first in zip(left, front, strict=True) if first]
        order += sorted(layer, key=lambda each: table[each][0])
        left = [each for each, first in zip(left, front, strict=True) if not first]
    return order


def promoted(
    order: Sequence[Key],
    measured: Mapping[Key, Measurement],
    costs: Mapping[Key, Sequence[float]],
    count: int,
    doubt: float = _DOUBT,
) -> list[Key]:
    """The first ``count``, and the best of those that cannot be told from the ones among these that cost no more."""
    ahead, behind = list(order[:count]), order[count:]
    spare = math.floor(doubt * len(ahead))

    def told_apart(each: Key) -> bool:
        mine = costs.get(each, ())
        rivals = [one for one in ahead if all(a <= b for a, b in zip(costs.get(one, ()), mine, strict=True))]
        return any(difference(measured[each], measured[rival]).worse for rival in rivals)

    more: list[Key] = []
    for each in behind:
        if len(more) == spare:
            break
        if not told_apart(each):
            more.append(each)
    return ahead + more


def hyperband(
    contestants: Sequence[Key],
    predicted: Mapping[Key, float],
    resources: Sequence[int],
    *,
    costs: Mapping[Key, Sequence[float]] | None = None,
    known: Known[Key] | None = None,
    factor: int = FACTOR,
    keep: int = 1,
) -> Bracket[Key]:
    """Brackets that begin at every rung, in step with each other, so that workers always have much to do.

    Args:
        contestants: all different.
        predicted: quality foreseen of each, lower is better; the best begin highest.
        resources: as for ``successive_halving``, and so are the others.
        costs: see there.
        known: see there.
        factor: see there.
        keep: see there, of every bracket.

    Returns:
        By ``yield from``: the standing of all brackets together.
    """
    shares = [factor**-(start) * (len(resources) / (len(resources) - start)) for start in range(len(resources))]
    ordered = sorted(dict.fromkeys(contestants), key=lambda each: predicted[each])
    brackets: list[Bracket[Key]] = []
    taken, left = 0, sum(shares)
    for start in reversed(range(len(resources))):
        count = round((len(ordered) - taken) * shares[start] / left)
        left -= shares[start]
        part = ordered[taken : taken + count] if start else ordered[taken:]
        taken += len(part)
        if part:
            brackets.append(
                successive_halving(part, resources[start:], costs=costs, known=known, factor=factor, keep=keep)
            )
    standings = yield from together(brackets)
    measured = {each: one for standing in standings for each, one in standing.measured.items()}
    finalists = {each: measured[each] for standing in standings for each in standing.finalists}
    out = tuple(each for standing in standings for each in standing.out)
    return Standing(tuple(ranked(finalists, costs or {})), measured, out)


def together(
    brackets: Sequence[Bracket[Key]],
) -> Generator[list[Request[Key]], list[Measurement | None], list[Standing[Key]]]:
    """Run brackets in step: each round holds the requests of all that are still running."""
    standings: dict[int, Standing[Key]] = {}
    asked: dict[int, list[Request[Key]]] = {}
    answers: dict[int, list[Measurement | None] | None] = dict.fromkeys(range(len(brackets)))
    while answers:
        for index, answer in answers.items():
            try:
                asked[index] = next(brackets[index]) if answer is None else brackets[index].send(answer)
            except StopIteration as end:
                standings[index] = end.value
                asked.pop(index, None)
        if not asked:
            break
        found = iter((yield [request for requests in asked.values() for request in requests]))
        answers = {index: [next(found) for _ in requests] for index, requests in asked.items()}
    return [standings[index] for index in range(len(brackets))]
