"""Reads the flows of an archive with one engine, and compares types, partitions and sums with what was written.

python engines.py duckdb|pyarrow|spark DIRECTORY EXPECTED_JSON
"""

import datetime
import json
import sys

TEXT = ["client_mac", "client_ip", "public_ip", "peer_ip", "nat", "end_reason", "attribution", "user", "session_id", "ssid"]
COUNTS = ["flow_id", "packets_out", "bytes_out", "packets_in", "bytes_in"]
SUMS = """
select count(*) "rows", max(flow_id) flow_id_max, sum(bytes_out) bytes_out, sum(packets_out) packets_out,
       sum(packets_in) packets_in, count("user") with_user, count(public_ip) translated, sum(public_port) public_port_sum,
       sum(case when client_ip = '2001:db8::14' then 1 else 0 end) ipv6
from flows
"""
PARTITIONS = 'select site, cast("date" as varchar(10)) d, count(*) from flows group by 1, 2 order by 1, 2'


def expect(types, wanted):
    for name, kind in wanted.items():
        assert str(types[name]) == kind, f"{name} is {types[name]}, not {kind}"


def duckdb(directory):
    import duckdb as engine

    db = engine.connect()
    db.execute("set timezone = 'UTC'")
    db.execute(f"create view flows as from read_parquet('{directory}/**/*.parquet', hive_partitioning = true)")
    types = {row[0]: row[1] for row in db.execute("describe flows").fetchall()}
    expect(types, {name: "TIMESTAMP WITH TIME ZONE" for name in ["start", "end"]})
    expect(types, {name: "VARCHAR" for name in TEXT})
    expect(types, {name: "BIGINT" for name in COUNTS})
    row = db.execute(SUMS)
    found = dict(zip([column[0] for column in row.description], map(int, row.fetchone())))
    found["end_after_start_us"] = int(db.execute('select sum(epoch_us("end") - epoch_us(start)) from flows').fetchone()[0])
    first = db.execute("select epoch_us(min(start)) from flows").fetchone()[0]
    found["first"] = (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=first)).isoformat()
    found["partitions"] = [list(row) for row in db.execute(PARTITIONS.replace("varchar(10)", "varchar")).fetchall()]
    found["ssid"] = [row[0] for row in db.execute("select distinct ssid from flows where ssid is not null").fetchall()]
    return found


def pyarrow(directory):
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    flows = ds.dataset(directory, format="parquet", partitioning="hive")
    types = {field.name: field.type for field in flows.schema}
    expect(types, {name: "timestamp[us, tz=UTC]" for name in ["start", "end"]})
    expect(types, {name: "string" for name in TEXT})
    expect(types, {name: "int64" for name in COUNTS})
    table = flows.to_table()
    total = lambda name: pc.sum(table[name]).as_py()
    count = lambda name: pc.count(table[name]).as_py()
    micros = lambda name: pc.sum(table[name].cast("int64")).as_py()
    groups = table.group_by(["site", "date"]).aggregate([("flow_id", "count")]).to_pylist()
    return {
        "rows": table.num_rows,
        "flow_id_max": pc.max(table["flow_id"]).as_py(),
        "bytes_out": total("bytes_out"),
        "packets_out": total("packets_out"),
        "packets_in": total("packets_in"),
        "with_user": count("user"),
        "translated": count("public_ip"),
        "public_port_sum": total("public_port"),
        "ipv6": pc.sum(pc.equal(table["client_ip"], "2001:db8::14")).as_py(),
        "end_after_start_us": micros("end") - micros("start"),
        "first": pc.min(table["start"]).as_py().replace(tzinfo=None).isoformat(),
        "partitions": sorted([row["site"], str(row["date"]), row["flow_id_count"]] for row in groups),
        "ssid": [text for text in pc.unique(table["ssid"]).to_pylist() if text is not None],
    }


def spark(directory):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").appName("hotspot")
    options = {
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
    }
    for name, value in options.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    flows = session.read.parquet(directory)
    flows.createOrReplaceTempView("flows")
    types = dict(flows.dtypes)
    expect(types, {name: "timestamp" for name in ["start", "end"]})
    expect(types, {name: "string" for name in TEXT})
    expect(types, {name: "bigint" for name in COUNTS})
    one = lambda sql: session.sql(sql).collect()[0]
    row = one(SUMS.replace('"', "`"))
    found = {name: int(value) for name, value in row.asDict().items()}
    found["end_after_start_us"] = one("select sum(unix_micros(`end`) - unix_micros(start)) from flows")[0]
    first = one("select unix_micros(min(start)) from flows")[0]
    found["first"] = (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=first)).isoformat()
    rows = session.sql(PARTITIONS.replace('"', "`")).collect()
    found["partitions"] = [list(row) for row in rows]
    found["ssid"] = [row[0] for row in session.sql("select distinct ssid from flows where ssid is not null").collect()]
    session.stop()
    return found


def main():
    engine, directory, expected = sys.argv[1:]
    expected = json.loads(expected)
    found = {"duckdb": duckdb, "pyarrow": pyarrow, "spark": spark}[engine](directory)
    for name, value in expected.items():
        assert found[name] == value, f"{name}: {found[name]!r}, expected {value!r}"


main()
