/**
 * Goal: secrets are told nowhere, and values of rows lie in the stage and on the target alone. Method: unique marks in passwords, salts, URLs and rows; the command,
 * as people and programs run it, with all that its functions log (SLUICE_DEBUG), through successes and every kind of refusal that a server answers with a row in its
 * text; then every word that was said, every item of the ledger and every file that was left is searched. What may hold a mark is shown to hold it, so that the
 * search is known to find.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { filesBelow, readLocalState } from '../support/local-state.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Ended, startSluice, type Workplace, workplace } from '../support/sluice.ts';

/** In rows. Its first half is in no word of ours. */
const ROW = 'ZQrowvalueXJ';
/** In columns that are left out, or masked. */
const HIDDEN = 'ZQhiddenXJ';
const SALT = 'ZQsaltXJ';
const WRONG = 'ZQwrongpasswordXJ';
/** Longer than any takes on a machine that does much else. */
const RUN_MS_MAX = 150_000;
const ROLE_PASSWORD = 'ZQrolepasswordXJ';

let source: TestPostgres;
let target: TestPostgres;
let place: Workplace;
let temporary: string;
const said: { readonly what: string; readonly text: string }[] = [];

beforeAll(async () => {
  [source, target] = await Promise.all([startPostgres(), startPostgres()]);
  await query(source, `CREATE ROLE reader LOGIN SUPERUSER PASSWORD '${ROLE_PASSWORD}'`);
  place = await workplace({ ...source, user: 'reader' }, target, {
    pipeline: 'canaries\nmask_salt: ${env:MASK_SALT}',
    tables: `
  - { table: public.people, columns: { exclude: [secret] }, mask: { email: hash, note: redact }, json_schema: people.json }
  - public.refused_*
  - { table: public.broken, replication_method: FULL_TABLE }`,
    target: '  hard_delete: true\n  validate_records: true\n  on_invalid: reject\n  primary_key_required: false',
  });
  const schema = { properties: { name: { type: 'string', maxLength: 40 } } };
  await writeFile(join(dirname(place.config), 'people.json'), JSON.stringify(schema));
  temporary = join(dirname(place.config), 'tmp');
  await mkdir(temporary);
  await query(
    source,
    `CREATE TABLE people (id int PRIMARY KEY, secret text, email text, note text, name text);
     INSERT INTO people SELECT i, '${HIDDEN}', '${HIDDEN}', '${HIDDEN}', '${ROW}' FROM generate_series(1, 3) i;
     INSERT INTO people VALUES (4, '${HIDDEN}', '${HIDDEN}', '${HIDDEN}', repeat('${ROW}', 9))`,
  );
  for (const table of REFUSED)
    await query(
      source,
      `CREATE TABLE refused_${table} (id int PRIMARY KEY, v text); INSERT INTO refused_${table} VALUES (1, '${ROW}')`,
    );
  // The source itself cannot read it, and says why with the value.
  await query(
    source,
    `CREATE TABLE words (id int, v text); INSERT INTO words VALUES (1, '${ROW}'); CREATE VIEW broken AS SELECT id, v::int AS n FROM words`,
  );
}, 60_000);

afterAll(async () => {
  await place?.[Symbol.asyncDispose]();
  await Promise.all([source, target].map((server) => server?.stop()));
});

/** How the target refuses rows of `refused_…`, with SQL that makes it. */
const REFUSALS: Readonly<Record<string, string>> = {
  check: `ALTER TABLE refused_check ADD CHECK (v NOT LIKE '%again%') NOT VALID`,
  trigger: `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', NEW USING DETAIL = NEW::text; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON refused_trigger FOR EACH ROW EXECUTE FUNCTION refuse()`,
  unique: `CREATE UNIQUE INDEX ON refused_unique (left(v, 3))`,
  type: `TRUNCATE refused_type; ALTER TABLE refused_type ALTER v TYPE int USING 1`,
  long: `TRUNCATE refused_long; ALTER TABLE refused_long ALTER v TYPE varchar(5)`,
  view: `CREATE VIEW watching AS SELECT v FROM refused_view`,
};
const REFUSED = Object.keys(REFUSALS);

/** `until`: it is killed when it has said that. One that does not end is killed as well, and fails the test with its last words. */
async function sluice(args: readonly string[], more: Record<string, string> = {}, until?: string): Promise<Ended> {
  const secrets = { SOURCE_PASSWORD: ROLE_PASSWORD, TARGET_PASSWORD: target.password, MASK_SALT: SALT };
  const running = startSluice(args, { ...secrets, TMPDIR: temporary, SLUICE_DEBUG: '1', ...more });
  const late = setTimeout(() => running.kill('SIGKILL'), RUN_MS_MAX);
  const look = setInterval(() => {
    if (until !== undefined && running.said().includes(until)) running.kill('SIGKILL');
  }, 10);
  const ended = await running.ended;
  clearTimeout(late);
  clearInterval(look);
  if (until === undefined) expect(ended.signal, `${args.join(' ')}: ${running.said().slice(-2_000)}`).toBeNull();
  else expect(ended.out + ended.err).toContain(until);
  said.push({ what: args.join(' '), text: ended.out + ended.err });
  return ended;
}
const at = (): string[] => ['-c', place.config, '--state', place.state];
const caughtUp = (...more: string[]): Promise<Ended> => sluice(['run', ...at(), '--until-caught-up', ...more]);

/** Where `mark` was said, or left. */
function saying(mark: string): string[] {
  return said.filter(({ text }) => text.includes(mark)).map(({ what }) => what);
}

test('what is secret, and what rows hold, is told nowhere', { timeout: 480_000 }, async () => {
  // Refused before anything is there.
  expect((await sluice(['run', ...at(), '--until-caught-up'], { SOURCE_PASSWORD: WRONG })).code).toBe(1);
  expect((await sluice(['doctor', ...at().slice(0, 2), '--json'], { TARGET_PASSWORD: WRONG })).code).toBe(1);
  const url = (password: string): string => `postgresql://reader:${password}@${source.host}:${source.port}/postgres`;
  const written = join(temporary, '..', 'init.yaml');
  expect((await sluice(['init', url(WRONG), '-o', written])).code).toBe(1);
  expect((await sluice(['init', url(ROLE_PASSWORD), '-o', written])).code).toBe(0);

  // Copied; one row does not fit its schema, and a view cannot be read.
  await caughtUp();
  expect(await query(target, `SELECT count(*)::int AS n FROM people`)).toEqual([{ n: 3 }]);
  for (const sql of Object.values(REFUSALS)) await query(target, sql);
  for (const table of REFUSED)
    await query(
      source,
      `INSERT INTO refused_${table} VALUES (2, '${ROW} again'); UPDATE refused_${table} SET v = v || '!'`,
    );
  await query(
    source,
    `ALTER TABLE refused_view ALTER v TYPE bytea USING v::bytea; INSERT INTO refused_view VALUES (3, '${ROW}')`,
  );
  await query(source, `INSERT INTO people VALUES (5, '${HIDDEN}', '${HIDDEN}', '${HIDDEN}', repeat('${ROW}', 9))`);
  // Killed in the middle, and gone on with.
  await sluice(['run', ...at(), '--continuous'], {}, '; applied ');
  await caughtUp('--json');

  const statusJson = await sluice(['status', ...at(), '--json']);
  expect(statusJson.code, statusJson.err).toBe(0);
  const halted = (JSON.parse(statusJson.out) as { streams: { table: string; halt: unknown }[] }).streams.filter(
    ({ halt }) => halt !== null,
  );
  expect(halted.map(({ table }) => table).filter((table) => table.includes('refused'))).toEqual(
    REFUSED.map((table) => `public.refused_${table}`).sort(),
  );
  await sluice(['status', ...at()]);
  await query(target, `UPDATE people SET name = '${ROW} differs' WHERE id = 1`);
  for (const args of [['verify'], ['verify', '--chain'], ['rejects', '--json']]) await sluice([...args, ...at()]);
  await sluice(['backfill', 'public.people', '--where', 'name::int = 1', ...at()]);
  await sluice(['resume', 'public.refused_check', '--json', ...at()]);

  for (const mark of [SALT, WRONG, ROLE_PASSWORD, target.password, HIDDEN, ROW]) {
    expect(saying(mark), `${mark} was said`).toEqual([]);
  }
  const { ledger, objects } = await readLocalState(place.state);
  for (const mark of [SALT, WRONG, ROLE_PASSWORD, target.password, HIDDEN, ROW])
    expect(ledger.includes(mark), `${mark} in the ledger`).toBe(false);
  const all = [...objects.values()].join('\n');
  for (const mark of [SALT, WRONG, ROLE_PASSWORD, target.password, HIDDEN])
    expect(all.includes(mark), `${mark} in the stage`).toBe(false);
  expect(all).toContain(ROW);
  expect([...objects].filter(([name, text]) => name.includes('/rejected/') && text.includes(ROW))).not.toEqual([]);

  // What a person asks for by name he is shown.
  expect((await sluice(['rejects', 'public.people', ...at()])).out).toContain(ROW);
  for (const [name, bytes] of await filesBelow(dirname(place.config))) {
    const marks = [SALT, WRONG, ROLE_PASSWORD, target.password, HIDDEN, ROW].filter((mark) => bytes.includes(mark));
    expect(marks, name).toEqual(marks.filter((mark) => mark === ROW && name.startsWith('state/s3/')));
    expect(name.startsWith('tmp/'), `left: ${name}`).toBe(false);
  }
});
