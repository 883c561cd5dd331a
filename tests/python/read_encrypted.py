"""Reads an encrypted segment with its unwrapped key by pyarrow and by DuckDB. Usage: read_encrypted.py SEGMENT KEY_HEX"""

import base64
import json
import sys

import duckdb
import pyarrow.parquet as parquet
import pyarrow.parquet.encryption as encryption

path, key = sys.argv[1], bytes.fromhex(sys.argv[2])
table = parquet.read_table(
    path, decryption_properties=encryption.create_decryption_properties(key), partitioning=None
)
arrow = [table.num_rows, sorted({user for users in table["user"].to_pylist() for user in users or []}), sum(table["bytes_out"].to_pylist())]
connection = duckdb.connect()
connection.execute(f"PRAGMA add_parquet_key('segment', '{base64.b64encode(key).decode()}')")
source = f"read_parquet('{path}', encryption_config = {{footer_key: 'segment'}}, hive_partitioning = false)"
try:
    rows = connection.execute(
        f'SELECT count(*), sum(bytes_out)::BIGINT, list_sort(list_distinct(flatten(list("user")))) FROM {source}'
    ).fetchone()
    duck = [rows[0], rows[2], rows[1]]
except Exception as error:
    duck = str(error)
print(json.dumps({"pyarrow": arrow, "duckdb": duck}))
