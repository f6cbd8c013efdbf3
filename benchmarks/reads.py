"""What the ConnectorX peer reads for each TPC-H query.

The columns that the query needs of each table, and the filters that are on that table alone; also
those that one sees when reading the query, such as the two nations of Q7. A table that a query
names twice is read once, with what both places have in common.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Read:
    """One table: its columns, its filter, and by which column it is read in partitions.

    Partitions are for tables of which a million rows or so come: for fewer they take longer.
    """

    table: str
    columns: str
    where: str = ""
    partition_on: str | None = None

    @property
    def sql(self) -> str:
        where = f" WHERE {self.where}" if self.where else ""
        return f"SELECT {self.columns} FROM {self.table}{where}"


def _lineitem(columns: str, where: str = "") -> Read:
    return Read("lineitem", f"l_orderkey, {columns}", where, "l_orderkey")


def _orders(columns: str, where: str = "") -> Read:
    return Read("orders", f"o_orderkey, {columns}", where, "o_orderkey")


def _between(column: str, start: str, end: str) -> str:
    return f"{column} >= date '{start}' AND {column} < date '{end}'"


_NATION = Read("nation", "n_nationkey, n_name")
_SUPPLIER = Read("supplier", "s_suppkey, s_nationkey")
_COUNTRY_CODES = "substring(c_phone FROM 1 FOR 2) IN ('13','31','23','29','30','18','17')"


def _region(name: str) -> tuple[Read, Read]:
    return (
        Read("nation", "n_nationkey, n_name, n_regionkey"),
        Read("region", "r_regionkey, r_name", f"r_name = '{name}'"),
    )


READS: dict[int, tuple[Read, ...]] = {
    1: (
        _lineitem(
            "l_returnflag, l_linestatus, l_quantity, l_extendedprice, l_discount, l_tax,"
            " l_shipdate",
            "l_shipdate <= date '1998-09-02'",
        ),
    ),
    2: (
        Read("part", "p_partkey, p_mfgr, p_size, p_type", "p_size = 15 AND p_type LIKE '%BRASS'"),
        Read(
            "supplier", "s_suppkey, s_nationkey, s_acctbal, s_name, s_address, s_phone, s_comment"
        ),
        Read("partsupp", "ps_partkey, ps_suppkey, ps_supplycost", partition_on="ps_partkey"),
        *_region("EUROPE"),
    ),
    3: (
        Read("customer", "c_custkey, c_mktsegment", "c_mktsegment = 'BUILDING'"),
        _orders("o_custkey, o_orderdate, o_shippriority", "o_orderdate < date '1995-03-15'"),
        _lineitem("l_extendedprice, l_discount, l_shipdate", "l_shipdate > date '1995-03-15'"),
    ),
    4: (
        Read(
            "orders",
            "o_orderkey, o_orderdate, o_orderpriority",
            _between("o_orderdate", "1993-07-01", "1993-10-01"),
        ),
        _lineitem("l_commitdate, l_receiptdate", "l_commitdate < l_receiptdate"),
    ),
    5: (
        Read("customer", "c_custkey, c_nationkey"),
        Read(
            "orders",
            "o_orderkey, o_custkey, o_orderdate",
            _between("o_orderdate", "1994-01-01", "1995-01-01"),
        ),
        _lineitem("l_suppkey, l_extendedprice, l_discount"),
        _SUPPLIER,
        *_region("ASIA"),
    ),
    6: (
        Read(
            "lineitem",
            "l_extendedprice, l_discount, l_shipdate, l_quantity",
            _between("l_shipdate", "1994-01-01", "1995-01-01")
            + " AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24",
        ),
    ),
    7: (
        _SUPPLIER,
        _lineitem(
            "l_suppkey, l_extendedprice, l_discount, l_shipdate",
            _between("l_shipdate", "1995-01-01", "1997-01-01"),
        ),
        _orders("o_custkey"),
        Read("customer", "c_custkey, c_nationkey"),
        Read("nation", "n_nationkey, n_name", "n_name IN ('FRANCE', 'GERMANY')"),
    ),
    8: (
        Read("part", "p_partkey, p_type", "p_type = 'ECONOMY ANODIZED STEEL'"),
        _SUPPLIER,
        _lineitem("l_partkey, l_suppkey, l_extendedprice, l_discount"),
        _orders("o_custkey, o_orderdate", _between("o_orderdate", "1995-01-01", "1997-01-01")),
        Read("customer", "c_custkey, c_nationkey"),
        *_region("AMERICA"),
    ),
    9: (
        Read("part", "p_partkey, p_name", "p_name LIKE '%green%'"),
        _SUPPLIER,
        _lineitem("l_partkey, l_suppkey, l_quantity, l_extendedprice, l_discount"),
        Read("partsupp", "ps_partkey, ps_suppkey, ps_supplycost", partition_on="ps_partkey"),
        _orders("o_orderdate"),
        _NATION,
    ),
    10: (
        Read(
            "customer",
            "c_custkey, c_name, c_acctbal, c_phone, c_address, c_comment, c_nationkey",
        ),
        Read(
            "orders",
            "o_orderkey, o_custkey, o_orderdate",
            _between("o_orderdate", "1993-10-01", "1994-01-01"),
        ),
        _lineitem("l_extendedprice, l_discount, l_returnflag", "l_returnflag = 'R'"),
        _NATION,
    ),
    11: (
        Read(
            "partsupp",
            "ps_partkey, ps_suppkey, ps_supplycost, ps_availqty",
            partition_on="ps_partkey",
        ),
        _SUPPLIER,
        Read("nation", "n_nationkey, n_name", "n_name = 'GERMANY'"),
    ),
    12: (
        _orders("o_orderpriority"),
        Read(
            "lineitem",
            "l_orderkey, l_shipmode, l_commitdate, l_receiptdate, l_shipdate",
            "l_shipmode IN ('MAIL', 'SHIP') AND l_commitdate < l_receiptdate"
            " AND l_shipdate < l_commitdate AND "
            + _between("l_receiptdate", "1994-01-01", "1995-01-01"),
        ),
    ),
    13: (
        Read("customer", "c_custkey"),
        # The comment is filtered at the server; the query's own filter has to find one here.
        _orders("o_custkey, '' AS o_comment", "o_comment NOT LIKE '%special%requests%'"),
    ),
    14: (
        Read(
            "lineitem",
            "l_partkey, l_extendedprice, l_discount, l_shipdate",
            _between("l_shipdate", "1995-09-01", "1995-10-01"),
        ),
        Read("part", "p_partkey, p_type"),
    ),
    15: (
        Read(
            "lineitem",
            "l_suppkey, l_extendedprice, l_discount, l_shipdate",
            _between("l_shipdate", "1996-01-01", "1996-04-01"),
        ),
        Read("supplier", "s_suppkey, s_name, s_address, s_phone"),
    ),
    16: (
        Read("partsupp", "ps_partkey, ps_suppkey", partition_on="ps_partkey"),
        Read(
            "part",
            "p_partkey, p_brand, p_type, p_size",
            "p_brand <> 'Brand#45' AND p_type NOT LIKE 'MEDIUM POLISHED%'"
            " AND p_size IN (49, 14, 23, 45, 19, 3, 36, 9)",
        ),
        Read("supplier", "s_suppkey, s_comment", "s_comment LIKE '%Customer%Complaints%'"),
    ),
    17: (
        _lineitem("l_partkey, l_quantity, l_extendedprice"),
        Read(
            "part",
            "p_partkey, p_brand, p_container",
            "p_brand = 'Brand#23' AND p_container = 'MED BOX'",
        ),
    ),
    18: (
        Read("customer", "c_custkey, c_name"),
        _orders("o_custkey, o_orderdate, o_totalprice"),
        _lineitem("l_quantity"),
    ),
    19: (
        Read(
            "lineitem",
            "l_partkey, l_extendedprice, l_discount, l_quantity, l_shipmode, l_shipinstruct",
            "l_shipmode IN ('AIR', 'AIR REG') AND l_shipinstruct = 'DELIVER IN PERSON'"
            " AND l_quantity BETWEEN 1 AND 30",
        ),
        Read(
            "part",
            "p_partkey, p_brand, p_container, p_size",
            "p_brand IN ('Brand#12', 'Brand#23', 'Brand#34') AND p_size BETWEEN 1 AND 15",
        ),
    ),
    20: (
        Read("supplier", "s_suppkey, s_name, s_address, s_nationkey"),
        Read("nation", "n_nationkey, n_name", "n_name = 'CANADA'"),
        Read("partsupp", "ps_partkey, ps_suppkey, ps_availqty", partition_on="ps_partkey"),
        Read("part", "p_partkey, p_name", "p_name LIKE 'forest%'"),
        _lineitem(
            "l_partkey, l_suppkey, l_quantity, l_shipdate",
            _between("l_shipdate", "1994-01-01", "1995-01-01"),
        ),
    ),
    21: (
        Read("supplier", "s_suppkey, s_name, s_nationkey"),
        _lineitem("l_suppkey, l_commitdate, l_receiptdate"),
        _orders("o_orderstatus", "o_orderstatus = 'F'"),
        Read("nation", "n_nationkey, n_name", "n_name = 'SAUDI ARABIA'"),
    ),
    22: (
        Read("customer", "c_custkey, c_phone, c_acctbal", _COUNTRY_CODES),
        Read("orders", "o_custkey"),
    ),
}
