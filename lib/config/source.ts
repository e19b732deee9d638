/**
 * Options of the source: its connection, and how its log is read (design §3, Window).
 */
import * as z from 'zod';
import { IDENTIFIER_BYTES_MAX } from '../sql-text.ts';
import { hostForm, hostName, portNumber } from './address.ts';
import { connectionOptions, identifier } from './connection.ts';
import { option, orNull } from './option.ts';

/** A week: longer than any window of use, and within what a timer of Node takes. */
const RUN_SECONDS_MAX = 604_800;
/** Largest value of the server's setting (https://www.postgresql.org/docs/current/runtime-config-replication.html). */
const WAL_SENDER_TIMEOUT_MAX = 2_147_483_647;

/** A page is one chunk, which is staged as it is read: memory does not grow with it, but what a broken one costs does. */
const ITERSIZE_MAX = 10_000_000;

const PLUGINS = ['pgoutput', 'wal2json'] as const;
export const SLOT_READERS = ['stream', 'peek'] as const;

export const sourceOptions = z.strictObject({
  ...connectionOptions,
  plugin: option(z.enum(PLUGINS).default('pgoutput'), {
    sentence:
      'Output plugin that decodes the log. `pgoutput` comes with PostgreSQL; `wal2json` must be installed on the source, needs no publication, and follows partitions each by itself.',
  }),
  slot_reader: option(z.enum(SLOT_READERS).optional(), {
    sentence:
      'How the slot is read. `stream`: over a replication connection, each change as it comes. `peek`: by calls of `pg_logical_slot_peek_binary_changes` over an ordinary connection, where a replication connection is refused; the source spools each call on its disk.',
    default_text: '`stream`; `peek` where `password` is an IAM token',
    example: 'peek',
  }),
  replication_slot: option(
    z
      .string()
      .regex(/^[a-z0-9_]{1,63}$/)
      .optional(),
    {
      sentence: 'Logical replication slot of this pipeline; no two pipelines share one.',
      form: `lower-case letters, digits and _, at most ${IDENTIFIER_BYTES_MAX}`,
      default_text: '`sluice_<database>`',
      example: 'sluice_shop',
    },
  ),
  publication_name: option(identifier.optional(), {
    sentence:
      'Publication of the selected tables. It is made where the role may; an existing one is used, and missing tables are added or reported.',
    default_text: '`sluice_<database>`',
    example: 'sluice_shop',
  }),
  fold_partitions: option(z.boolean().default(true), {
    sentence:
      'A partitioned table is one stream, its partitions come with it (PostgreSQL 13 and newer). `false`, and on older servers: each partition is a table.',
  }),
  create_slot: option(z.boolean().default(true), {
    sentence: 'Make the slot if it is missing. `false`: it must exist already, and is taken over as it stands.',
  }),
  failover: option(z.boolean().optional(), {
    sentence:
      'The slot is kept on standbys as well, so that the pipeline goes on with a standby that is promoted (PostgreSQL 17 and newer; `doctor` says what the standby needs). Switching it on or off changes a slot that is there.',
    default_text: '`false`; with `create_slot: false` as the slot is',
    example: 'true',
  }),
  logical_poll_total_seconds: option(z.int().min(1).max(RUN_SECONDS_MAX).default(10_800), {
    sentence: 'A window ends after this long without data; a server that is busy decoding is not counted as silent.',
    unit: 'seconds',
  }),
  break_at_end_lsn: option(z.boolean().default(false), {
    sentence: 'A window ends at the first commit or keepalive at or past the position that was current when it began.',
  }),
  max_run_seconds: option(z.int().min(1).max(RUN_SECONDS_MAX).default(43_200), {
    sentence:
      "Longest time of one window; on Lambda the function's deadline is the smaller, and with `schedule.continuous` a minute.",
    unit: 'seconds',
  }),
  itersize: option(z.int().min(1).max(ITERSIZE_MAX).optional(), {
    sentence:
      'Rows that are read, staged and loaded as one: a page of `INCREMENTAL`, which has more where rows share one value of the replication key; and, where it is given, about so many in each chunk of a whole copy by query (`FULL_TABLE`, and the first of `INCREMENTAL`), which has 250,000 otherwise. Also written `batch_fetch_limit`.',
    unit: 'rows',
    default_text: '20000',
    example: '50000',
  }),
  batch_fetch_limit: option(z.int().min(1).max(ITERSIZE_MAX).optional(), {
    sentence: 'Another name of `itersize`.',
    unit: 'rows',
    default_text: '`itersize`',
    example: '50000',
  }),
  use_secondary: option(z.boolean().default(false), {
    sentence:
      'Read rows from a physical replica: copies of tables, `FULL_TABLE` and `INCREMENTAL`. The log is always read from `host`, and so are copies of tables without a key, and of unlogged ones.',
  }),
  secondary_host: option(orNull(hostName), {
    sentence: 'Name or address of the replica; role, password, database, `ssl` and `ssh` are those of the source.',
    form: hostForm,
    default_text: 'required with `use_secondary`',
    example: 'replica.internal',
  }),
  secondary_port: option(portNumber.optional(), {
    sentence: 'TCP port of the replica.',
    default_text: '`port`',
    example: '5432',
  }),
  debug_lsn: option(z.boolean().default(false), {
    sentence:
      'Adds `_sdc_lsn` (pg_lsn) to the tables that are followed by the log and have a key: where the last change of the row was committed; NULL in rows that a copy has brought. It comes with the next batch of a table, and goes with the next one where this is turned off.',
  }),
  wal_sender_timeout: option(z.int().min(0).max(WAL_SENDER_TIMEOUT_MAX).default(3_600_000), {
    sentence:
      'Session setting of the replication connection (PostgreSQL 12 and newer; `slot_reader: stream`); 0 turns the timeout off.',
    unit: 'milliseconds',
  }),
});
