"""The tables of lease, journal and head in PostgreSQL, and what is asked of them.

Every statement that writes locks the lease's row first, if the writer's term is not
below the highest: the fence is in the transaction of the data.
"""

from typing import LiteralString

from fedsecure.errors import ConfigurationError, StorageError
from fedsecure.postgres import Sessions

# One text a version; each begins with the row that no second member can insert.
STEPS: tuple[LiteralString, ...] = (
    """
DO $$ BEGIN
  IF to_regnamespace(current_setting('search_path')) IS NULL THEN
    EXECUTE format('CREATE SCHEMA %I', current_setting('search_path'));
  END IF;
END $$;
CREATE TABLE format (version integer PRIMARY KEY);
INSERT INTO format VALUES (1);
CREATE TABLE lease (
  id boolean PRIMARY KEY DEFAULT true CHECK (id), term bigint NOT NULL DEFAULT 0,
  held bigint NOT NULL DEFAULT 0, holder text NOT NULL DEFAULT '',
  address text NOT NULL DEFAULT '', ttl double precision NOT NULL DEFAULT 0,
  ends timestamptz NOT NULL DEFAULT '-infinity');
INSERT INTO lease DEFAULT VALUES;
CREATE TABLE journal (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run text NOT NULL,
  round bigint NOT NULL, step text NOT NULL, site text NOT NULL,
  operation text NOT NULL UNIQUE, term bigint NOT NULL, detail bytea NOT NULL,
  UNIQUE (run, round, step, site));
CREATE TABLE head (
  run text PRIMARY KEY, round bigint NOT NULL, sequence bigint NOT NULL,
  manifest bytea NOT NULL, term bigint NOT NULL);
CREATE TABLE trial (key text PRIMARY KEY, made timestamptz DEFAULT clock_timestamp());
""",
)
CLAIM = """
INSERT INTO trial (key) VALUES (%(key)s) ON CONFLICT DO NOTHING RETURNING key
"""
CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
VERSION = "SELECT coalesce(max(version), 0) FROM format"
READ = """
SELECT holder, address, held, ttl FROM lease WHERE ends > clock_timestamp()
"""
ACQUIRE = """
UPDATE lease SET term = term + 1, held = term + 1, holder = %(holder)s,
  address = %(address)s, ttl = %(ttl)s,
  ends = clock_timestamp() + make_interval(secs => %(ttl)s)
WHERE ends <= clock_timestamp() RETURNING held
"""
RENEW = """
UPDATE lease SET ends = clock_timestamp() + make_interval(secs => ttl)
WHERE held = %(term)s AND term = %(term)s AND holder = %(holder)s
  AND ends > clock_timestamp() RETURNING held
"""
RELEASE = """
UPDATE lease SET ends = '-infinity' WHERE held = %(term)s AND holder = %(holder)s
"""
# The row lock of `fence` also orders the numbers: later numbers are committed later.
APPEND = """
WITH fence AS (
  UPDATE lease SET term = %(term)s WHERE term <= %(term)s RETURNING term
), given AS (
  SELECT * FROM unnest(%(run)s::text[], %(round)s::bigint[], %(step)s::text[],
    %(site)s::text[], %(operation)s::text[], %(detail)s::bytea[]) WITH ORDINALITY
    AS g (run, round, step, site, operation, detail, place)
), written AS (
  INSERT INTO journal (run, round, step, site, operation, detail, term)
  SELECT g.run, g.round, g.step, g.site, g.operation, g.detail, fence.term
  FROM given AS g CROSS JOIN fence
  WHERE NOT EXISTS (SELECT FROM journal AS j WHERE j.operation = g.operation
    AND (j.run, j.round, j.step, j.site, j.detail)
      = (g.run, g.round, g.step, g.site, g.detail))
  ORDER BY g.place
), erased AS (
  DELETE FROM journal AS j USING given AS g, fence
  WHERE g.step IN ('skip', 'publish')
    AND (j.run, j.round, j.step) = (g.run, g.round, 'key')
)
SELECT count(*) FROM fence
"""
# Nothing in `state` unless the term is current and the round is closed over the very
# set that is released, and was not skipped; only in an engine made anew from the stores
# was it never opened.
_STATE = """
WITH fence AS (
  SELECT term FROM lease WHERE term <= %(term)s FOR UPDATE
), state AS (
  SELECT FROM fence WHERE NOT EXISTS (
    SELECT FROM journal AS j
    WHERE (j.run, j.round, j.site) = (%(run)s, %(round)s, '') AND (j.step = 'skip'
      OR (j.step = 'open' AND %(closed)s = ''::bytea)
      OR (j.step = 'close' AND j.detail <> %(closed)s)))
  AND (%(closed)s = ''::bytea OR EXISTS (
    SELECT FROM journal AS j WHERE (j.run, j.round, j.site, j.step)
      = (%(run)s, %(round)s, '', 'close')))
)
"""
_FIRST = """, moved AS (
  INSERT INTO head (run, round, sequence, manifest, term)
  SELECT %(run)s, %(round)s, %(sequence)s, %(manifest)s, %(new_term)s
  FROM state ON CONFLICT DO NOTHING RETURNING run
"""
_NEXT = """, moved AS (
  UPDATE head SET round = %(round)s, sequence = %(sequence)s,
    manifest = %(manifest)s, term = %(new_term)s
  FROM state WHERE head.run = %(run)s AND head.round = %(old_round)s
    AND head.sequence = %(old_sequence)s AND head.manifest = %(old_manifest)s
    AND head.term = %(old_term)s RETURNING head.run
"""
_ENTRY = """), entry AS (
  INSERT INTO journal (run, round, step, site, operation, detail, term)
  SELECT %(run)s, %(round)s, %(step)s, %(site)s, %(operation)s, %(detail)s, %(term)s
  FROM moved
), raised AS (
  UPDATE lease SET term = %(term)s FROM moved
)
SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM moved)
"""
# A head that is not the expected one leaves the term as it was.
FIRST_HEAD = _STATE + _FIRST + _ENTRY
NEXT_HEAD = _STATE + _NEXT + _ENTRY
ENTRIES = """
SELECT number, run, round, step, site, operation, detail FROM journal
WHERE run = %(run)s AND round >= %(first)s AND number > %(after)s
ORDER BY number LIMIT %(limit)s
"""
HEAD = "SELECT run, round, sequence, manifest, term FROM head WHERE run = %(run)s"


def bring_up(sessions: Sessions, schema: str) -> None:
    """Make the tables, or bring those of an earlier version forward.

    Raises
    ------
    ConfigurationError
        They are of a later version.
    StorageError
        It could not be done.
    """
    found = _version(sessions, schema)
    while found < len(STEPS):
        try:
            sessions.ask("bring its tables forward", STEPS[found], writes=True)
        except StorageError:
            # Members start at the same time: another one may have done it.
            if _version(sessions, schema) == found:
                raise
        found = _version(sessions, schema)
    if found > len(STEPS):
        raise ConfigurationError(
            f"schema {schema} of {sessions.server.shown} is of format {found}, this "
            f"version knows {len(STEPS)}: upgrade this aggregator; another schema is "
            "for another run only"
        )


def _version(sessions: Sessions, schema: str) -> int:
    given = {"table": f"{schema}.format"}
    there = sessions.ask("look for its tables", "SELECT to_regclass(%(table)s)", given)
    if there[0][0] is None:
        return 0
    return int(sessions.ask("read their version", VERSION)[0][0])
