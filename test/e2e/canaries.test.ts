/**
 * Goal: secrets are told nowhere, and values of rows lie in the stage and on the target alone. Method: unique marks in passwords, salts, URLs and rows; the command,
 * as people and programs run it, with all that its functions log (SLUICE_DEBUG), through successes and every kind of refusal that a server answers with a row in its
 * text; then every word that was said, every item of the ledger and every file that was left is searched. What may hold a mark is shown to hold it, so that the
 * search is known to find.
 */
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import cdk from '../../cdk.json' with { type: 'json' };
import { makeAuthority } from '../support/certificates.ts';
import { filesBelow, readLocalState } from '../support/local-state.ts';
import { query, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { type Ended, startSluice, type Workplace, workplace } from '../support/sluice.ts';

/** In rows. Its first half is in no word of ours. */
const ROW = 'ZQrowvalueXJ';
/** In columns that are left out, or masked. */
const HIDDEN = 'ZQhiddenXJ';
const SALT = 'ZQsaltXJ';
const WRONG = 'ZQwrongpasswordXJ';
/** Where a password has no business. */
const MISPLACED = 'ZQmisplacedXJ';
const AWS_SECRET = 'ZQawssecretXJ';
const AWS_TOKEN = 'ZQawstokenXJ';
const PASSPHRASE = 'ZQpassphraseXJ';
/** Longer than any takes on a machine that does much else. */
const RUN_MS_MAX = 150_000;
const ROLE_PASSWORD = 'ZQrolepasswordXJ';
const LOCKED = `  ssl: { mode: require, cert: ./client.crt, key: ./client.key, key_password: "\${env:KEY_PASSWORD}" }\n`;

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
${Object.keys(BROKEN)
  .map((view) => `  - { table: public.broken_${view}, replication_method: FULL_TABLE }`)
  .join('\n')}`,
    target: '  hard_delete: true\n  validate_records: true\n  on_invalid: reject\n  primary_key_required: false',
  });
  const authority = await makeAuthority('nobody');
  const { cert, encryptedKey } = await authority.issue('reader');
  await writeFile(join(dirname(place.config), 'client.crt'), cert);
  await writeFile(join(dirname(place.config), 'client.key'), encryptedKey('another', 'pkcs8'));
  const schema = { properties: { name: { type: 'string', maxLength: 40 } } };
  await writeFile(join(dirname(place.config), 'people.json'), JSON.stringify(schema));
  temporary = join(dirname(place.config), 'tmp');
  await mkdir(temporary);
  // A server's warnings go to whoever asked.
  await query(
    target,
    `CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'warned of %', NEW; RETURN NEW; END $$`,
  );
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
  await query(source, `CREATE TABLE words (id int, v text); INSERT INTO words VALUES (1, '${ROW}'); ${SAYING}`);
  for (const [view, expression] of Object.entries(BROKEN))
    await query(source, `CREATE VIEW broken_${view} AS SELECT id, ${expression} AS n FROM words`);
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
  warning: `CREATE TRIGGER warn BEFORE INSERT OR UPDATE ON refused_warning FOR EACH ROW EXECUTE FUNCTION warn(); ALTER TABLE refused_warning ADD CHECK (id < 2)`,
  view: `CREATE VIEW watching AS SELECT v FROM refused_view`,
};
const REFUSED = Object.keys(REFUSALS);

/** What the source itself cannot read, and says why with the value: by what a view makes of it. */
const BROKEN: Readonly<Record<string, string>> = {
  type: 'v::int',
  raise: 'raising(v)',
  dynamic: 'running(v)',
  zone: 'now() AT TIME ZONE v',
  name: 'v::regclass::text',
};
const SAYING = `
  CREATE FUNCTION raising(v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', v USING ERRCODE = '42501'; END $$;
  CREATE FUNCTION running(v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT ' || v; RETURN v; END $$`;

const secrets = () => ({
  SOURCE_PASSWORD: ROLE_PASSWORD,
  TARGET_PASSWORD: target.password,
  MASK_SALT: SALT,
  AWS_ACCESS_KEY_ID: 'AKIAZQ',
  AWS_SECRET_ACCESS_KEY: AWS_SECRET,
  AWS_SESSION_TOKEN: AWS_TOKEN,
});

/** `until`: it is killed when it has said that. One that does not end is killed as well, and fails the test with its last words. */
async function sluice(args: readonly string[], more: Record<string, string> = {}, until?: string): Promise<Ended> {
  const running = startSluice(args, { ...secrets(), TMPDIR: temporary, SLUICE_DEBUG: '1', ...more });
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

/** Told nowhere at all. */
const marks = (): string[] => [
  SALT,
  WRONG,
  MISPLACED,
  AWS_SECRET,
  AWS_TOKEN,
  PASSPHRASE,
  ROLE_PASSWORD,
  target.password,
  HIDDEN,
];

/** PostgreSQL makes names small. */
function has(text: string, mark: string): boolean {
  return text.toLowerCase().includes(mark.toLowerCase());
}

/** Lines with `mark` of what was said, and by which command. */
function saying(mark: string): string[] {
  return said.flatMap(({ what, text }) =>
    text
      .split('\n')
      .filter((line) => has(line, mark))
      .map((line) => `${what.split(' ', 1)[0]}: ${line}`),
  );
}

/** A pipeline file beside the other, with its first side's connection written in another way. */
async function otherFile(name: string, of: string): Promise<string> {
  const path = join(dirname(place.config), name);
  await writeFile(path, `pipeline: other\nsource:\n${of}target: {}\ntables: [public.*]\n`);
  return path;
}

interface Status {
  readonly streams: readonly { readonly table: string; readonly halt: { readonly code: string } | null }[];
}

async function halted(): Promise<string[]> {
  const { code, out, err } = await sluice(['status', ...at(), '--json']);
  expect(code, err).toBe(0);
  return (JSON.parse(out) as Status).streams.flatMap(({ table, halt }) =>
    halt === null ? [] : [`${table} ${halt.code}`],
  );
}

test('what is secret, and what rows hold, is told nowhere', { timeout: 480_000 }, async () => {
  // Refused before anything is there.
  expect((await sluice(['run', ...at(), '--until-caught-up'], { SOURCE_PASSWORD: WRONG })).code).toBe(1);
  expect((await sluice(['doctor', ...at().slice(0, 2), '--json'], { TARGET_PASSWORD: WRONG })).code).toBe(1);
  const url = (password: string): string => `postgresql://reader:${password}@${source.host}:${source.port}/postgres`;
  const written = join(dirname(place.config), 'init.yaml');
  expect((await sluice(['init', url(WRONG), '-o', written])).code).toBe(1);
  expect((await sluice(['init', url(ROLE_PASSWORD), '-o', written])).code).toBe(0);
  // A password in the file itself, in two places; a key that its passphrase does not open.
  const [inFile, inUrl, locked] = [
    await otherFile('in-file.yaml', `  host: h\n  user: u\n  database: d\n  password: ${MISPLACED}\n`),
    await otherFile('in-url.yaml', `  host: postgresql://u:${MISPLACED}@h/d\n`),
    await otherFile(
      'locked.yaml',
      `  host: ${source.host}\n  port: ${source.port}\n  user: u\n  database: d\n${LOCKED}`,
    ),
  ];
  for (const file of [inFile, inUrl, locked])
    expect((await sluice(['doctor', '-c', file, '--json'], { KEY_PASSWORD: PASSPHRASE })).code, file).toBeGreaterThan(
      0,
    );

  // Copied; one row does not fit its schema, and some views cannot be read.
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
    `ALTER TABLE refused_view ALTER v TYPE bytea USING v::bytea; INSERT INTO refused_view VALUES (3, '${ROW}');
     INSERT INTO people VALUES (5, '${HIDDEN}', '${HIDDEN}', '${HIDDEN}', repeat('${ROW}', 9))`,
  );
  // Killed in the middle, and gone on with.
  await sluice(['run', ...at(), '--continuous'], {}, '; applied ');
  await caughtUp('--json');
  const refused = REFUSED.map(
    (table) => `public.refused_${table} ${table === 'view' ? 'TARGET_DEPENDENTS' : 'TARGET_REJECTS'}`,
  );
  const broken = Object.keys(BROKEN).map((view) => `public.broken_${view} SOURCE_REFUSES`);
  expect((await halted()).sort()).toEqual([...broken, ...refused].sort());

  // The same rows, put aside.
  await writeFile(
    place.config,
    (await readFile(place.config, 'utf8')).replace('\ntarget:\n', '\ntarget:\n  on_error: quarantine\n'),
  );
  await sluice(['resume', '*.*', '--json', ...at()]);
  await caughtUp();
  await sluice(['status', ...at()]);
  await query(target, `UPDATE people SET name = '${ROW} differs' WHERE id = 1`);
  for (const args of [['verify'], ['verify', '--chain'], ['rejects']]) await sluice([...args, ...at()]);
  const rejects = await sluice(['rejects', '--json', ...at()]);
  for (const table of ['people', 'refused_check', 'refused_trigger', 'refused_long'])
    expect(rejects.out, rejects.err).toContain(`public.${table}`);
  await sluice(['backfill', 'public.people', '--where', 'name::int = 1', ...at()]);

  // Metrics are among what was searched.
  expect(saying('"_aws"')).not.toEqual([]);
  for (const mark of [...marks(), ROW]) expect(saying(mark), `${mark} was said`).toEqual([]);
  const { ledger, objects } = await readLocalState(place.state);
  expect(has(ledger, 'public.refused_check')).toBe(true);
  for (const mark of [...marks(), ROW]) expect(has(ledger, mark), `${mark} in the ledger`).toBe(false);
  const all = [...objects.values()].join('\n');
  for (const mark of marks()) expect(has(all, mark), `${mark} in the stage`).toBe(false);
  expect(all).toContain(ROW);
  for (const folder of ['/rejected/cuts/', '/rejected/chunks/', '/rejected/loads/'])
    expect(
      [...objects].filter(([name, text]) => name.includes(folder) && text.includes(ROW)),
      folder,
    ).not.toEqual([]);

  // What a person asks for by name he is shown.
  expect((await sluice(['rejects', 'public.people', ...at()])).out).toContain(ROW);
  for (const [name, bytes] of await filesBelow(dirname(place.config))) {
    const found = [...marks(), ROW].filter((mark) => has(bytes.toString('latin1'), mark));
    const allowed = /^in-(?:file|url)\.yaml$/.test(name) ? [MISPLACED] : name.startsWith('state/s3/') ? [ROW] : [];
    expect(
      found.filter((mark) => !allowed.includes(mark)),
      name,
    ).toEqual([]);
    expect(name.startsWith('tmp/'), `left: ${name}`).toBe(false);
  }
});

test('what is deployed has none of the secrets of the machine that deploys', { timeout: 120_000 }, async () => {
  const config = fileURLToPath(new URL('../../examples/pipeline.yaml', import.meta.url));
  const assembly = join(dirname(place.config), 'assembly');
  const env = {
    ...process.env,
    ...secrets(),
    CDK_OUTDIR: assembly,
    CDK_CONTEXT_JSON: JSON.stringify({ ...cdk.context, config }),
  };
  await promisify(execFile)(process.execPath, [fileURLToPath(new URL('../../infra/aws/app.ts', import.meta.url))], {
    env,
  });
  const files = await filesBelow(assembly);
  expect([...files.keys()].filter((name) => name.endsWith('.template.json'))).toHaveLength(2);
  expect([...files.keys()].filter((name) => name.endsWith('pipeline.json')).length).toBeGreaterThan(4);
  for (const [name, bytes] of files) {
    expect(
      marks().filter((mark) => has(bytes.toString('latin1'), mark)),
      name,
    ).toEqual([]);
  }
});
