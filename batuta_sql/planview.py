"""What a program sees of a plan: ``cur.plan``, ``con.estimate``, ``cur.metrics``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batuta_sql.execution import FragmentRun
from batuta_sql.guards.labels import ResultLabels
from batuta_sql.labels import ColumnLabels, labelled_schema
from batuta_sql.plan.cardinality import times_off
from batuta_sql.plan.cost import Estimate, total
from batuta_sql.plan.explain import explain
from batuta_sql.plan.fragments import Fragment
from batuta_sql.provenance import ColumnLineage, LabelOrigin, column_lineage
from batuta_sql.query import Query
from batuta_sql.units import dollars, size

if TYPE_CHECKING:
    from batuta_sql.engines.base import Foreseen, ResidualEngine
    from batuta_sql.planpage.page import Shown

_FAR_OFF = 3.0
"""From here on an estimate is called wrong."""

_WORTH_TELLING_SECONDS = 0.05


@dataclass
class PlannedFragment:
    """A fragment of a plan and, after the run, what it took.

    ``rows`` and ``bytes`` (of Arrow memory) delivered, ``seconds`` from start to end.
    """

    _query: Query = field(repr=False)
    _run: FragmentRun = field(repr=False)
    _estimate: Estimate | None = field(default=None, repr=False)

    @property
    def source(self) -> str:
        return self._run.fragment.source

    @property
    def sql(self) -> str:
        return self._run.fragment.sql

    @property
    def name(self) -> str:
        return self._run.fragment.name

    @property
    def rows(self) -> int | None:
        return self._run.rows

    @property
    def bytes(self) -> int | None:
        return self._run.bytes

    @property
    def seconds(self) -> float | None:
        return self._run.seconds

    @property
    def keys(self) -> int | None:
        """How many keys of other fragments' rows went with it; None where it was sent as it is."""
        return self._run.keys

    @property
    def connections(self) -> int:
        """How many connections read it at once."""
        return self._run.connections

    @property
    def estimate(self) -> Estimate:
        """What it was to take; asked for when it is first read, where nobody asked before."""
        if self._estimate is None:
            (self._estimate,) = self._query.cost.estimates([self._run.fragment])
        return self._estimate

    def __repr__(self) -> str:
        return f"<fragment {self.name} of {self.source}: {self.sql}>"


class Plan:
    """The placed plan of a query; ``str()`` is the EXPLAIN tree."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._placed = query.placed
        self._fragments: list[PlannedFragment] = []
        self.planning_seconds = query.planning_seconds

    @classmethod
    def of(cls, query: Query) -> Plan:
        return cls(query)

    @property
    def fragments(self) -> list[PlannedFragment]:
        """What is sent to the sources, the scans of the fallback included once they ran."""
        runs = self._query.runs
        if self._query.expected and not any(r.rows is not None for r in runs):
            foreseen = [FragmentRun(f) for f in self._query.expected]
            return [PlannedFragment(self._query, r) for r in [*runs, *foreseen]]
        while len(self._fragments) < len(runs):
            self._fragments.append(PlannedFragment(self._query, runs[len(self._fragments)]))
        return list(self._fragments)

    @property
    def residual(self) -> str:
        """The statement that runs here."""
        if self._placed is None:
            return self._query.statement.sql
        return self._query.residual_sql()

    @property
    def kept(self) -> tuple[str, ...]:
        """Why parts of the query run here and not at their source."""
        return self._placed.kept if self._placed is not None else ()

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The reasons for which blocks run through the fallback scan."""
        if self._placed is None:
            return (self._query.statement.reason or "the whole statement",)
        return tuple(f.reason or "" for f in self._placed.fallbacks)

    def metrics(self) -> dict[str, Any]:
        """Figures of the run, per fragment and in sum; the estimate beside the actual."""
        estimates = self._query.cost.estimates([f._run.fragment for f in self.fragments])
        fragments = [
            {
                "name": f.name,
                "source": f.source,
                "sql": f.sql,
                "rows": f.rows,
                "bytes": f.bytes,
                "seconds": f.seconds,
                "keys": f.keys,
                "connections": f.connections,
                "began": f._run.began,
                "first": f._run.first,
                "rested": f._run.rested,
                "age": f._run.age,
                "billed": f._run.usage,
                "estimate": estimate,
            }
            for f, estimate in zip(self.fragments, estimates, strict=True)
        ]
        return {
            "planning_seconds": self.planning_seconds,
            "rows": sum(f.rows or 0 for f in self.fragments),
            "bytes": sum(f.bytes or 0 for f in self.fragments),
            "estimate": total(estimates),
            "fragments": fragments,
            "engine": self._engine_metrics(),
        }

    def _engine_metrics(self) -> dict[str, Any] | None:
        """What another engine took of the residual; None where none was asked."""
        run = self._query.residual_run
        return run.metrics() if run is not None else None

    # --- labels --------------------------------------------------------------------------------

    def labels(self, names: Iterable[str]) -> dict[str, ColumnLabels]:
        """The labels of the result's columns, whose names are ``names``."""
        return self._query.provenance.labels_by_name(names)

    def lineage(self, names: Iterable[str]) -> dict[str, ColumnLineage]:
        """The lineage of the result's columns, whose names are ``names``."""
        return self._query.provenance.columns(names)

    def labelled(self, schema: pa.Schema) -> pa.Schema:
        """The result's schema with the labels in its metadata."""
        provenance = self._query.provenance
        if not provenance.is_labelled:
            return schema
        return labelled_schema(schema, provenance.labels_of(len(schema)), provenance.labels.rows)

    @property
    def column_lineage(self) -> list[tuple[str, ColumnLineage]]:
        """The lineage of the result's columns by place; ``*`` as in ``result_labels``."""
        columns = self._query.provenance.lineage.columns
        return [(name, column_lineage(flow)) for name, flow in columns]

    @property
    def result_labels(self) -> ResultLabels:
        """The labels of the result's columns by place, and of its rows.

        Where the whole statement runs here as it is, one column ``*`` stands for them all.
        """
        return self._query.provenance.labels

    @property
    def label_origins(self) -> list[LabelOrigin]:
        """Where each label of each column comes from."""
        return list(self._query.provenance.explained())

    # --- for people ----------------------------------------------------------------------------

    def to_html(self) -> str:
        """The plan as one page that needs nothing else: the tree with what runs where, rows, bytes,
        cost, labels and statements; after a run also what each fragment took, over time.

        Sources are asked for their estimates, as for ``Connection.estimate()``.
        """
        from batuta_sql.planpage.page import Picture, page

        placed = self._placed
        fragments = self.fragments
        estimates = self._query.cost.estimates([f._run.fragment for f in fragments])
        provenance = self._query.provenance
        return page(
            Picture(
                self._query.statement.sql,
                placed.plan if placed is not None else None,
                str(self),
                self.residual,
                total(estimates),
                [self._shown(f, e) for f, e in zip(fragments, estimates, strict=True)],
                provenance.labels_on_the_way(placed.plan) if placed is not None else (),
                self.result_labels,
                self.label_origins,
                self.kept,
            )
        )

    def _shown(self, fragment: PlannedFragment, estimate: Estimate) -> Shown:
        from batuta_sql.planpage.page import Shown
        from batuta_sql.planpage.tree import Delivered

        run, planned = fragment._run, fragment._run.fragment
        rows, bytes_ = planned.rows, planned.bytes
        keyed = self._placed.keyed.get(planned.name) if self._placed is not None else None
        if keyed is not None and rows:
            bytes_ = bytes_ * keyed.rows / rows if bytes_ is not None else None
            rows = keyed.rows
        remarks = tuple(self._annotate(planned))
        delivered = Delivered(planned, rows, bytes_, run.rows, run.bytes)
        return Shown(delivered, estimate, run.seconds, run.began, run.first, remarks)

    def __str__(self) -> str:
        if self._placed is None:
            tables = ", ".join(t.qualified for t in self._query.names.tables.values())
            return (
                f"Fallback: the whole statement runs here over scans of {tables or 'no table'}\n"
                f"  {self._query.statement.reason}"
            )
        return explain(self._placed, self._annotate) + self._elsewhere()

    def _elsewhere(self) -> str:
        """Where the residual ran, or will run, where that need not be here."""
        engine, run = self._query.session.residuals, self._query.residual_run
        if engine.is_here:
            return ""
        if run is None:
            return f"\n\nResidual: {self._foreseen(engine)}"
        if run.placed is None:
            return f"\n\nResidual: here, since {run.why}"
        runs = {r.fragment.name: r for r in (run.execution.runs if run.execution else ())}

        def took(fragment: Fragment) -> list[str]:
            its = runs.get(fragment.name)
            if its is None or its.rows is None:
                return []
            told = f"took {its.rows:,} rows, {its.bytes or 0:,} bytes, {its.seconds or 0:.3f} s"
            return [told]

        sent = f"{', '.join(run.sent)} sent with the statement" if run.sent else ""
        staged = f"{size(run.bytes_staged)} staged" if run.bytes_staged or not sent else ""
        over = ", ".join(p for p in (staged, sent) if p) + self._in_place(run.foreseen)
        return f"\n\nResidual: on {engine.name}, over {over}\n{explain(run.placed, took)}"

    def _foreseen(self, engine: ResidualEngine) -> str:
        foreseen = self._query.foreseen
        if not foreseen.is_likely:
            least = size(engine.from_bytes)
            why = f" ({foreseen.why})" if foreseen.why else ""
            return f"on {engine.name} where {least} or more have arrived{why}"
        price = foreseen.estimate.usd if foreseen.estimate is not None else None
        costs = f", {dollars(price)}" if price is not None else ""
        thought = f", over about {size(foreseen.bytes)}" if foreseen.bytes is not None else ""
        return f"on {engine.name}{thought}{costs}{self._in_place(foreseen)}"

    @staticmethod
    def _in_place(foreseen: Foreseen) -> str:
        names = ", ".join(sorted(foreseen.in_place))
        return f"; it reads the files of {names} where they lie" if names else ""

    def _annotate(self, fragment: Fragment) -> list[str]:
        run = next((f for f in self.fragments if f.name == fragment.name), None)
        if run is None or run.rows is None:
            return []
        if run._run.age is not None:
            return [f"{run.rows:,} rows, kept from {run._run.age:.1f} s ago: nothing was asked"]
        took = f"took {run.rows:,} rows, {run.bytes or 0:,} bytes, {run.seconds or 0:.3f} s"
        sent = f", sent with {run.keys:,} keys" if run.keys is not None else ""
        by = f", by {run.connections} connections" if run.connections > 1 else ""
        rested = run._run.rested
        way = f", gave way for {rested:.1f} s" if rested >= _WORTH_TELLING_SECONDS else ""
        return [took + by + sent + way + self._beside(fragment, run)]

    def _beside(self, fragment: Fragment, run: PlannedFragment) -> str:
        """How far off the expected rows of a fragment were."""
        keyed = self._placed.keyed.get(fragment.name) if self._placed is not None else None
        expected = keyed.rows if keyed is not None and run.keys is not None else fragment.rows
        if expected is None or run.rows is None:
            return ""
        off = times_off(expected, run.rows)
        return f": the rows are off by {off:,.0f} times" if off >= _FAR_OFF else ""


def estimate_of(query: Query) -> Estimate:
    """The estimate of a planned query."""
    engine = query.foreseen.estimate
    besides = [engine] if engine is not None else []
    asked = query.cost.estimates([r.fragment for r in query.runs] + query.expected)
    found = total([*asked, *besides])
    return query.session.costing.judged(found) if found.priced else found
