"""The best splits of the TPC-H queries over the two databases that a person has found.

Subtrees go whole to their database; of a join over both, the smaller side is read first and its
keys are sent to the other. What only names or dates the result is fetched last, for the rows that
are left. Numbers travel as scaled integers, many keys of few groups as arrays (an element has no
header of a row).

A person knows more than a planner: that foreign keys hold, which side turns out small, and that no
sum here is too large for 64 bits. ``$step.column`` stands for the values of an earlier step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HERE = "here"


@dataclass(frozen=True)
class Step:
    """One statement.

    :param site: the database, or HERE: then it is DuckDB's SQL over the results of earlier steps.
    :param after: earlier steps that a step HERE reads.
    :param decimals: columns that are scaled integers -> their scale.
    :param options: settings of the connection, as for libpq.
    """

    name: str
    site: str
    sql: str
    after: tuple[str, ...] = ()
    decimals: Mapping[str, int] = field(default_factory=dict)
    options: str = ""


@dataclass(frozen=True)
class Split:
    """A query: its steps, and what is made here of their results."""

    answer: str
    steps: tuple[Step, ...]


def split_of(number: int, near: bool) -> Split:
    """The split of a query.

    :param near: over loopback, where moving rows costs little.
    """
    return NEAR[number] if near and number in NEAR else SPLITS[number]


def _sales(name: str, sql: str, **decimals: int) -> Step:
    return Step(name, "sales", sql, decimals=decimals)


def _supply(name: str, sql: str, **decimals: int) -> Step:
    return Step(name, "supply", sql, decimals=decimals)


_VOLUME = "l_extendedprice * (1 - l_discount)"


def _nation(name: str) -> Step:
    return _sales("wanted", f"SELECT n_nationkey FROM nation WHERE n_name = '{name}'")


_PAIRS = Step(
    "pairs",
    HERE,
    "SELECT place, unnest(keys) AS key FROM numbered",
    after=("numbered",),
)


def _numbered(of: str) -> Step:
    return Step(
        "numbered",
        HERE,
        f"SELECT (row_number() OVER ())::SMALLINT AS place, * FROM {of}",
        after=(of,),
    )


# Q7: orders of each nation's customers, and what suppliers of the two nations shipped.
_Q7_ORDERS = _sales(
    "orders_of",
    """
    SELECT n_nationkey, n_name, array_agg(o_orderkey) AS keys
    FROM customer JOIN orders ON c_custkey = o_custkey JOIN nation ON c_nationkey = n_nationkey
    WHERE n_name IN ('FRANCE', 'GERMANY') GROUP BY n_nationkey, n_name
    """,
)
_Q7_SHIPPED = f"""
    SELECT s_nationkey, l_orderkey, l_shipdate, ({_VOLUME} * 10000)::int8 AS volume
    FROM lineitem JOIN supplier ON l_suppkey = s_suppkey
    WHERE l_shipdate BETWEEN date '1995-01-01' AND date '1996-12-31'
"""
_Q7_ANSWER = """
    SELECT s.n_name AS supp_nation, c.n_name AS cust_nation,
        extract(year FROM l_shipdate) AS l_year, sum(volume) AS revenue
    FROM shipped JOIN (SELECT n_nationkey, n_name, unnest(keys) AS key FROM orders_of) AS c
        ON l_orderkey = key
    JOIN orders_of AS s ON s_nationkey = s.n_nationkey AND s.n_name <> c.n_name
    GROUP BY ALL ORDER BY ALL
"""

_Q9_ITEMS = _supply(
    "items",
    """
    SELECT l_orderkey, s_nationkey,
        ((l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity) * 10000)::int8 AS amount
    FROM part JOIN partsupp ON p_partkey = ps_partkey
    JOIN lineitem ON l_partkey = ps_partkey AND l_suppkey = ps_suppkey
    JOIN supplier ON s_suppkey = l_suppkey
    WHERE p_name LIKE '%green%'
    """,
    amount=4,
)
_Q9_YEARS = "SELECT extract(year FROM o_orderdate)::int8 AS o_year, array_agg(o_orderkey) AS keys"
_Q9_NATIONS = _sales("nations", "SELECT n_nationkey, n_name FROM nation")
_Q9_ANSWER = """
    SELECT n_name AS nation, o_year, sum(amount) AS sum_profit
    FROM items JOIN (SELECT o_year, unnest(keys) AS key FROM years) ON l_orderkey = key
    JOIN nations ON s_nationkey = n_nationkey
    GROUP BY n_name, o_year ORDER BY n_name, o_year DESC
"""

_Q16_FROM = """
    FROM partsupp JOIN part ON p_partkey = ps_partkey
    WHERE p_brand <> 'Brand#45' AND p_type NOT LIKE 'MEDIUM POLISHED%'
        AND p_size IN (49, 14, 23, 45, 19, 3, 36, 9)
        AND ps_suppkey NOT IN (
            SELECT s_suppkey FROM supplier WHERE s_comment LIKE '%Customer%Complaints%')
"""
_Q16_ORDER = "ORDER BY supplier_cnt DESC, p_brand, p_type, p_size"

SPLITS: dict[int, Split] = {
    # Grouped by the two factors, too: 396 groups, and hardly anything to multiply.
    1: Split(
        """
        SELECT l_returnflag, l_linestatus, sum(quantity) AS sum_qty, sum(price) AS sum_base_price,
            sum(price * (1 - l_discount)) AS sum_disc_price,
            sum(price * (1 - l_discount) * (1 + l_tax)) AS sum_charge,
            sum(quantity)::DOUBLE / sum(lines)::DOUBLE AS avg_qty,
            sum(price)::DOUBLE / sum(lines)::DOUBLE AS avg_price,
            sum(l_discount * lines)::DOUBLE / sum(lines)::DOUBLE AS avg_disc,
            sum(lines)::BIGINT AS count_order
        FROM sums GROUP BY ALL ORDER BY l_returnflag, l_linestatus
        """,
        (
            _supply(
                "sums",
                """
                SELECT l_returnflag, l_linestatus, (l_discount * 100)::int8 AS l_discount,
                    (l_tax * 100)::int8 AS l_tax, (sum(l_quantity) * 100)::int8 AS quantity,
                    (sum(l_extendedprice) * 100)::int8 AS price, count(*) AS lines
                FROM lineitem WHERE l_shipdate <= date '1998-09-02'
                GROUP BY l_returnflag, l_linestatus, lineitem.l_discount, lineitem.l_tax
                """,
                l_discount=2,
                l_tax=2,
                quantity=2,
                price=2,
            ),
        ),
    ),
    2: Split(
        """
        SELECT s_acctbal::DECIMAL(15,2) AS s_acctbal, s_name, n_name, p_partkey, p_mfgr,
            s_address, s_phone, s_comment
        FROM cheapest JOIN wanted ON s_nationkey = n_nationkey
        ORDER BY s_acctbal DESC, n_name, s_name, p_partkey LIMIT 100
        """,
        (
            _sales(
                "wanted",
                """
                SELECT n_nationkey, n_name FROM nation JOIN region ON n_regionkey = r_regionkey
                WHERE r_name = 'EUROPE'
                """,
            ),
            _supply(
                "cheapest",
                """
                SELECT (s_acctbal * 100)::int8 AS s_acctbal, s_name, s_nationkey, p_partkey,
                    p_mfgr, s_address, s_phone, s_comment
                FROM (
                    SELECT *, min(ps_supplycost) OVER (PARTITION BY p_partkey) AS least
                    FROM part JOIN partsupp ON p_partkey = ps_partkey
                    JOIN supplier ON s_suppkey = ps_suppkey
                    WHERE p_size = 15 AND p_type LIKE '%BRASS'
                        AND s_nationkey = ANY($wanted.n_nationkey)) AS offers
                WHERE ps_supplycost = least
                """,
                s_acctbal=2,
            ),
        ),
    ),
    3: Split(
        """
        SELECT l_orderkey, revenue::DECIMAL(38,4) AS revenue, o_orderdate, o_shippriority
        FROM top JOIN dates ON l_orderkey = o_orderkey
        ORDER BY revenue DESC, o_orderdate LIMIT 10
        """,
        (
            _sales(
                "building",
                """
                SELECT o_orderkey FROM customer JOIN orders ON c_custkey = o_custkey
                WHERE c_mktsegment = 'BUILDING' AND o_orderdate < date '1995-03-15'
                """,
            ),
            _supply(
                "top",
                f"""
                SELECT l_orderkey, (sum({_VOLUME}) * 10000)::int8 AS revenue FROM lineitem
                WHERE l_shipdate > date '1995-03-15' AND l_orderkey = ANY($building.o_orderkey)
                GROUP BY l_orderkey ORDER BY revenue DESC FETCH FIRST 10 ROWS WITH TIES
                """,
                revenue=4,
            ),
            _sales(
                "dates",
                """
                SELECT o_orderkey, o_orderdate, o_shippriority FROM orders
                WHERE o_orderkey = ANY($top.l_orderkey)
                """,
            ),
        ),
    ),
    # One look into the index for each order instead of a scan; counted there.
    4: Split(
        """
        SELECT o_orderpriority, late.orders AS order_count FROM late JOIN numbered USING (place)
        ORDER BY o_orderpriority
        """,
        (
            _sales(
                "by_priority",
                """
                SELECT o_orderpriority, array_agg(o_orderkey) AS keys FROM orders
                WHERE o_orderdate >= date '1993-07-01' AND o_orderdate < date '1993-10-01'
                GROUP BY o_orderpriority
                """,
            ),
            _numbered("by_priority"),
            _PAIRS,
            _supply(
                "late",
                """
                SELECT place, count(*) AS orders
                FROM unnest($pairs.key, $pairs.place) AS p(key, place), LATERAL (
                    SELECT FROM lineitem
                    WHERE l_orderkey = key AND l_commitdate < l_receiptdate LIMIT 1) AS one
                GROUP BY place
                """,
            ),
        ),
    ),
    # The customers' nation is the suppliers': the region is a filter on customers at once.
    5: Split(
        """
        SELECT n_name, sums.revenue::DECIMAL(38,4) AS revenue FROM sums JOIN numbered USING (place)
        ORDER BY revenue DESC
        """,
        (
            _sales(
                "by_nation",
                """
                SELECT n_nationkey, n_name, array_agg(o_orderkey) AS keys
                FROM customer JOIN orders ON c_custkey = o_custkey
                JOIN nation ON c_nationkey = n_nationkey JOIN region ON n_regionkey = r_regionkey
                WHERE r_name = 'ASIA'
                    AND o_orderdate >= date '1994-01-01' AND o_orderdate < date '1995-01-01'
                GROUP BY n_nationkey, n_name
                """,
            ),
            _numbered("by_nation"),
            _PAIRS,
            _supply(
                "sums",
                f"""
                SELECT p.place, (sum(volume) * 10000)::int8 AS revenue
                FROM unnest($pairs.key, $pairs.place) AS p(key, place)
                JOIN unnest($numbered.place, $numbered.n_nationkey) AS n(place, nation)
                    ON p.place = n.place,
                LATERAL (
                    SELECT {_VOLUME} AS volume FROM lineitem JOIN supplier ON l_suppkey = s_suppkey
                    WHERE l_orderkey = key AND s_nationkey = nation OFFSET 0) AS items
                GROUP BY p.place
                """,
                revenue=4,
            ),
        ),
    ),
    6: Split(
        "SELECT revenue::DECIMAL(38,4) AS revenue FROM total",
        (
            _supply(
                "total",
                """
                SELECT (sum(l_extendedprice * l_discount) * 10000)::int8 AS revenue FROM lineitem
                WHERE l_shipdate >= date '1994-01-01' AND l_shipdate < date '1995-01-01'
                    AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24
                """,
                revenue=4,
            ),
        ),
    ),
    7: Split(
        _Q7_ANSWER,
        (
            _Q7_ORDERS,
            Step("flat", HERE, "SELECT unnest(keys) AS key FROM orders_of", after=("orders_of",)),
            _supply(
                "shipped",
                f"{_Q7_SHIPPED} AND s_nationkey = ANY($orders_of.n_nationkey)"
                " AND l_orderkey = ANY($flat.key)",
                volume=4,
            ),
        ),
    ),
    8: Split(
        """
        SELECT extract(year FROM o_orderdate) AS o_year,
            sum(CASE WHEN n_name = 'BRAZIL' THEN volume ELSE 0 END) / sum(volume) AS mkt_share
        FROM items JOIN inside ON l_orderkey = o_orderkey JOIN nations ON s_nationkey = n_nationkey
        GROUP BY o_year ORDER BY o_year
        """,
        (
            _supply(
                "items",
                f"""
                SELECT l_orderkey, s_nationkey, ({_VOLUME} * 10000)::int8 AS volume
                FROM part JOIN lineitem ON p_partkey = l_partkey
                JOIN supplier ON s_suppkey = l_suppkey
                WHERE p_type = 'ECONOMY ANODIZED STEEL'
                """,
                volume=4,
            ),
            _sales(
                "inside",
                """
                SELECT o_orderkey, o_orderdate FROM orders JOIN customer ON o_custkey = c_custkey
                JOIN nation ON c_nationkey = n_nationkey JOIN region ON n_regionkey = r_regionkey
                WHERE r_name = 'AMERICA'
                    AND o_orderdate BETWEEN date '1995-01-01' AND date '1996-12-31'
                    AND o_orderkey = ANY($items.l_orderkey)
                """,
            ),
            _sales("nations", "SELECT n_nationkey, n_name FROM nation"),
        ),
    ),
    # One number for each line instead of the four that make it.
    9: Split(
        _Q9_ANSWER,
        (
            _Q9_ITEMS,
            _Q9_NATIONS,
            _sales(
                "years",
                f"{_Q9_YEARS} FROM orders WHERE o_orderkey = ANY($items.l_orderkey) GROUP BY 1",
            ),
        ),
    ),
    # The customers' long texts only for the twenty that are left.
    10: Split(
        """
        SELECT c_custkey, c_name, revenue::DECIMAL(38,4) AS revenue,
            c_acctbal::DECIMAL(15,2) AS c_acctbal, n_name, c_address, c_phone, c_comment
        FROM top JOIN customers ON custkey = c_custkey ORDER BY revenue DESC LIMIT 20
        """,
        (
            _sales(
                "quarter",
                """
                SELECT o_orderkey, o_custkey FROM orders
                WHERE o_orderdate >= date '1993-10-01' AND o_orderdate < date '1994-01-01'
                """,
            ),
            _supply(
                "top",
                f"""
                SELECT custkey, (sum(volume) * 10000)::int8 AS revenue
                FROM unnest($quarter.o_orderkey, $quarter.o_custkey) AS o(key, custkey), LATERAL (
                    SELECT {_VOLUME} AS volume FROM lineitem
                    WHERE l_orderkey = key AND l_returnflag = 'R' OFFSET 0) AS items
                GROUP BY custkey ORDER BY revenue DESC FETCH FIRST 20 ROWS WITH TIES
                """,
                revenue=4,
            ),
            _sales(
                "customers",
                """
                SELECT c_custkey, c_name, (c_acctbal * 100)::int8 AS c_acctbal, n_name, c_address,
                    c_phone, c_comment
                FROM customer JOIN nation ON c_nationkey = n_nationkey
                WHERE c_custkey = ANY($top.custkey)
                """,
                c_acctbal=2,
            ),
        ),
    ),
    # With the nation's key, all the rest is of one database.
    11: Split(
        "SELECT ps_partkey, value::DECIMAL(38,2) AS value FROM best ORDER BY value DESC",
        (
            _nation("GERMANY"),
            _supply(
                "best",
                """
                WITH parts AS (
                    SELECT ps_partkey, sum(ps_supplycost * ps_availqty) AS value
                    FROM partsupp JOIN supplier ON s_suppkey = ps_suppkey
                    WHERE s_nationkey = ANY($wanted.n_nationkey) GROUP BY ps_partkey)
                SELECT ps_partkey, (value * 100)::int8 AS value FROM parts
                WHERE value > (SELECT sum(value) * 0.0001 FROM parts)
                """,
                value=2,
            ),
        ),
    ),
    12: Split(
        """
        SELECT l_shipmode, sum(high::INTEGER) AS high_line_count,
            sum((NOT high)::INTEGER) AS low_line_count
        FROM (SELECT l_shipmode, unnest(keys) AS key FROM by_mode) AS l
        JOIN (SELECT high, unnest(keys) AS key FROM by_priority) AS o ON l.key = o.key
        GROUP BY l_shipmode ORDER BY l_shipmode
        """,
        (
            _supply(
                "by_mode",
                """
                SELECT l_shipmode, array_agg(l_orderkey) AS keys FROM lineitem
                WHERE l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate
                    AND l_shipdate < l_commitdate
                    AND l_receiptdate >= date '1994-01-01' AND l_receiptdate < date '1995-01-01'
                GROUP BY l_shipmode
                """,
            ),
            Step("flat", HERE, "SELECT unnest(keys) AS key FROM by_mode", after=("by_mode",)),
            _sales(
                "by_priority",
                """
                SELECT o_orderpriority IN ('1-URGENT', '2-HIGH') AS high,
                    array_agg(o_orderkey) AS keys
                FROM orders WHERE o_orderkey = ANY($flat.key) GROUP BY 1
                """,
            ),
        ),
    ),
    13: Split(
        """
        SELECT c_count, custdist FROM counts ORDER BY custdist DESC, c_count DESC
        """,
        (
            _sales(
                "counts",
                """
                SELECT coalesce(c_count, 0) AS c_count, count(*) AS custdist
                FROM customer LEFT JOIN (
                    SELECT o_custkey, count(*) AS c_count FROM orders
                    WHERE o_comment NOT LIKE '%special%requests%' GROUP BY o_custkey) AS o
                ON c_custkey = o_custkey
                GROUP BY 1
                """,
            ),
        ),
    ),
    14: Split(
        """
        SELECT 100.00 * sum(CASE WHEN promo THEN volume ELSE 0 END) / sum(volume) AS promo_revenue
        FROM sums
        """,
        (
            _supply(
                "sums",
                f"""
                SELECT p_type LIKE 'PROMO%' AS promo, (sum({_VOLUME}) * 10000)::int8 AS volume
                FROM lineitem JOIN part ON l_partkey = p_partkey
                WHERE l_shipdate >= date '1995-09-01' AND l_shipdate < date '1995-10-01'
                GROUP BY 1
                """,
                volume=4,
            ),
        ),
    ),
    15: Split(
        """
        SELECT s_suppkey, s_name, s_address, s_phone, total::DECIMAL(38,4) AS total_revenue
        FROM best ORDER BY s_suppkey
        """,
        (
            _supply(
                "best",
                f"""
                WITH sums AS (
                    SELECT l_suppkey, sum({_VOLUME}) AS revenue FROM lineitem
                    WHERE l_shipdate >= date '1996-01-01' AND l_shipdate < date '1996-04-01'
                    GROUP BY l_suppkey)
                SELECT s_suppkey, s_name, s_address, s_phone, (revenue * 10000)::int8 AS total
                FROM sums JOIN supplier ON s_suppkey = l_suppkey
                WHERE revenue = (SELECT max(revenue) FROM sums)
                """,
                total=4,
            ),
        ),
    ),
    16: Split(
        f"SELECT * FROM counts {_Q16_ORDER}",
        (
            _supply(
                "counts",
                f"""
                SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS supplier_cnt
                {_Q16_FROM} GROUP BY p_brand, p_type, p_size
                """,
            ),
        ),
    ),
    # lineitem is read once: the average is a window over the 6,000 rows that are left.
    17: Split(
        "SELECT price::DECIMAL(38,2) / 7.0 AS avg_yearly FROM total",
        (
            _supply(
                "total",
                """
                SELECT (sum(l_extendedprice) * 100)::int8 AS price
                FROM (
                    SELECT l_extendedprice, l_quantity::float8 AS quantity,
                        (sum(l_quantity) OVER part)::float8 / count(*) OVER part AS average
                    FROM lineitem JOIN part ON p_partkey = l_partkey
                    WHERE p_brand = 'Brand#23' AND p_container = 'MED BOX'
                    WINDOW part AS (PARTITION BY l_partkey)) AS lines
                WHERE quantity < 0.2::float8 * average
                """,
                price=2,
            ),
        ),
    ),
    # Grouped in the order of the primary key: nothing to hash, nothing spills.
    18: Split(
        """
        SELECT c_name, c_custkey, o_orderkey, o_orderdate,
            o_totalprice::DECIMAL(15,2) AS o_totalprice,
            quantity::DECIMAL(38,2) AS "sum(l_quantity)"
        FROM large JOIN details ON l_orderkey = o_orderkey
        ORDER BY o_totalprice DESC, o_orderdate LIMIT 100
        """,
        (
            Step(
                "large",
                "supply",
                """
                SELECT l_orderkey, (sum(l_quantity) * 100)::int8 AS quantity FROM lineitem
                GROUP BY l_orderkey HAVING sum(l_quantity) > 300
                """,
                decimals={"quantity": 2},
                options="-c enable_hashagg=off",
            ),
            _sales(
                "details",
                """
                SELECT c_name, c_custkey, o_orderkey, o_orderdate,
                    (o_totalprice * 100)::int8 AS o_totalprice
                FROM orders JOIN customer ON c_custkey = o_custkey
                WHERE o_orderkey = ANY($large.l_orderkey)
                """,
                o_totalprice=2,
            ),
        ),
    ),
    19: Split(
        "SELECT revenue::DECIMAL(38,4) AS revenue FROM total",
        (
            _supply(
                "total",
                f"""
                SELECT (sum({_VOLUME}) * 10000)::int8 AS revenue
                FROM lineitem JOIN part ON p_partkey = l_partkey
                WHERE l_shipmode IN ('AIR', 'AIR REG') AND l_shipinstruct = 'DELIVER IN PERSON'
                    AND (p_brand = 'Brand#12' AND l_quantity BETWEEN 1 AND 11
                        AND p_container IN ('SM CASE', 'SM BOX', 'SM PACK', 'SM PKG')
                        AND p_size BETWEEN 1 AND 5
                    OR p_brand = 'Brand#23' AND l_quantity BETWEEN 10 AND 20
                        AND p_container IN ('MED BAG', 'MED BOX', 'MED PKG', 'MED PACK')
                        AND p_size BETWEEN 1 AND 10
                    OR p_brand = 'Brand#34' AND l_quantity BETWEEN 20 AND 30
                        AND p_container IN ('LG CASE', 'LG BOX', 'LG PACK', 'LG PKG')
                        AND p_size BETWEEN 1 AND 15)
                """,
                revenue=4,
            ),
        ),
    ),
    20: Split(
        "SELECT s_name, s_address FROM found ORDER BY s_name",
        (
            _nation("CANADA"),
            _supply(
                "found",
                """
                WITH shipped AS (
                    SELECT ps_suppkey, ps_availqty, sum(l_quantity) AS quantity
                    FROM part JOIN partsupp ON ps_partkey = p_partkey
                    JOIN supplier ON s_suppkey = ps_suppkey
                    JOIN lineitem ON l_partkey = ps_partkey AND l_suppkey = ps_suppkey
                    WHERE p_name LIKE 'forest%' AND s_nationkey = ANY($wanted.n_nationkey)
                        AND l_shipdate >= date '1994-01-01' AND l_shipdate < date '1995-01-01'
                    GROUP BY ps_partkey, ps_suppkey, ps_availqty)
                SELECT s_name, s_address FROM supplier WHERE s_suppkey IN (
                    SELECT ps_suppkey FROM shipped WHERE ps_availqty > 0.5 * quantity)
                """,
            ),
        ),
    ),
    21: Split(
        """
        SELECT s_name, count(*) AS numwait
        FROM waiting JOIN final ON l_orderkey = o_orderkey
        GROUP BY s_name ORDER BY numwait DESC, s_name LIMIT 100
        """,
        (
            _nation("SAUDI ARABIA"),
            _supply(
                "waiting",
                """
                SELECT s_name, mine.l_orderkey
                FROM supplier JOIN lineitem AS mine ON s_suppkey = mine.l_suppkey
                WHERE s_nationkey = ANY($wanted.n_nationkey)
                    AND mine.l_receiptdate > mine.l_commitdate
                    AND EXISTS (
                        SELECT FROM lineitem AS other WHERE other.l_orderkey = mine.l_orderkey
                            AND other.l_suppkey <> mine.l_suppkey)
                    AND NOT EXISTS (
                        SELECT FROM lineitem AS late WHERE late.l_orderkey = mine.l_orderkey
                            AND late.l_suppkey <> mine.l_suppkey
                            AND late.l_receiptdate > late.l_commitdate)
                """,
            ),
            _sales(
                "final",
                """
                SELECT o_orderkey FROM orders
                WHERE o_orderstatus = 'F' AND o_orderkey = ANY($waiting.l_orderkey)
                """,
            ),
        ),
    ),
    22: Split(
        """
        SELECT cntrycode, numcust, total::DECIMAL(38,2) AS totacctbal FROM sums ORDER BY cntrycode
        """,
        (
            _sales(
                "sums",
                """
                WITH mine AS (
                    SELECT c_custkey, substring(c_phone FROM 1 FOR 2) AS cntrycode, c_acctbal
                    FROM customer WHERE substring(c_phone FROM 1 FOR 2)
                        IN ('13', '31', '23', '29', '30', '18', '17'))
                SELECT cntrycode, count(*) AS numcust, (sum(c_acctbal) * 100)::int8 AS total
                FROM mine
                WHERE c_acctbal::float8 > (
                        SELECT sum(c_acctbal)::float8 / count(*) FROM mine WHERE c_acctbal > 0)
                    AND NOT EXISTS (SELECT FROM orders WHERE o_custkey = c_custkey)
                GROUP BY cntrycode
                """,
                total=2,
            ),
        ),
    ),
}

NEAR: dict[int, Split] = {
    # Both sides at once: keys would save rows, but not the time that one waits for them.
    7: Split(
        _Q7_ANSWER,
        (
            _Q7_ORDERS,
            _supply(
                "shipped",
                f"{_Q7_SHIPPED} AND s_nationkey = ANY($wanted.n_nationkey)",
                volume=4,
            ),
            _sales(
                "wanted", "SELECT n_nationkey FROM nation WHERE n_name IN ('FRANCE', 'GERMANY')"
            ),
        ),
    ),
    9: Split(
        _Q9_ANSWER,
        (_Q9_ITEMS, _Q9_NATIONS, _sales("years", f"{_Q9_YEARS} FROM orders GROUP BY 1")),
    ),
    # Counted here: sorting long texts is slower there than moving them.
    16: Split(
        f"""
        SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS supplier_cnt
        FROM offers GROUP BY p_brand, p_type, p_size {_Q16_ORDER}
        """,
        (_supply("offers", f"SELECT p_brand, p_type, p_size, ps_suppkey {_Q16_FROM}"),),
    ),
}
"""Splits that are better over loopback than those above."""
