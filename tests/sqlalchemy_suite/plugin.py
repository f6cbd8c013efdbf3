"""Loads SQLAlchemy's pytest plugin for this dialect."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.dialects import registry

for name in ("batuta", "batuta.batuta"):
    registry.register(name, "batuta_sql.sqlalchemy_dialect", "BatutaDialect")
pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
from sqlalchemy.testing.provision import temp_table_keyword_args  # noqa: E402


@temp_table_keyword_args.for_db("batuta")
def _of_a_temporary_table(config: Any, engine: Any) -> dict[str, list[str]]:
    return {"prefixes": ["TEMPORARY"]}
