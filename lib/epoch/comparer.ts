/**
 * The `Comparer` port over PostgreSQL: two connections and two transactions for each comparison, one on either side, that lock nothing but what every reader
 * locks. The statements are those of `verify` (lib/verify/checksum.ts, compared.ts).
 *
 * The source is always the primary: a position past the snapshot is only known there.
 */
import type { Client } from 'pg';
import type { Pipeline } from '../config/schema.ts';
import { streamOptions } from '../config/stream-options.ts';
import { type StreamRow, streamRowOf, streamRowSql } from '../load/control.ts';
import { targetFault } from '../load/faults.ts';
import { sameTable } from '../load/prepare.ts';
import { sameShape } from '../load/reshape.ts';
import type { Lsn } from '../lsn.ts';
import type { ChunkRange, Comparer, SourceTable, TargetStream } from '../ports.ts';
import { closeClient } from '../postgres/connection.ts';
import { sourceFault, sqlstateOf } from '../postgres/faults.ts';
import { readInsertLsn } from '../postgres/log-position.ts';
import { beginReadOnlySql } from '../postgres/read-only.ts';
import type { Connect } from '../postgres/session.ts';
import { projectionOf } from '../projection/projection.ts';
import { displayName, type Shape } from '../shape.ts';
import { tableShape } from '../slot/table-shape.ts';
import { quoteTable } from '../sql-text.ts';
import { bucketsSql } from '../verify/checksum.ts';
import { type Compared, compared, type NotCompared } from '../verify/compared.ts';
import { findTable, readBuckets } from '../verify/reader.ts';

/** One chunk's checksum takes seconds. */
const STATEMENT_MS_MAX = 15 * 60_000;

/** undefined_table, undefined_column, invalid_schema_name: a table has changed since. The copy finds out, and says so. */
const GONE: ReadonlySet<string> = new Set(['42P01', '42703', '3F000']);
/** What the target lacks all the same. */
const HARMLESS: ReadonlySet<NotCompared> = new Set<NotCompared>(['excluded', 'computed']);

export interface ComparerOptions {
  readonly connectSource: Connect;
  readonly connectTarget: Connect;
  readonly pipeline: Pipeline;
}

/** A table is not what it was a moment ago, or is not there at all. */
class Changed extends Error {}

export function postgresComparer(options: ComparerOptions): Comparer {
  return {
    obstacle: async (stream, table, incarnation) => {
      if (table.key.length === 0) return 'it has no key';
      return await onBoth(options, stream, table, async (sides) => {
        const row = await streamRow(sides.target, options.pipeline.pipeline, stream);
        if (row === null || !row.made || !sameTable(row.target, stream.target)) return NO_TABLE;
        if (row.incarnation !== incarnation) return 'the table on the target comes from another ledger';
        return obstacleIn(await comparedSides(options, sides, table, row), table, row.shape);
      }).catch((error: unknown) => {
        if (error instanceof Changed) return NO_TABLE;
        throw error;
      });
    },

    equalRows: async (stream, table, range) =>
      await onBoth(options, stream, table, async (sides) => {
        const row = await streamRow(sides.target, options.pipeline.pipeline, stream);
        if (row === null) return null;
        const pair = await comparedSides(options, sides, table, row);
        return pair.ranges ? await equalRows(sides, pair, range) : null;
      }).catch((error: unknown) => {
        if (error instanceof Changed) return null;
        throw error;
      }),
  };
}

const NO_TABLE = 'the target has no table of it that was copied to its end';

interface Asked {
  readonly client: Client;
  /** What the server's error means. */
  readonly fault: (error: unknown) => Error;
}

type Isolation = Parameters<typeof beginReadOnlySql>[0];

interface Sides {
  readonly source: Asked;
  readonly target: Asked;
}

/** The source in one snapshot, which is taken by its first query; on the target each statement has its own, for nothing writes there. */
async function onBoth<T>(
  { connectSource, connectTarget }: ComparerOptions,
  { stream, target: name }: TargetStream,
  table: SourceTable,
  work: (sides: Sides) => Promise<T>,
): Promise<T> {
  const context = { stream, table: displayName(name), action: `read ${displayName(name)}`, server: null };
  const fault = {
    source: (error: unknown) => sourceFault(error, `read ${displayName(table)}`),
    target: (error: unknown) => targetFault(error, context),
  };
  const opened: Client[] = [];
  const open = async (side: keyof Sides, connect: Connect, isolation: Isolation): Promise<Asked> => {
    try {
      const client = await connect();
      client.on('error', () => undefined); // A connection that breaks while nobody waits for it fails the next statement.
      opened.push(client);
      const asked = { client, fault: fault[side] };
      await ask(asked, () =>
        client.query(`${beginReadOnlySql(isolation)}; SET LOCAL statement_timeout = ${STATEMENT_MS_MAX}`),
      );
      return asked;
    } catch (error) {
      throw error instanceof Changed ? error : fault[side](error);
    }
  };
  try {
    const source = await open('source', connectSource, 'REPEATABLE READ');
    // Before the snapshot, which LOCK does not take: after a rewrite that committed in between, the snapshot would see an empty table.
    await ask(source, (client) => client.query(`LOCK TABLE ${quoteTable(table)} IN ACCESS SHARE MODE`));
    return await work({ source, target: await open('target', connectTarget, 'READ COMMITTED') });
  } finally {
    for (const client of opened) await closeClient(client);
  }
}

/** Throws Changed where a table or column is not there, and what the server's other errors mean. */
async function ask<T>({ client, fault }: Asked, work: (client: Client) => Promise<T>): Promise<T> {
  try {
    return await work(client);
  } catch (error) {
    if (GONE.has(sqlstateOf(error))) throw new Changed('not as it was', { cause: error });
    throw fault(error);
  }
}

async function streamRow(target: Asked, pipeline: string, stream: TargetStream): Promise<StreamRow | null> {
  return streamRowOf(await ask(target, (client) => client.query(streamRowSql({ pipeline, stream }, ''))));
}

async function comparedSides(
  options: ComparerOptions,
  { source, target }: Sides,
  table: SourceTable,
  { target: name, shape, metadata }: StreamRow,
): Promise<Compared> {
  const said = streamOptions(options.pipeline, table);
  // The salt is of no use here: what is hashed is not compared.
  const projection = said && projectionOf(said, '');
  const stream = { table, projection, where: said?.where ?? null, target: name, shape, metadata };
  return compared(stream, {
    source: await ask(source, (client) => findTable(client, table)),
    target: await ask(target, (client) => findTable(client, name)),
  });
}

/** Pure. Null: nothing keeps the tables from being compared. */
function obstacleIn({ key, ranges, not_compared }: Compared, table: SourceTable, shape: Shape): string | null {
  if (!sameShape(shape, tableShape(table))) return 'the table has changed its shape since';
  const left = not_compared.find(({ why }) => !HARMLESS.has(why));
  if (left?.why === 'hashed') return `of its column ${left.column} the target has only a hash`;
  if (left !== undefined) return `its column ${left.column} cannot be compared between these servers`;
  if (key.length === 0) return 'its key cannot be compared';
  return ranges ? null : 'the order of its key depends on a collation, which another server may sort by in another way';
}

async function equalRows(
  { source, target }: Sides,
  pair: Compared,
  range: ChunkRange,
): Promise<{ readonly rows: number; readonly lsn: Lsn } | null> {
  // After the snapshot, which the catalog's queries have taken: past every commit in it.
  const lsn = await ask(source, readInsertLsn);
  const [here, there] = await Promise.all([
    ask(source, (client) => readBuckets(client, bucketsSql(pair.source, range, 1))),
    ask(target, (client) => readBuckets(client, bucketsSql(pair.target, range, 1))),
  ]);
  const [mine, theirs] = [here.get(0), there.get(0)];
  if (mine?.rows !== theirs?.rows || mine?.sum !== theirs?.sum) return null;
  return { rows: Number(mine?.rows ?? 0), lsn };
}
