/**
 * `sluice init --from-singer`: the files of a Singer pipeline as a pipeline file that means the same, with what differs said, and no secret in it.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { registerInit } from '../../cli/init.ts';
import { readPipeline } from '../../lib/config/read.ts';
import { SluiceError } from '../../lib/errors.ts';
import { type SingerFiles, singerPipeline } from '../../lib/singer/pipeline.ts';

const SECRET = 'hunter2-never-written';

const TAP = { host: 'db.internal', port: '5433', user: 'tap', password: SECRET, dbname: 'Web_Shop' };
const TARGET = { host: 'warehouse.internal', port: 5432, user: 'loader', password: SECRET, dbname: 'analytics' };

interface Given {
  readonly tap?: object;
  readonly catalog?: unknown;
  readonly target?: object;
}

function converted({ tap = {}, catalog, target }: Given = {}) {
  const files: SingerFiles = {
    config: { path: 'config.json', data: { ...TAP, ...tap } },
    catalog: catalog === undefined ? null : { path: 'catalog.json', data: catalog },
    target: target === undefined ? null : { path: 'target.json', data: { ...TARGET, ...target } },
    name: null,
  };
  const found = singerPipeline(files);
  expect(found.text).not.toContain(SECRET);
  expect(Math.max(...found.text.split('\n').map((line) => (line.startsWith('  - {') ? 0 : line.length)))).toBeLessThan(
    260,
  );
  return { ...found, pipeline: readPipeline(found.text, 'pipeline.yaml') };
}

/** A stream as `tap-postgres --discover` has it, selected. */
function stream(name: string, root: object = {}, columns: Readonly<Record<string, object>> = {}) {
  const [schema = '', table = ''] = name.split('.');
  return {
    tap_stream_id: `${schema}-${table}`,
    stream: table,
    table_name: table,
    schema: { type: 'object', properties: {} },
    metadata: [
      { breadcrumb: [], metadata: { 'schema-name': schema, 'database-name': 'Web_Shop', selected: true, ...root } },
      ...Object.entries(columns).map(([column, metadata]) => ({ breadcrumb: ['properties', column], metadata })),
    ],
  };
}

describe("tap-postgres' config.json", () => {
  test('the least of it: what the tap does by default is written out where Sluice does otherwise', () => {
    const { pipeline, environment, name } = converted();
    expect(name).toBe('web-shop');
    expect(environment).toEqual(['SOURCE_PASSWORD']);
    expect(pipeline.source).toMatchObject({
      host: 'db.internal',
      port: 5433,
      user: 'tap',
      password: { from: 'env', name: 'SOURCE_PASSWORD' },
      database: 'Web_Shop',
      break_at_end_lsn: true,
      logical_poll_total_seconds: 10_800,
      max_run_seconds: 43_200,
      itersize: 20_000,
      debug_lsn: false,
      ssl: { mode: 'disable' },
    });
    expect(pipeline.tables.map(({ table }) => table)).toEqual(['public.*']);
  });

  test('all of it, in text as old taps have it', () => {
    const { pipeline, remarks, name, text } = converted({
      tap: {
        tap_id: 'Shop Tap',
        filter_schemas: 'public, sales',
        ssl: 'true',
        logical_poll_total_seconds: '0',
        break_at_end_lsn: 'false',
        max_run_seconds: '3600',
        debug_lsn: 'true',
        itersize: '5000',
        use_secondary: 'True',
        secondary_host: 'replica.internal',
        secondary_port: '5434',
        wal2json_message_format: 2,
        limit: 1000,
        something_else: SECRET,
      },
    });
    expect(name).toBe('shop-tap');
    expect(pipeline.source).toMatchObject({
      ssl: { mode: 'require' },
      logical_poll_total_seconds: 10_800,
      break_at_end_lsn: false,
      max_run_seconds: 3600,
      debug_lsn: true,
      itersize: 5000,
      use_secondary: true,
      secondary_host: 'replica.internal',
      secondary_port: 5434,
      plugin: 'pgoutput',
    });
    expect(pipeline.tables.map(({ table }) => table)).toEqual(['public.*', 'sales.*']);
    for (const what of [
      'limit is left out',
      'wal2json_message_format is left out',
      'something_else is left out',
      'debug_lsn: ',
    ])
      expect(
        remarks.some((remark) => remark.includes(what)),
        what,
      ).toBe(true);
    expect(remarks.join('\n')).toContain("pg_drop_replication_slot('pipelinewise_web_shop_shop_tap')");
    // What is said on the way is said in the file as well.
    const said = text.split('\n').flatMap((line) => (line.startsWith('#') ? [line.slice(1).trim()] : []));
    for (const remark of remarks) expect(said.join(' ')).toContain(remark);
  });

  test('what is out of bounds is left out', () => {
    const { pipeline, remarks } = converted({ tap: { itersize: 0, max_run_seconds: 99_999_999 } });
    expect([pipeline.source.itersize, pipeline.source.max_run_seconds]).toEqual([20_000, 43_200]);
    for (const name of ['itersize', 'max_run_seconds'])
      expect(
        remarks.some((remark) => remark.includes(`${name} is left out: its value is out of bounds`)),
        name,
      ).toBe(true);
  });

  test('certificates, and a key that is a secret (Macrometa)', () => {
    const ca = '-----BEGIN CERTIFICATE----- AAAA BBBB -----END CERTIFICATE-----';
    const { pipeline, environment, text } = converted({
      tap: {
        ssl: true,
        ssl_root_ca_cert: ca,
        ssl_client_certificate: './client.crt',
        ssl_client_key: `-----BEGIN PRIVATE KEY-----\n${SECRET}\n-----END PRIVATE KEY-----`,
        ssl_client_password: SECRET,
      },
    });
    expect(environment).toEqual(['SOURCE_PASSWORD', 'SOURCE_CLIENT_KEY', 'SOURCE_CLIENT_KEY_PASSWORD']);
    expect(pipeline.source.ssl).toEqual({
      mode: 'verify-ca',
      ca: { from: 'text', pem: '-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----' },
      cert: { from: 'file', path: './client.crt' },
      key: { from: 'env', name: 'SOURCE_CLIENT_KEY' },
      key_password: { from: 'env', name: 'SOURCE_CLIENT_KEY_PASSWORD' },
      server_name: null,
    });
    expect(text).not.toContain('PRIVATE KEY');
  });

  test('a tunnel is not opened to a host that nobody knows: it stands in a comment, and is said', () => {
    const { text, remarks } = converted({
      tap: { use_ssh_tunnel: true, ssh_jump_server: 'bastion', ssh_username: 'jump', ssh_private_key_path: './id' },
    });
    expect(text).toMatch(/^ {2}# ssh: \{ host: bastion, port: 22, user: jump, private_key: \.\/id, host_key:/mu);
    expect(remarks.join('\n')).toContain('ssh-keyscan -p 22 bastion');
  });

  test('one table by query, without a catalog', () => {
    const { pipeline } = converted({
      tap: {
        filter_schemas: 'sales',
        source_table: 'orders',
        default_replication_method: 'INCREMENTAL',
        default_replication_key: 'updated_at',
      },
      target: { target_table: 'all_orders' },
    });
    expect(pipeline.tables).toMatchObject([
      {
        table: 'sales.orders',
        replication_method: 'INCREMENTAL',
        replication_key: 'updated_at',
        target_table: 'all_orders',
      },
    ]);
  });
});

describe("the tap's catalog.json", () => {
  test('streams that are selected, each with its method, key and columns', () => {
    const view = { 'is-view': true, 'view-key-properties': ['id', 'day'] };
    const { pipeline, tables, text } = converted({
      catalog: {
        streams: [
          stream('public.orders', { 'replication-method': 'LOG_BASED' }),
          stream('public.events', { 'replication-method': 'INCREMENTAL', 'replication-key': 'updated_at' }),
          stream('public.report', { 'replication-method': 'FULL_TABLE', ...view }),
          stream('public.left', { selected: false, 'replication-method': 'LOG_BASED' }),
          stream(
            'odd.A "b"-c',
            { 'replication-method': 'LOG_BASED' },
            {
              id: { inclusion: 'automatic', selected: false },
              note: { inclusion: 'available', selected: false },
              secret: { inclusion: 'available', selected: 'false' },
              open: { inclusion: 'available', selected: true },
              silent: { inclusion: 'available' },
              shape: { inclusion: 'unsupported', 'selected-by-default': false },
            },
          ),
        ],
      },
    });
    expect(tables).toBe(4);
    expect(text).toContain('The catalog has 1 more, which are not selected.');
    expect(pipeline.tables).toMatchObject([
      { table: 'public.orders', replication_method: 'LOG_BASED', columns: null },
      { table: 'public.events', replication_method: 'INCREMENTAL', replication_key: 'updated_at' },
      { table: 'public.report', replication_method: 'FULL_TABLE', key_properties: ['id', 'day'] },
      {
        table: 'odd."A ""b""-c"',
        replication_method: 'LOG_BASED',
        columns: { include: null, exclude: ['note', 'secret'] },
      },
    ]);
  });

  test('what the tap would not do, or Sluice does otherwise, is said', () => {
    const { pipeline, remarks } = converted({
      tap: { default_replication_method: 'FULL_TABLE' },
      catalog: {
        streams: [
          stream('public.view', { 'replication-method': 'LOG_BASED', 'is-view': true }),
          stream('public.keyless', { 'replication-method': 'LOG_BASED', 'table-key-properties': [] }),
          stream('public.no_key', { 'replication-method': 'INCREMENTAL' }),
          stream('public.other', { 'database-name': 'crm' }),
          stream('public.by_default', {}, { shape: { inclusion: 'unsupported' } }),
          { tap_stream_id: 'nowhere', stream: 'nowhere', schema: { selected: true }, metadata: [] },
        ],
      },
    });
    expect(pipeline.tables.map(({ table, replication_method }) => [table, replication_method])).toEqual([
      ['public.view', 'FULL_TABLE'],
      ['public.keyless', 'LOG_BASED'],
      ['public.by_default', 'FULL_TABLE'],
    ]);
    for (const what of [
      'public.view: a view is not in the log',
      'public.keyless: it has no primary key',
      'public.no_key: it is left out: INCREMENTAL needs a replication-key',
      'public.other is left out: it is in database crm',
      'public.by_default: columns that the tap did not support are replicated: shape',
      'nowhere is left out: the catalog does not say its schema',
    ]) {
      expect(
        remarks.some((remark) => remark.startsWith(what)),
        what,
      ).toBe(true);
    }
  });

  test('columns of a key are replicated, selected or not; a method that is empty says nothing', () => {
    const columns = { k: { selected: false }, t: { selected: false }, v: { selected: false } };
    const { pipeline, remarks } = converted({
      tap: { default_replication_method: 'FULL_TABLE' },
      catalog: {
        streams: [
          stream(
            'public.a',
            { 'table-key-properties': ['k'], 'replication-method': 'INCREMENTAL', 'replication-key': 't' },
            columns,
          ),
          stream('public.b', { 'replication-method': '', 'forced-replication-method': '' }),
        ],
      },
    });
    expect(pipeline.tables).toMatchObject([
      { columns: { exclude: ['v'] } },
      { table: 'public.b', replication_method: 'FULL_TABLE' },
    ]);
    expect(remarks.filter((remark) => remark.startsWith('public.a: k, t'))).toHaveLength(1);
  });

  test('older spellings: the selection in the schema, names in the stream, the database before them', () => {
    const { pipeline } = converted({
      catalog: {
        streams: [
          {
            tap_stream_id: 'Web_Shop-public-orders',
            stream: 'orders',
            schema: { selected: true },
            replication_method: 'INCREMENTAL',
            replication_key: 'id',
          },
          {
            tap_stream_id: 'sales-two-words',
            stream: 'sales-two-words',
            metadata: [{ breadcrumb: [], metadata: { selected: 'true' } }],
          },
        ],
      },
    });
    expect(pipeline.tables).toMatchObject([
      { table: 'public.orders', replication_method: 'INCREMENTAL', replication_key: 'id' },
      { table: 'sales.two-words', replication_method: 'LOG_BASED' },
    ]);
  });
});

describe("target-postgres' config.json", () => {
  test("PipelineWise's", () => {
    const { pipeline, remarks, environment } = converted({
      target: {
        default_target_schema: 'replica',
        schema_mapping: {
          public: {
            target_schema: 'shop',
            target_schema_select_permissions: ['grp_shop'],
            indices: { orders: ['customer_id', 'placed_at,region'] },
          },
          sales: { target_schema: 'sales' },
        },
        default_target_schema_select_permissions: ['grp_power'],
        batch_size_rows: 5000,
        flush_all_streams: 'true',
        parallelism: -1,
        parallelism_max: 8,
        add_metadata_columns: false,
        hard_delete: true,
        data_flattening_max_level: 20,
        primary_key_required: 'false',
        validate_records: false,
        disable_table_cache: true,
      },
    });
    expect(environment).toEqual(['SOURCE_PASSWORD', 'TARGET_PASSWORD']);
    expect(pipeline.target).toMatchObject({
      host: 'warehouse.internal',
      password: { from: 'env', name: 'TARGET_PASSWORD' },
      database: 'analytics',
      default_target_schema: 'replica',
      schema_mapping: { public: 'shop', sales: 'sales' },
      default_target_schema_select_permissions: ['grp_power', 'grp_shop'],
      indices: {
        'public.orders': [
          { columns: ['customer_id'], unique: false, where: null },
          { columns: ['placed_at', 'region'], unique: false, where: null },
        ],
      },
      batch_size_rows: 5000,
      flush_all_streams: true,
      parallelism: -1,
      max_parallelism: 8,
      hard_delete: true,
      add_metadata_columns: true,
      data_flattening_max_level: 10,
      primary_key_required: false,
      validate_records: false,
    });
    for (const what of [
      'add_metadata_columns is left out',
      'data_flattening_max_level is at most 10',
      'disable_table_cache',
    ])
      expect(
        remarks.some((remark) => remark.includes(what)),
        what,
      ).toBe(true);
    expect(remarks.at(-1)).toContain('tables that exist are not taken over');
  });

  test("Macrometa's", () => {
    const { pipeline, remarks } = converted({
      catalog: { streams: [stream('public.orders', { 'replication-method': 'LOG_BASED' })] },
      target: {
        target_table: 'orders_copy',
        default_target_schema_select_permission: 'SELECT',
        connect_timeout: '-1',
        batch_flush_interval: '30',
        batch_flush_min_time_gap: 10,
        ssl: false,
      },
    });
    expect(pipeline.tables).toMatchObject([{ table: 'public.orders', target_table: 'orders_copy' }]);
    expect(pipeline.target).toMatchObject({
      connect_timeout_seconds: 0,
      batch_flush_interval: 30,
      batch_flush_min_time_gap: 10,
      default_target_schema_select_permissions: [],
      batch_size_rows: 10_000,
    });
    expect(remarks.some((remark) => remark.includes('names a privilege'))).toBe(true);
  });

  test("datamill-co's", () => {
    const { pipeline, remarks } = converted({
      target: {
        host: undefined,
        port: undefined,
        user: undefined,
        password: undefined,
        dbname: undefined,
        postgres_host: 'warehouse',
        postgres_port: 5439,
        postgres_username: 'u',
        postgres_password: SECRET,
        postgres_database: 'd',
        postgres_schema: 's',
        postgres_sslmode: 'verify-full',
        postgres_sslrootcert: './root.crt',
        invalid_records_detect: false,
        invalid_records_threshold: 5,
        persist_empty_tables: true,
      },
    });
    expect(pipeline.target).toMatchObject({
      host: 'warehouse',
      port: 5439,
      user: 'u',
      password: { from: 'env', name: 'TARGET_PASSWORD' },
      database: 'd',
      default_target_schema: 's',
      ssl: { mode: 'verify-full', ca: { from: 'file', path: './root.crt' } },
      validate_records: true,
      on_invalid: 'reject',
    });
    for (const what of ['invalid_records_threshold', 'persist_empty_tables is left out'])
      expect(
        remarks.some((remark) => remark.includes(what)),
        what,
      ).toBe(true);
  });

  test("Meltano's, with the defaults that it writes", () => {
    const tls = { ssl_mode: 'verify-full', ssl_certificate_authority: './root.crt', ssl_client_certificate: './c.crt' };
    const tunnel = { host: 'bastion', port: 2222, username: 'jump', private_key: SECRET, private_key_password: SECRET };
    const { pipeline, text, remarks } = converted({
      tap: {
        ...tls,
        ssl_enable: true,
        ssl_client_certificate_enable: false,
        ssl_client_private_key: './c.key',
        ssh_tunnel: { enable: true, ...tunnel, private_key: `-----BEGIN OPENSSH PRIVATE KEY-----\n${SECRET}` },
        stream_maps: { orders: { card: 'md5(card)' } },
      },
      target: {
        ...tls,
        ssl_enable: false,
        ssh_tunnel: { enable: false, ...tunnel },
        flattening_enabled: true,
        flattening_max_depth: 3,
      },
    });
    expect(pipeline.source.ssl).toMatchObject({ mode: 'verify-full', cert: null, key: null });
    expect(pipeline.target.ssl.mode).toBe('disable');
    expect(pipeline.target.data_flattening_max_level).toBe(3);
    expect(text.replaceAll(/\n {2}# /g, ' ')).toMatch(
      /ssh: \{ host: bastion, port: 2222, user: jump, private_key: \$\{env:SOURCE_SSH_KEY\}, passphrase: \$\{env:SOURCE_SSH_PASSPHRASE\}, host_key:/u,
    );
    expect(text.match(/bastion/gu)).toHaveLength(2);
    expect(remarks.some((remark) => remark.includes('stream_maps is left out: see columns, mask'))).toBe(true);
  });

  test('what is out of bounds is left out', () => {
    const { pipeline, remarks } = converted({ target: { batch_flush_interval: 0, batch_size_rows: 0 } });
    expect(pipeline.target).toMatchObject({ batch_flush_interval: 60, batch_size_rows: 10_000 });
    expect(remarks.filter((remark) => remark.includes('out of bounds'))).toHaveLength(2);
  });

  test.each([
    ['prefer', 'disable', 'sslmode prefer promises nothing'],
    ['disable', 'disable', null],
    ['require', 'require', null],
    ['nonsense', 'disable', 'sslmode is left out'],
  ])('sslmode %s is %s here', (sslmode, mode, said) => {
    const { pipeline, remarks } = converted({ target: { sslmode } });
    expect(pipeline.target.ssl.mode).toBe(mode);
    if (said !== null) expect(remarks.some((remark) => remark.includes(said))).toBe(true);
  });

  test('sslmode disable beside an authority is off, and said to be', () => {
    const { pipeline, remarks } = converted({ target: { sslmode: 'disable', ssl: true, sslrootcert: './ca.pem' } });
    expect(pipeline.target.ssl).toMatchObject({ mode: 'disable', ca: null });
    expect(remarks).toContainEqual(expect.stringContaining('sslmode disable beside other settings'));
  });
});

describe('the command', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'sluice-singer-'));
    await writeFile(join(directory, 'config.json'), JSON.stringify(TAP));
    await writeFile(join(directory, 'target.json'), JSON.stringify(TARGET));
    await writeFile(join(directory, 'broken.json'), `{ "password": "${SECRET}`);
    await writeFile(join(directory, 'list.json'), `["${SECRET}"]`);
  });
  afterAll(() => rm(directory, { recursive: true }));

  async function sluice(...args: readonly string[]) {
    const out: string[] = [];
    const err: string[] = [];
    const program = new Command().exitOverride();
    const connect = async () => Promise.reject(new Error('nothing is asked of a server'));
    registerInit(program, { out: (line) => out.push(line), err: (line) => err.push(line), env: {}, connect });
    const named = args.map((arg) => (arg.endsWith('.json') || arg.endsWith('.yaml') ? join(directory, arg) : arg));
    const error: unknown = await program.parseAsync(['init', ...named], { from: 'user' }).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    return { out, err, error };
  }

  test('writes the file, says on standard error what differs, and tells what to set', async () => {
    const { out, err, error } = await sluice('--from-singer', 'config.json', '--target', 'target.json', '-o', 'a.yaml');
    expect(error).toBeNull();
    expect(out.join('\n')).toContain('set SOURCE_PASSWORD, TARGET_PASSWORD before you run it');
    expect(err.join('\n')).toContain("the tap's slot (pipelinewise_web_shop) is not read");
    const text = await readFile(join(directory, 'a.yaml'), 'utf8');
    expect(readPipeline(text, 'a.yaml').target.host).toBe('warehouse.internal');
    expect(text + out.join('') + err.join('')).not.toContain(SECRET);
    const again = await sluice('--from-singer', 'config.json', '-o', 'a.yaml');
    expect(again.error).toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining('is there already') as string,
    });
  });

  test('to standard output, and as JSON', async () => {
    const printed = await sluice('--from-singer', 'config.json', '-o', '-', '--name', 'mine');
    expect(readPipeline(printed.out.join('\n'), '-').pipeline).toBe('mine');
    expect(printed.err.length).toBeGreaterThan(0);
    const { out } = await sluice('--from-singer', 'config.json', '-o', 'b.yaml', '--json');
    expect(JSON.parse(out.join(''))).toMatchObject({
      pipeline: 'web-shop',
      tables: 1,
      environment: ['SOURCE_PASSWORD'],
    });
  });

  test.each([
    [['--from-singer', 'missing.json'], 'missing.json cannot be read (ENOENT)'],
    [['--from-singer', 'broken.json'], 'broken.json is no JSON.'],
    [['--from-singer', 'list.json'], 'list.json is no JSON object.'],
    [['--from-singer', 'config.json', '--catalog', 'target.json'], 'target.json is no catalog'],
    [['--from-singer', 'config.json', 'postgresql://u@h/d'], 'Both a URL and --from-singer'],
    [['--catalog', 'config.json', 'postgresql://u@h/d'], 'belong to --from-singer'],
    [[], 'Nothing says where the pipeline comes from'],
  ])('init %j is refused: %s', async (args, problem) => {
    const { error } = await sluice(...args);
    expect(error).toBeInstanceOf(SluiceError);
    const { code, message, remedy, cause } = error as SluiceError;
    expect(code).toBe('USAGE');
    expect(message).toContain(problem);
    expect(message + remedy + String(cause)).not.toContain(SECRET);
  });

  test.each([
    [{ host: '' }, 'config.json has no host.'],
    [{ port: 'x' }, 'config.json has port, which is not a number.'],
    [{ ssl: 'maybe' }, 'config.json has ssl, which is not true or false.'],
    [{ filter_schemas: 3 }, 'config.json has filter_schemas, which is not a list.'],
    [{ dbname: {} }, 'config.json has dbname, which is not a text.'],
  ])('%j is refused: %s', (tap, problem) => {
    expect(() => converted({ tap })).toThrow(problem);
  });
});
