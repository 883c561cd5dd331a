"""Reads the flows of an archive with one engine, and compares types, partitions and sums with what was written.

python engines.py duckdb|pyarrow|spark DIRECTORY EXPECTED_JSON CLAIMANTS_PARQUET CLAIMANTS_JSONL
"""

import datetime
import json
import sys

TEXT = ["client_mac", "client_ip", "public_ip", "peer_ip", "nat", "end_reason", "attribution", "ssid"]
LISTS = ["user", "session_id"]
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


def duckdb(directory, claimants):
    import duckdb as engine

    db = engine.connect()
    db.execute("set timezone = 'UTC'")
    db.execute(f"create view flows as from read_parquet('{directory}/**/*.parquet', hive_partitioning = true)")
    types = {row[0]: row[1] for row in db.execute("describe flows").fetchall()}
    expect(types, {name: "TIMESTAMP WITH TIME ZONE" for name in ["start", "end"]})
    expect(types, {name: "VARCHAR" for name in TEXT})
    expect(types, {name: "BIGINT" for name in COUNTS})
    expect(types, {name: "VARCHAR[]" for name in LISTS})
    row = db.execute(SUMS)
    found = dict(zip([column[0] for column in row.description], map(int, row.fetchone())))
    found["end_after_start_us"] = int(db.execute('select sum(epoch_us("end") - epoch_us(start)) from flows').fetchone()[0])
    first = db.execute("select epoch_us(min(start)) from flows").fetchone()[0]
    found["first"] = (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=first)).isoformat()
    found["partitions"] = [list(row) for row in db.execute(PARTITIONS.replace("varchar(10)", "varchar")).fetchall()]
    found["ssid"] = [row[0] for row in db.execute("select distinct ssid from flows where ssid is not null").fetchall()]
    one = lambda sql: db.execute(sql).fetchone()[0]
    found["claimed"] = one("""select count(*) from flows where list_contains("user", 'x, victim')""")
    found["framed"] = one("""select count(*) from flows where list_contains("user", 'victim')""")
    found["persons"] = one('select count(distinct person) from (select unnest("user") person from flows)')
    found["claimants"] = one('select "user" from flows where len("user") > 1 limit 1')
    rows = db.execute(f"""select flow_id, "user", session_id from read_parquet('{claimants}') order by flow_id""").fetchall()
    return found, [list(row) for row in rows]


def pyarrow(directory, claimants):
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    flows = ds.dataset(directory, format="parquet", partitioning="hive")
    types = {field.name: field.type for field in flows.schema}
    expect(types, {name: "timestamp[us, tz=UTC]" for name in ["start", "end"]})
    expect(types, {name: "string" for name in TEXT})
    expect(types, {name: "int64" for name in COUNTS})
    expect(types, {name: "list<element: string not null>" for name in LISTS})
    table = flows.to_table()
    total = lambda name: pc.sum(table[name]).as_py()
    count = lambda name: pc.count(table[name]).as_py()
    micros = lambda name: pc.sum(table[name].cast("int64")).as_py()
    groups = table.group_by(["site", "date"]).aggregate([("flow_id", "count")]).to_pylist()
    lists = [users for users in table["user"].to_pylist() if users is not None]
    golden = pq.read_table(claimants, columns=["flow_id", "user", "session_id"]).to_pylist()
    found = {
        "claimed": sum("x, victim" in users for users in lists),
        "framed": sum("victim" in users for users in lists),
        "persons": len(pc.unique(pc.list_flatten(table["user"]))),
        "claimants": next(users for users in lists if len(users) > 1),
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
    return found, [[row["flow_id"], row["user"], row["session_id"]] for row in golden]


def spark(directory, claimants):
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
    expect(types, {name: "array<string>" for name in LISTS})
    one = lambda sql: session.sql(sql).collect()[0]
    row = one(SUMS.replace('"', "`"))
    found = {name: int(value) for name, value in row.asDict().items()}
    found["end_after_start_us"] = one("select sum(unix_micros(`end`) - unix_micros(start)) from flows")[0]
    first = one("select unix_micros(min(start)) from flows")[0]
    found["first"] = (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=first)).isoformat()
    rows = session.sql(PARTITIONS.replace('"', "`")).collect()
    found["partitions"] = [list(row) for row in rows]
    found["ssid"] = [row[0] for row in session.sql("select distinct ssid from flows where ssid is not null").collect()]
    found["claimed"] = one("select count(*) from flows where array_contains(user, 'x, victim')")[0]
    found["framed"] = one("select count(*) from flows where array_contains(user, 'victim')")[0]
    found["persons"] = one("select count(distinct person) from (select explode(user) person from flows)")[0]
    found["claimants"] = list(one("select user from flows where size(user) > 1 limit 1")[0])
    rows = session.read.parquet(claimants).select("flow_id", "user", "session_id").orderBy("flow_id").collect()
    plain = lambda value: list(value) if isinstance(value, (list, tuple)) else value
    rows = [[plain(value) for value in row] for row in rows]
    session.stop()
    return found, rows


def main():
    engine, directory, expected, claimants, lines = sys.argv[1:]
    expected = json.loads(expected)
    found, rows = {"duckdb": duckdb, "pyarrow": pyarrow, "spark": spark}[engine](directory, claimants)
    with open(lines) as file:
        golden = [[row["flow_id"], row["user"], row["session_id"]] for row in map(json.loads, file)]
    assert golden and rows == golden, f"{rows!r}, expected {golden!r}"
    for name, value in expected.items():
        assert found[name] == value, f"{name}: {found[name]!r}, expected {value!r}"


main()
