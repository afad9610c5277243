#!/usr/bin/env bash
# SQLite: equal JSON can be unequal JSONB, and jsonb() leaves it so; a UNIQUE column takes the same document twice.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     JSONB is the parsed form: equal documents with equally ordered members are equal blobs, as they are equal text
#            after json(), and jsonb() brings any JSON into that form.
# Behaviour: A text that SQL put in has another type code than the same text that was parsed, also as a name of a member:
#            jsonb_set('{}', '$.a', 2) is not jsonb('{"a":2}'), though jsonb_object('a', 2) is. jsonb() of a blob returns it
#            as it is. json() of both is the same text.
# For users: UNIQUE, =, GROUP BY and a comparison bit for bit see two values; a document that was built again travels as
#            an update. Store jsonb(json(x)), or compare and index json(x).
#
# Output:
#   json() of both: {"a":2} {"a":2}
#   parsed, set into an empty object: 4c17611332 4c1a611332
#   equal: False
#   equal after jsonb(): False
#   equal after jsonb(json()): True
#   jsonb_object() equals the parsed one: True
#   a value replaced by SQL: False
#   rows in a UNIQUE column: 2
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import expect, finish

db = apsw.Connection(":memory:")
PARSED, MADE = """jsonb('{"a":2}')""", "jsonb_set('{}', '$.a', 2)"


def value(sql):
    return db.execute(f"SELECT {sql}").get


def equal(one, other):
    return value(f"{one} = {other}") == 1


expect("json() of both", f"{value(f'json({PARSED})')} {value(f'json({MADE})')}", '{"a":2} {"a":2}')
expect("parsed, set into an empty object", f"{value(PARSED).hex()} {value(MADE).hex()}", "4c17611332 4c1a611332")
expect("equal", equal(PARSED, MADE), False)
expect("equal after jsonb()", equal(PARSED, f"jsonb({MADE})"), False)
expect("equal after jsonb(json())", equal(PARSED, f"jsonb(json({MADE}))"), True)
expect("jsonb_object() equals the parsed one", equal(PARSED, "jsonb_object('a', 2)"), True)
replaced = """jsonb_replace('{"a":"old"}', '$.a', 'new')"""
expect("a value replaced by SQL", equal("""jsonb('{"a":"new"}')""", replaced), False)
db.execute(f"CREATE TABLE t(doc BLOB UNIQUE); INSERT INTO t VALUES ({PARSED}), ({MADE})")
expect("rows in a UNIQUE column", db.execute("SELECT count(*) FROM t").get, 2)
finish()
PY
