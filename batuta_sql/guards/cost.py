"""The cost Andon: whether a query may run, may run if somebody says so, or may not.

Decided on the estimate alone, before anything that bills is sent. Amounts are reached at the limit
itself: a query of $1.00 is asked about from ``warn_usd = 1.0``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from batuta_sql.config import CostSettings
from batuta_sql.errors import CostRefused
from batuta_sql.plan.cost import Estimate
from batuta_sql.units import dollars, duration, size

Confirm = Callable[[Estimate], bool]
"""Asked before a query that costs; True lets it run."""

BUDGET_WARNING = 0.8
"""The share of a monthly budget from which somebody is asked."""

_NARROWER = "read less: fewer columns, a narrower WHERE"


@dataclass(frozen=True)
class Budget:
    """A source's month: the budget and what is spent of it, in US dollars.

    :param spent: None where the history cannot be read, which ``problem`` explains.
    """

    usd: float
    spent: float | None
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is to be done, and why.

    :param source: the source that a refusal is about, where it is one.
    """

    decision: Literal["run", "ask", "refuse"]
    reasons: tuple[str, ...] = ()
    hint: str = ""
    source: str | None = None


@dataclass(frozen=True)
class CostGuard:
    """The limits of one connection, and whom to ask."""

    settings: CostSettings
    confirm: Confirm | None = None

    def judge(self, estimate: Estimate, budgets: Mapping[str, Budget] | None = None) -> Verdict:
        """What the limits say to an estimate; nobody is asked yet."""
        budgets = budgets or {}
        refusal = self._over_limit(estimate) or _over_budget(estimate, budgets)
        if refusal is not None:
            return refusal
        reasons = [*self._warnings(estimate), *_budget_warnings(estimate, budgets)]
        unknown = _unknown(estimate, budgets)
        if unknown and self.settings.on_unknown == "stop":
            hint = f"give the source a price that can be told, or set on_unknown; {_NARROWER}"
            return Verdict("refuse", (f'{unknown}, and on_unknown = "stop"',), hint)
        if unknown and self.settings.on_unknown == "warn":
            reasons.append(unknown)
        return Verdict("ask", tuple(reasons)) if reasons else Verdict("run")

    def authorise(self, estimate: Estimate, budgets: Mapping[str, Budget] | None = None) -> bool:
        """Returns if the query may run; True says that somebody was asked.

        :raises CostRefused: naming source, amount, limit and what to do.
        """
        verdict = self.judge(estimate, budgets)
        why = "; ".join(verdict.reasons)
        match verdict.decision:
            case "refuse":
                raise CostRefused(
                    f"refused, nothing was sent: {why}", source=verdict.source, hint=verdict.hint
                )
            case "ask":
                if self.confirm is None:
                    raise CostRefused(
                        f"nobody was there to say that this may run, nothing was sent: {why}",
                        hint="--yes, or connect(confirm=...) for a program; or raise warn_usd",
                    )
                if not self.confirm(replace(estimate, reasons=verdict.reasons)):
                    raise CostRefused(f"not confirmed, nothing was sent: {why}", hint=_NARROWER)
                return True
        return False

    def _over_limit(self, estimate: Estimate) -> Verdict | None:
        limits = [(self.settings.stop_usd, "stop_usd")]
        if self.settings.max_cost_usd is not None:
            limits.append((self.settings.max_cost_usd, "max_cost_usd"))
        limit, name = min(limits, key=lambda pair: pair[0])
        if len(limits) == 2 and limits[0][0] == limits[1][0]:
            name = "max_cost_usd"
        if estimate.usd is None or estimate.usd < limit:
            return None
        how = "--max-cost USD, max_cost_usd" if name == "max_cost_usd" else "stop_usd"
        return Verdict(
            "refuse",
            (f"{cost_words(estimate)}, and {name} is {dollars(limit)}",),
            f"{_NARROWER}; or raise the limit ({how}); --yes does not lift it",
        )

    def _warnings(self, estimate: Estimate) -> list[str]:
        if estimate.usd is None or estimate.usd < self.settings.warn_usd:
            return []
        return [f"{cost_words(estimate)}, and warn_usd is {dollars(self.settings.warn_usd)}"]


def _usd_by_source(estimate: Estimate) -> dict[str, float]:
    sums: dict[str, float] = {}
    for part in estimate.priced_parts():
        sums[part.source] = sums.get(part.source, 0.0) + (part.usd or 0.0)
    return sums


def _over_budget(estimate: Estimate, budgets: Mapping[str, Budget]) -> Verdict | None:
    for source, usd in _usd_by_source(estimate).items():
        budget = budgets.get(source)
        if budget is None or budget.spent is None or budget.spent + usd <= budget.usd:
            continue
        said = (
            f"the estimated cost of {dollars(usd)} on {source} and the {dollars(budget.spent)}"
            f" spent this month pass its budget_usd of {dollars(budget.usd)}"
        )
        hint = f"raise sources.{source}.pricing.budget_usd, or wait for the next month (UTC)"
        return Verdict("refuse", (said,), hint, source)
    return None


def _budget_warnings(estimate: Estimate, budgets: Mapping[str, Budget]) -> list[str]:
    found: list[str] = []
    for source, usd in _usd_by_source(estimate).items():
        budget = budgets.get(source)
        if budget is None or budget.spent is None:
            continue
        after = budget.spent + usd
        if after >= BUDGET_WARNING * budget.usd:
            found.append(
                f"{dollars(after)} of this month's budget of {dollars(budget.usd)} for {source}"
                f" would be spent ({100 * after / budget.usd:.0f} %)"
            )
    return found


def _unknown(estimate: Estimate, budgets: Mapping[str, Budget]) -> str:
    """What is not known of the price; empty where all is."""
    words: list[str] = []
    if estimate.missing:
        sources = dict.fromkeys(p.source for p in estimate.priced_parts() if p.missing)
        basis = "; ".join(dict.fromkeys(p.basis for p in estimate.priced_parts() if p.missing))
        words.append(
            f"the cost on {', '.join(sources)} is not known"
            f" (missing: {', '.join(estimate.missing)}{f'; {basis}' if basis else ''})"
        )
    words += [
        f"what was spent this month on {source} is not known ({b.problem})"
        for source, b in budgets.items()
        if b.spent is None
    ]
    return " and ".join(words)


# --- words -------------------------------------------------------------------------------------


def cost_words(estimate: Estimate) -> str:
    """The price and what it is for, without a full stop."""
    names = ", ".join(dict.fromkeys(p.source for p in estimate.priced_parts()))
    return f"the estimated cost on {names} is {amount(estimate)}"


def amount(estimate: Estimate) -> str:
    """The price as people read it; one that is not known is never shown as $0."""
    if estimate.usd is None:
        return "not known" if estimate.priced else "no price is known"
    words = f"{dollars(estimate.usd)} ({_certainty(estimate)})"
    return f"at least {words}" if estimate.at_least else words


def _certainty(estimate: Estimate) -> str:
    sure = estimate.cost_confidence
    return "a part is not known" if sure == "unknown" else sure


def question(estimate: Estimate) -> str:
    """What a person is asked; the answer that Enter gives is no."""
    scans = []
    for part in _by_source(estimate):
        if part.bytes_scanned is not None:
            scans.append(f"{size(part.bytes_scanned)} on {part.source}")
        elif part.seconds is not None:
            scans.append(f"for about {duration(part.seconds)} on {part.source}")
        else:
            scans.append(f"an unknown amount on {part.source}")
    sentences = [f"This query will scan {' and '.join(scans)}."]
    cost = amount(estimate)
    sentences.append(
        f"Estimated cost: {cost}." if estimate.usd is not None else "Its cost is not known."
    )
    # The price is in the question already; the rest is not.
    sentences += [r[0].upper() + r[1:] + "." for r in estimate.reasons if "warn_usd" not in r]
    return " ".join(sentences) + " Proceed? [y/N] "


def _by_source(estimate: Estimate) -> list[Estimate]:
    from batuta_sql.plan.cost import total

    groups: dict[str, list[Estimate]] = {}
    for part in estimate.priced_parts():
        groups.setdefault(part.source, []).append(part)
    return [replace(total(parts), source=name) for name, parts in groups.items()]
