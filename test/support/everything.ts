/**
 * Every byte that a line has left anywhere, as text: objects of the stage (decompressed), the ledger's items, bells, logs, and all tables, types and schemas of the
 * target. For tests of what must be in none of it.
 */
import { zstdDecompressSync } from 'node:zlib';
import type pg from 'pg';
import type { Line } from './line.ts';

/** Begins each zstd frame (RFC 8878, 3.1.1). */
const MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);

/** The texts of all zstd frames in an object, of headers and blocks (lib/stage/segment.ts has their lengths before them), and the object itself. */
export function textsOf(object: Buffer): Buffer[] {
  const texts: Buffer[] = [object];
  let found = 0;
  for (let at = object.indexOf(MAGIC); at >= 0; at = object.indexOf(MAGIC, at + 1)) {
    for (const before of [4, 8]) {
      const length = at >= before ? object.readUInt32BE(at - before) : 0;
      if (length === 0 || at + length > object.length) continue;
      try {
        texts.push(zstdDecompressSync(object.subarray(at, at + length)));
        found++;
        break;
      } catch {
        // The four bytes before were no length.
      }
    }
  }
  if (object.length > 0 && found === 0) throw new Error('an object without a frame');
  return texts;
}

/** By where it was found. */
export async function everything(line: Line, target: pg.Client): Promise<Map<string, string>> {
  const { objects, ...items } = line.durable;
  const found = new Map<string, string>();
  for (const [name, object] of objects) {
    for (const [i, text] of textsOf(object).entries()) found.set(`${name} ${i}`, text.toString('latin1'));
  }
  found.set(
    'ledger',
    json(Object.entries(items).map(([name, value]) => [name, value instanceof Map ? [...value] : value])),
  );
  found.set('log', json(line.log));
  const { rows } = await target.query<{ name: string }>(
    `SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'm', 'v', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`,
  );
  for (const { name } of rows) {
    const { rows: lines } = await target.query<{ text: string }>(`SELECT x::text AS text FROM ${name} x`);
    found.set(name, lines.map(({ text }) => text).join('\n'));
  }
  for (const catalog of ['pg_attribute', 'pg_attrdef', 'pg_enum', 'pg_type', 'pg_constraint', 'pg_description']) {
    const { rows: lines } = await target.query<{ text: string }>(`SELECT to_jsonb(x)::text AS text FROM ${catalog} x`);
    found.set(catalog, lines.map(({ text }) => text).join('\n'));
  }
  const { rows: defaults } = await target.query<{ text: string | null }>(
    'SELECT pg_get_expr(adbin, adrelid) AS text FROM pg_attrdef',
  );
  found.set('expressions', defaults.map(({ text }) => text).join('\n'));
  return found;
}

function json(value: unknown): string {
  return JSON.stringify(value, (_, v: unknown) => {
    if (typeof v === 'bigint') return String(v);
    // Errors have no enumerable fields.
    if (v instanceof Error) return `${v.message} ${v.stack} ${json(v.cause ?? null)}`;
    return v;
  });
}
