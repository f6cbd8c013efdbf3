"""What the help of each command shows it doing; every line is a whole command line."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "shell": ("batuta-sql shell", "batuta-sql shell --config /etc/batuta.toml --max-cost 5"),
    "query": (
        'batuta-sql query "SELECT count(*) FROM crm.customer"',
        'batuta-sql query "FROM lake.orders" --format csv',
        'batuta-sql query "FROM lake.orders" -o orders.parquet --yes --max-cost 10',
        'batuta-sql query "FROM lake.orders" --dry-run',
    ),
    "explain": (
        'batuta-sql explain "SELECT sum(total) FROM lake.orders WHERE id >= 5"',
        'batuta-sql explain --labels "SELECT email FROM crm.customer"',
        'batuta-sql explain "FROM lake.orders" --analyze --html plan.html',
    ),
    "estimate": ('batuta-sql estimate "SELECT * FROM wh.sales" --json',),
    "history": ("batuta-sql history --limit 5",),
    "labels": ("batuta-sql labels copy.parquet",),
    "audit": ("batuta-sql audit --json",),
    "tree": ("batuta-sql tree", "batuta-sql tree crm"),
    "describe": ("batuta-sql describe crm.public.customer",),
    "search": ("batuta-sql search email",),
    "seal": ("batuta-sql seal -- python report.py",),
    "doctor": ("batuta-sql doctor",),
    "tune": ("batuta-sql tune crm",),
    "sync": (
        "batuta-sql sync crm.orders --to /lake/orders --format delta",
        "batuta-sql sync crm.orders --to orders --key id --watermark updated_at --full-compare",
        'batuta-sql sync "SELECT id FROM crm.orders" --to ids --dry-run',
        "batuta-sql sync crm.orders --to orders --on-drift force --change note=VARCHAR(20)",
    ),
    "drift": ("batuta-sql drift crm.orders --watch 60",),
    "mcp": ('batuta-sql mcp --allow-label "origin:*"',),
    "serve": (
        "batuta-sql serve",
        "batuta-sql serve --host 0.0.0.0 --tls-certificate server.pem --tls-key server.key",
    ),
    "completion": (
        "batuta-sql completion bash > ~/.local/share/bash-completion/completions/batuta-sql",
    ),
}


def epilogue(command: str) -> str:
    """The end of a command's help."""
    lines = "\n".join(f"  {line}" for line in EXAMPLES[command])
    return f"Examples:\n{lines}"
