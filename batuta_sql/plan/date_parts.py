"""The ways in which SQL asks for a part of a date, for translators that push some of them."""

from __future__ import annotations

import abc

from batuta_sql.plan.relational import Expr
from batuta_sql.plan.translate import Environment, Typed


class DatePartMethods(abc.ABC):
    """``extract(part FROM x)``, ``year(x)``, ``month(x)``, ``day(x)`` as one question.

    Mixed into the translators of sources that push parts of dates; others have no such methods.
    """

    @abc.abstractmethod
    def _date_part(self, part: str, subject: Expr, environment: Environment) -> Typed:
        """The part called ``part``, in upper case, of ``subject``.

        :raises NotPushable: for a part or a type that is not proved equal.
        """

    def _extract(self, node: Expr, environment: Environment) -> Typed:
        return self._date_part(node.name.upper(), node.expression, environment)

    def _year(self, node: Expr, environment: Environment) -> Typed:
        return self._date_part("YEAR", node.this, environment)

    def _month(self, node: Expr, environment: Environment) -> Typed:
        return self._date_part("MONTH", node.this, environment)

    def _day(self, node: Expr, environment: Environment) -> Typed:
        return self._date_part("DAY", node.this, environment)
