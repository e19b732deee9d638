/** The doctor on real servers: each thing that stands in the way is found, with SQL that mends it, and nothing is found where all is well. */
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { readPipeline } from '../../lib/config/read.ts';
import { streamId } from '../../lib/config/stream-id.ts';
import { type DoctorInput, doctor } from '../../lib/doctor/doctor.ts';
import type { Finding } from '../../lib/doctor/finding.ts';
import { parseLsn } from '../../lib/lsn.ts';
import { type Connection, clientConfig, connectClient } from '../../lib/postgres/connection.ts';
import { startPostgres, startStandby, type TestPostgres } from '../support/postgres.ts';
import { connectionTo, connectTo, makeRole, ROLE, ROLE_SQL } from '../support/source-role.ts';

let source: TestPostgres;
let target: TestPostgres;
let onSource: Client;
let onTarget: Client;
beforeAll(async () => {
  const settings = { max_slot_wal_keep_size: '1GB', max_replication_slots: '2', max_wal_senders: '3' };
  [source, target] = await Promise.all([startPostgres({ settings }), startPostgres()]);
  [onSource, onTarget] = await Promise.all([source.connect(), target.connect()]);
  await Promise.all([makeRole(source), makeRole(target, '')]);
  await onSource.query(`GRANT CREATE ON DATABASE postgres TO ${ROLE_SQL}`);
  await onTarget.query(`GRANT CREATE ON DATABASE postgres TO ${ROLE_SQL}`);
});
afterAll(async () => {
  await Promise.all([onSource.end(), onTarget.end()]);
  await Promise.all([source.stop(), target.stop()]);
});
/** Every test begins with one table that can be followed, and a target where nothing is. */
const CLEAN =
  'DROP PUBLICATION IF EXISTS sluice_postgres; DROP SCHEMA IF EXISTS shop CASCADE; DROP SCHEMA IF EXISTS _sluice CASCADE;';
afterEach(async () => {
  await onSource.query(CLEAN);
  await onTarget.query(CLEAN);
  await onSource.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
});

async function makeTable(name = 'orders', ddl = '(id int PRIMARY KEY, t text)'): Promise<void> {
  await onSource.query(
    `CREATE SCHEMA IF NOT EXISTS shop AUTHORIZATION ${ROLE_SQL}; CREATE TABLE shop."${name}" ${ddl}`,
  );
  await onSource.query(`ALTER TABLE shop."${name}" OWNER TO ${ROLE_SQL}`);
}

interface Changes {
  readonly tables?: string;
  readonly source?: Partial<Connection>;
  readonly target?: Partial<Connection>;
  readonly sourceServer?: TestPostgres;
  readonly targetServer?: TestPostgres;
  readonly chain?: DoctorInput['chain'];
  readonly options?: string;
  readonly schedule?: string;
}

async function examine(changes: Changes = {}): Promise<Finding[]> {
  const at = (server: TestPostgres) =>
    `{ host: ${server.host}, port: ${server.port}, user: ${JSON.stringify(ROLE)}, database: postgres`;
  const from = changes.sourceServer ?? source;
  const into = changes.targetServer ?? target;
  const pipeline = readPipeline(
    `pipeline: test
source: ${at(from)} ${changes.options ?? ''} }
tables: [ ${changes.tables ?? 'shop.*'} ]
target: ${at(into)} }
schedule: { ${changes.schedule ?? 'every: 5 minutes'} }`,
    'test.yaml',
  );
  const endpoint = { side: 'source', connection: connectionTo(from, changes.source ?? {}), replication: true } as const;
  return await doctor({
    pipeline,
    connect: {
      source: connectTo(from, changes.source),
      replication: () => connectClient(() => new Client(clientConfig(endpoint)), endpoint),
      target: connectTo(into, changes.target, 'target'),
    },
    ...('chain' in changes ? { chain: changes.chain } : {}),
  });
}

const errors = (findings: Finding[]) => findings.filter((finding) => finding.severity === 'error');
const found = (findings: Finding[], check: string) => findings.filter((finding) => finding.check === check);

/** The SQL of a remedy, as a person would copy it. */
function sqlOf(finding: Finding | undefined): string {
  const [, sql] =
    /[Rr]un:? (.*?)(?: \(on RDS.*)?(?:;? or name another.*|;? or drop the table.*|  with .*|  or run .*)?$/s.exec(
      finding?.remedy ?? '',
    ) ?? [];
  if (sql === undefined) throw new Error(`no SQL in ${JSON.stringify(finding)}`);
  return sql;
}

test('all is well: what will be made is said, and nothing else', async () => {
  await makeTable();
  expect(await examine({ chain: null })).toEqual([
    {
      check: 'slot',
      severity: 'info',
      subject: 'slot sluice_postgres',
      problem: expect.stringContaining('will be made'),
      remedy: null,
    },
    {
      check: 'publication',
      severity: 'info',
      subject: 'publication sluice_postgres',
      problem: 'It will be made for 1 table by the next window.',
      remedy: null,
    },
  ]);
});

describe('connections', () => {
  test.each([
    ['source', { source: { password: 'wrong' } }, 'password authentication failed'],
    ['source', { source: { host: 'nowhere.invalid' } }, 'nowhere.invalid'],
    ['source', { source: { database: 'nowhere' } }, 'no database nowhere'],
    ['target', { target: { password: 'wrong' } }, 'password authentication failed'],
    ['target', { target: { port: 1 } }, 'cannot be reached'],
  ] as const)('%s: %j', async (side, changes, said) => {
    await makeTable();
    const [first, ...rest] = errors(await examine(changes));
    expect(first).toMatchObject({ check: `${side}_connection`, subject: side, problem: expect.stringContaining(said) });
    expect(rest).toEqual([]);
  });

  test('a role that may not replicate: SQL that lets it', async () => {
    await makeTable();
    await onSource.query(
      `CREATE ROLE plain LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA shop TO plain; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO plain`,
    );
    const findings = errors(await examine({ source: { user: 'plain', password: 'x' } }));
    expect(findings.map(({ check }) => check)).toEqual(['source_server', 'publication']);
    await onSource.query(sqlOf(findings[0]));
    await onSource.query(sqlOf(findings[1]));
    expect(errors(await examine({ source: { user: 'plain', password: 'x' } }))).toEqual([]);
    await onSource.query('DROP PUBLICATION sluice_postgres');
    await onSource.query('DROP OWNED BY plain; DROP ROLE plain');
  });
});

describe('the source', () => {
  test('with wal_level = replica, and no WAL sender', async () => {
    await using replica = await startPostgres({ settings: { wal_level: 'replica', max_wal_senders: '0' } });
    await makeRole(replica);
    const findings = await examine({ sourceServer: replica, tables: 'public.nothing' });
    expect(found(findings, 'source_server')[0]?.problem).toContain('wal_level = replica');
    expect(found(findings, 'source_replication')[0]?.problem).toContain('max_wal_senders');
    expect(found(findings, 'slot_room')).toMatchObject([
      { severity: 'error', remedy: expect.stringContaining('max_wal_senders') },
    ]);
  });

  test('that is a standby', async () => {
    await using standby = await startStandby(source);
    const findings = await examine({ sourceServer: standby });
    expect(found(findings, 'source_server')[0]?.problem).toContain('is a standby');
  });

  test('in an encoding that cannot be converted', async () => {
    await onSource.query("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    const findings = await examine({ source: { database: 'ascii' }, tables: 'public.nothing' });
    expect(found(findings, 'source_server')[0]?.problem).toContain('SQL_ASCII');
    await onSource.query('DROP DATABASE ascii');
  });

  test('without room for a slot', async () => {
    await makeTable();
    await onSource.query("SELECT pg_create_physical_replication_slot('a'), pg_create_physical_replication_slot('b')");
    expect(found(await examine(), 'slot_room')).toMatchObject([
      { severity: 'error', remedy: expect.stringContaining('max_replication_slots') },
    ]);
  });

  test('whose slot is of another plugin, another database, somebody else, or gone', async () => {
    await makeTable();
    const system = await onSource.query<{ id: string }>(
      'SELECT system_identifier::text AS id FROM pg_control_system()',
    );
    const head = {
      kind: 'changes',
      end_lsn: parseLsn('0/1'),
      system_identifier: system.rows[0]?.id ?? '',
      timeline: 1,
      incarnation: 'i',
    } as const;
    expect(found(await examine({ chain: head }), 'slot')[0]?.problem).toContain('is gone');
    await onSource.query("SELECT pg_create_logical_replication_slot('sluice_postgres', 'pgoutput')");
    expect(found(await examine({ chain: head }), 'slot')[0]?.problem).toContain("past the ledger's end at 0/1");
    expect(found(await examine({ chain: null }), 'slot')[0]?.problem).toContain('never used it');
    expect(found(await examine({ chain: { ...head, kind: 'genesis' } }), 'slot')).toEqual([]);
    expect(found(await examine(), 'slot')).toEqual([]);
    expect(found(await examine({ chain: { ...head, system_identifier: '1' } }), 'source_cluster')).toMatchObject([
      { severity: 'error' },
    ]);
    await onSource.query(
      "SELECT pg_drop_replication_slot('sluice_postgres'), pg_create_physical_replication_slot('sluice_postgres')",
    );
    expect(found(await examine(), 'slot')[0]?.problem).toContain('physical slot');
    await onSource.query('CREATE DATABASE other');
    await onSource.query("SELECT pg_drop_replication_slot('sluice_postgres')");
    const other = await source.connect('other');
    await other.query("SELECT pg_create_logical_replication_slot('sluice_postgres', 'pgoutput')");
    expect(found(await examine(), 'slot')[0]?.problem).toContain('belongs to database other');
    await other.query("SELECT pg_drop_replication_slot('sluice_postgres')");
    await other.end();
    await onSource.query('DROP DATABASE other');
  });

  test('that keeps WAL without limit, or drops idle slots', async () => {
    await makeTable();
    await onSource.query('ALTER SYSTEM SET max_slot_wal_keep_size = -1');
    await onSource.query("ALTER SYSTEM SET idle_replication_slot_timeout = '10min'");
    await onSource.query('SELECT pg_reload_conf()');
    const wal = async (schedule: string) => found(await examine({ schedule }), 'slot_wal');
    await expect
      .poll(async () => await wal('every: 5 minutes'))
      .toMatchObject([{ severity: 'warning' }, { severity: 'warning' }]);
    const [idle, keep] = await wal('every: 1 hour');
    expect(idle).toMatchObject({ severity: 'error', problem: expect.stringContaining('600 seconds') });
    for (const finding of [idle, keep]) for (const sql of sqlOf(finding).split(';')) await onSource.query(sql);
    await expect.poll(async () => await wal('every: 1 hour')).toEqual([]);
    await onSource.query('ALTER SYSTEM RESET ALL');
    await onSource.query('SELECT pg_reload_conf()');
  });

  test('where the role may not publish: SQL that an owner runs', async () => {
    await makeTable();
    await makeTable('owned "elsewhere"'.replaceAll('"', '""'));
    await onSource.query('ALTER TABLE shop."owned ""elsewhere""" OWNER TO postgres');
    await onSource.query(`GRANT SELECT ON ALL TABLES IN SCHEMA shop TO ${ROLE_SQL}`);
    const [made] = found(await examine(), 'publication');
    expect(made).toMatchObject({ severity: 'error', problem: expect.stringContaining('is owned by another role') });
    await onSource.query(sqlOf(made));
    expect(found(await examine(), 'publication')).toEqual([]);
    await makeTable('more');
    const [grown] = found(await examine(), 'publication');
    expect(grown).toMatchObject({
      severity: 'error',
      problem: expect.stringContaining('the publication is owned by another role'),
    });
    await onSource.query(sqlOf(grown));
    expect(found(await examine(), 'publication')).toEqual([]);
    await onSource.query("ALTER PUBLICATION sluice_postgres SET (publish = 'insert')");
    const [silent] = found(await examine(), 'publication');
    expect(silent?.problem).toContain('every update, delete, truncate');
    await onSource.query(sqlOf(silent));
    expect(found(await examine(), 'publication')).toEqual([]);
  });
});

describe('the tables', () => {
  test('one that is named and cannot be followed is an error; one that a glob leaves out is not', async () => {
    await makeTable();
    await makeTable('keyless', '(id int)');
    await onSource.query('CREATE VIEW shop.v AS SELECT 1 AS id');
    const globbed = await examine();
    expect(errors(globbed)).toEqual([]);
    expect(found(globbed, 'tables_left_out').map(({ severity, subject }) => [severity, subject])).toEqual([
      ['warning', 'table shop.keyless'],
      ['info', 'table shop.v'],
    ]);
    const named = errors(await examine({ tables: 'shop.keyless, shop.v, shop.nowhere, "nothing.*"' }));
    expect(named.map(({ check, problem }) => [check, problem])).toEqual([
      ['tables_selected', expect.stringContaining('no table shop.nowhere')],
      ['tables_selected', expect.stringContaining('nothing.*')],
      ['tables_selected', expect.stringContaining('shop.keyless has no primary key')],
      ['tables_selected', expect.stringContaining('shop.v is a view')],
    ]);
  });

  test('rights and policies, with SQL that mends them', async () => {
    await makeTable('secret');
    await makeTable('policed');
    await onSource.query(`ALTER TABLE shop.policed ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.policed OWNER TO postgres;
      ALTER TABLE shop.secret OWNER TO postgres; GRANT SELECT ON shop.policed TO ${ROLE_SQL}; CREATE PUBLICATION sluice_postgres FOR ALL TABLES`);
    const tables = 'shop.secret, shop.policed';
    const faults = errors(await examine({ tables }));
    expect(faults.map(({ subject }) => subject)).toEqual(['table shop.policed', 'table shop.secret']);
    await onSource.query(sqlOf(faults[1]));
    expect(faults[0]?.remedy).toContain(`ALTER ROLE ${ROLE_SQL} BYPASSRLS`);
    await onSource.query(`ALTER ROLE ${ROLE_SQL} BYPASSRLS`);
    expect(errors(await examine({ tables }))).toEqual([]);
    await onSource.query(`ALTER ROLE ${ROLE_SQL} NOBYPASSRLS`);
  });
});

describe('the target', () => {
  test('read-only, by setting or as a standby', async () => {
    await makeTable();
    await onTarget.query(`ALTER ROLE ${ROLE_SQL} SET default_transaction_read_only = on`);
    expect(found(await examine(), 'target_writable')).toMatchObject([
      { severity: 'error', problem: expect.stringContaining('read-only') },
    ]);
    await onTarget.query(`ALTER ROLE ${ROLE_SQL} RESET ALL`);
    await using standby = await startStandby(target);
    expect(found(await examine({ targetServer: standby }), 'target_writable')[0]?.problem).toContain('standby');
  });

  test('where the role lacks rights: SQL that gives them', async () => {
    await makeTable();
    await onTarget.query(`REVOKE CREATE ON DATABASE postgres FROM ${ROLE_SQL}`);
    const [database] = found(await examine(), 'target_rights');
    expect(database?.problem).toContain('it may not make schema _sluice, shop');
    await onTarget.query('CREATE SCHEMA shop; CREATE SCHEMA _sluice; CREATE TABLE _sluice.streams (x int)');
    const rights = found(await examine(), 'target_rights');
    expect(rights.map(({ problem }) => /schema \w+/.exec(problem)?.[0])).toEqual([
      'schema _sluice',
      'schema shop',
      'schema _sluice',
    ]);
    for (const finding of rights.slice(0, 2)) await onTarget.query(sqlOf(finding));
    await onTarget.query('DROP TABLE _sluice.streams');
    expect(errors(await examine())).toEqual([]);
    await onTarget.query('DROP SCHEMA shop CASCADE; DROP SCHEMA _sluice CASCADE');
    await onTarget.query(sqlOf(database));
    expect(errors(await examine())).toEqual([]);
  });

  test('with a table that is not ours', async () => {
    await makeTable();
    await onTarget.query('CREATE SCHEMA shop; CREATE TABLE shop.orders (id int)');
    await onTarget.query(`GRANT ALL ON SCHEMA shop TO ${ROLE_SQL}`);
    expect(errors(await examine())).toMatchObject([
      { check: 'target_tables', subject: 'table shop.orders', problem: expect.stringContaining('did not make it') },
    ]);

    await onTarget.query(`CREATE SCHEMA _sluice; GRANT ALL ON SCHEMA _sluice TO ${ROLE_SQL};
      CREATE TABLE _sluice.streams (pipeline text, stream text, incarnation text, target_schema text, target_table text, made bool);
      GRANT ALL ON _sluice.streams TO ${ROLE_SQL}; INSERT INTO _sluice.streams VALUES ('other', 's', 'i', 'shop', 'orders', true)`);
    expect(errors(await examine())[0]?.problem).toContain('belongs to pipeline other, stream s');

    const stream = streamId({ schema: 'shop', table: 'orders' });
    await onTarget.query("UPDATE _sluice.streams SET pipeline = 'test', stream = $1", [stream]);
    const [notOwned, ...rest] = errors(await examine());
    expect(notOwned?.problem).toContain('owned by another role');
    expect(rest).toEqual([]);
    await onTarget.query(sqlOf(notOwned));
    expect(errors(await examine())).toEqual([]);

    // Another ledger's rows: only who looked at a ledger can tell.
    expect(errors(await examine({ chain: null }))).toMatchObject([
      { check: 'target_ledger', problem: expect.stringContaining('another ledger') },
    ]);
  });

  test('that is the source itself, by whatever address', async () => {
    await makeTable();
    const findings = errors(await examine({ targetServer: source, options: ', application_name: a' }));
    expect(findings.length).toBeGreaterThan(0);
    for (const { problem } of findings) expect(problem).toContain('same database');
    // `localhost` is another name for the same server: the file cannot tell, the servers can.
    const aliased = await examine({ targetServer: { ...source, host: 'localhost' } });
    expect(errors(aliased)).toMatchObject([
      { check: 'target_tables', problem: expect.stringContaining('same database') },
    ]);
  });
});

describe('what the file hides', () => {
  test('names of columns that are not there', async () => {
    await makeTable('orders', '(id int PRIMARY KEY, t text, notes text)');
    const findings = await examine({
      tables: '{ table: shop.orders, columns: { exclude: [notse] }, mask: { t: redact, gone: redact } }',
    });
    const found = findings.filter(({ check }) => check === 'columns_unknown');
    expect(
      found.map(({ severity, subject, problem, remedy }) => [severity, subject, problem.includes('notse'), remedy]),
    ).toEqual([
      ['warning', 'table shop.orders', true, 'Did you mean notes?'],
      ['warning', 'table shop.orders', false, 'Correct the name; or keep it for a column that is still to come.'],
    ]);
    expect(await examine({ tables: '{ table: "shop.*", mask: { t: redact } }' })).not.toContainEqual(
      expect.objectContaining({ check: 'columns_unknown' }),
    );
  });

  test('columns of the key that are left out or masked', async () => {
    await makeTable();
    for (const [entry, problem] of [
      ['columns: { exclude: [id] }', 'columns leaves it out'],
      ['mask: { id: null }', 'would make its rows one'],
    ] as const) {
      const findings = await examine({ tables: `{ table: shop.orders, ${entry} }` });
      expect(findings.find(({ check }) => check === 'tables_selected')?.problem).toContain(problem);
    }
  });

  test('a row filter over columns that the log has no old values of, and one that is no condition', async () => {
    await makeTable();
    const tables = '{ table: shop.orders, where: "t = \'a\'" }';
    const [found] = (await examine({ tables })).filter(({ check }) => check === 'row_filters');
    expect(found).toMatchObject({ severity: 'error', subject: 'table shop.orders' });
    expect(found?.remedy).toContain('REPLICA IDENTITY FULL');
    await onSource.query('ALTER TABLE shop.orders REPLICA IDENTITY FULL');
    expect((await examine({ tables })).filter(({ check }) => check === 'row_filters')).toEqual([]);
    const [wrong] = (await examine({ tables: '{ table: shop.orders, where: nothing > 1 }' })).filter(
      ({ check }) => check === 'row_filters',
    );
    expect(wrong?.problem).toContain('does not take it');
    const publication = (await examine({ tables })).find(({ check }) => check === 'publication');
    expect(publication).toMatchObject({ severity: 'info' });
  });
});
