"""The order in which the rules run."""

from __future__ import annotations

from collections.abc import Callable

from batuta_sql.plan.relational import Relation
from batuta_sql.plan.rules.count_keys import count_keys
from batuta_sql.plan.rules.decorrelate import decorrelate
from batuta_sql.plan.rules.fold_constants import Evaluate, fold_constants
from batuta_sql.plan.rules.group_joins import group_joins
from batuta_sql.plan.rules.prune_columns import prune_columns
from batuta_sql.plan.rules.push_filters import push_filters
from batuta_sql.plan.rules.push_limits import push_limits
from batuta_sql.plan.rules.push_semi_joins import push_semi_joins


def optimise(
    plan: Relation,
    outputs: tuple[tuple[str, str], ...],
    fresh: Callable[[str], str],
    evaluate: Evaluate,
) -> Relation:
    """The plan after all rewrites that do not depend on where it runs.

    :param outputs: names and symbols of the query's columns.
    :param fresh: makes a symbol that is unique in the query.
    :param evaluate: evaluates constant expressions.
    """
    needed = frozenset(symbol for _, symbol in outputs)
    plan = prune_columns(plan, needed)
    plan = fold_constants(plan, evaluate)
    plan = decorrelate(plan, fresh)
    plan = push_filters(plan)
    plan = group_joins(plan)
    plan = push_semi_joins(plan)
    plan = push_limits(plan)
    plan = count_keys(plan)
    return prune_columns(plan, needed)
