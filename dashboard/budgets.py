"""Budget sliders in the user's units, and the answer to them."""

from __future__ import annotations

import numpy as np
import streamlit as st

from ..service.labels import label, number, unit
from .answers import Answer, resolve
from .choosing import choose_point
from .text import plain
from .view import View

_STEPS = 100


def slider_range(view: View, metric: str, split: str) -> tuple[float, float] | None:
    """From the cheapest to the dearest measured point, or ``None`` where there is nothing to choose."""
    found = (view.quality[split] if metric == "quality" else view.prices[metric])[:, 0]
    found = found[np.isfinite(found)]
    if len(found) < 2 or found.min() == found.max():
        return None
    low, high = float(found.min()), float(found.max())
    margin = (high - low) / _STEPS
    return low, high + margin


def budget_sliders(view: View, split: str) -> dict[str, float]:
    """A slider for each price of objectives and constraints, and one for the quality; those at their end ask nothing.

    Returns:
        Metric -> largest value.
    """
    metrics = [name for name in view.price_metrics if name in view.objectives or name in view.constraints]
    asked: dict[str, float] = {}
    shown = [(name, bounds) for name in [*metrics, "quality"] if (bounds := slider_range(view, name, split))]
    if not shown:
        return asked
    with st.expander("Budgets", expanded=True):
        columns = st.columns(min(4, len(shown)))
        for index, (name, (low, high)) in enumerate(shown):
            title = label(view.metric if name == "quality" else name)
            step = 10.0 ** np.floor(np.log10((high - low) / _STEPS))
            top = float(np.ceil(high / step) * step)
            bottom = float(np.floor(low / step) * step)
            start = min(max(view.constraints.get(name, top), bottom), top)
            value = columns[index % len(columns)].slider(
                f"{title} at most",
                bottom,
                top,
                start,
                step=float(step),
                format=f"%.{max(0, int(-np.log10(step)))}f",
                key=f"budget/{view.key}/{name}",
            )
            if value < top:
                asked[name] = float(value)
    return asked


def show_answer(view: View, budgets: dict[str, float], split: str) -> Answer | None:
    """What the budgets lead to, in two lines; ``None`` without budgets."""
    if not budgets:
        return None
    answer = resolve(view, budgets, split)
    left, right = st.columns(2)
    with left:
        if answer.row is None:
            st.warning(plain(f"Measured: {answer.reason or 'no point meets these budgets'}."))
        else:
            quality = view.quality[split][answer.row]
            prices = ", ".join(
                f"{number(view.prices[name][answer.row, 0])} {unit(name)}" for name in view.price_metrics
            )
            st.success(
                plain(
                    f"Best measured within the budgets: {view.label(answer.row)}, {view.metric} {number(quality[0])} "
                    f"[{number(quality[1])}, {number(quality[2])}] {unit(view.metric)}; {prices}."
                )
            )
            st.button("Choose it", key="take_answer", on_click=choose_point, args=(view.ids[answer.row],))
    with right:
        _show_optimum(view, answer)
    return answer


def _show_optimum(view: View, answer: Answer) -> None:
    if answer.choice is None:
        if answer.reason:
            st.caption(plain(answer.reason))
        return
    layers = np.bincount(answer.choice, minlength=len(view.formats))
    formats = ", ".join(f"{some} × {name}" for name, some in zip(view.formats, layers.tolist(), strict=True) if some)
    prices = ", ".join(
        f"{'' if view.price_tables[name].additive else '≈ '}{number(value)} {unit(name)}"
        for name, value in answer.totals.items()
        if name in view.price_metrics
    )
    kind = "Exact optimum of the scores" if answer.proven else "Best found for the scores, not proven"
    held = (
        f"; held back by {', '.join(label(name).split(' (')[0] for name in answer.binding)}" if answer.binding else ""
    )
    known = f"measured as {view.label(answer.measured_row)}" if answer.measured_row is not None else "not measured"
    st.info(plain(f"{kind} ({known}): {formats}; {prices}{held}. Solved in {1000 * answer.seconds:.0f} ms."))
    if answer.measured_row is not None:
        st.button("Choose it", key="take_optimum", on_click=choose_point, args=(view.ids[answer.measured_row],))
