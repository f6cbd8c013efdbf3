"""``batuta-sql serve``: an Arrow Flight SQL server, for ADBC, JDBC and the tools that speak them.

https://arrow.apache.org/docs/format/FlightSql.html
"""
