"""Quick charts in the terminal, by plotext."""

from __future__ import annotations

from batuta_sql.errors import ConfigError, NotSupportedError
from batuta_sql.shell.rendering import Rows

MOST_BARS = 40


def chart(found: Rows, width: int, height: int, *, colour: bool) -> str:
    """A result as a chart: the first column against the columns of numbers after it.

    Lines where the first column is a number too, and bars else; of one column, its values in order.

    :raises NotSupportedError: where no column is a number, or there are too many bars.
    :raises ConfigError: where the package is missing.
    """
    try:
        import plotext
    except ImportError:
        raise ConfigError(
            "charts need the package plotext", hint="pip install 'batuta-sql[plot]'"
        ) from None
    series = [i for i, numeric in enumerate(found.numeric) if numeric and i > 0]
    is_alone = len(found.names) == 1 and found.numeric[0]
    if is_alone:
        series = [0]
    if not series or not found.rows:
        raise NotSupportedError(
            "there is nothing to plot", hint="select what names the points, then numbers"
        )
    plotext.clear_figure()
    plotext.theme("clear" if not colour else "pro")
    if is_alone or found.numeric[0]:
        plotext.plot_size(width, height)
        for i in series:
            points = [
                (n if is_alone else float(row[0] or 0), float(row[i] or 0))
                for n, row in enumerate(found.rows, 1)
                if row[i] is not None and row[0] is not None
            ]
            plotext.plot([p[0] for p in points], [p[1] for p in points], label=found.names[i])
        if not is_alone:
            plotext.xlabel(found.names[0])
    else:
        if len(found.rows) > MOST_BARS:
            raise NotSupportedError(
                f"{len(found.rows)} bars do not fit", hint=f"LIMIT {MOST_BARS}, or group the rows"
            )
        names = [_short(row[0]) for row in reversed(found.rows)]
        values = [[float(row[i] or 0) for row in reversed(found.rows)] for i in series]
        labels = [found.names[i] for i in series]
        plotext.plot_size(width, min(height, len(names) * (len(series) + 1) + 4))
        if len(series) == 1:
            plotext.bar(names, values[0], orientation="horizontal", width=0.5)
            plotext.title(labels[0])
        else:
            plotext.multiple_bar(names, values, orientation="horizontal", labels=labels)
    drawn = plotext.build()
    return str(drawn if colour else plotext.uncolorize(drawn)).rstrip("\n") + "\n"


def _short(text: str | None) -> str:
    shown = "NULL" if text is None else text
    return shown if len(shown) <= 24 else shown[:23] + "…"
