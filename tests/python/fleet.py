"""Asks the flows of a fleet with Spark, as docs/scale.md shows it. Prints what it found as JSON.

Usage: fleet.py ARCHIVE
"""

import json
import sys

from pyspark.sql import SparkSession

OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
}


def main():
    builder = SparkSession.builder.master("local[1]").appName("fleet")
    for name, value in OPTIONS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sql(f"CREATE TEMPORARY VIEW flows USING parquet OPTIONS (path '{sys.argv[1]}/flows')")
    rows = lambda query: [list(row) for row in spark.sql(query).collect()]
    of_a_site = "SELECT count(*) FROM flows WHERE site = 'hall-2' AND date = '2026-11-23'"
    plan = spark.sql("EXPLAIN " + of_a_site).collect()[0][0]
    print(
        json.dumps(
            {
                "by_gateway": rows("SELECT site, gateway, count(*) FROM flows GROUP BY 1, 2 ORDER BY 1, 2"),
                "user_by_site": rows(
                    """SELECT site, count(*), sum(bytes_out + bytes_in) FROM flows
                       WHERE array_contains(`user`, '0900000007') AND date BETWEEN '2026-11-23' AND '2026-11-24' GROUP BY 1 ORDER BY 1"""
                ),
                "who": rows(
                    """SELECT site, gateway, `user` FROM flows WHERE date = '2026-11-23'
                       AND public_ip = '203.0.113.7' AND public_port = 17003
                       AND start <= timestamp'2026-11-23 00:35:34' AND `end` >= timestamp'2026-11-23 00:35:30' ORDER BY 2"""
                ),
                "pruned": "PartitionFilters: [isnotnull(site" in plan and "hall-2" in plan,
            }
        )
    )
    spark.stop()


main()
