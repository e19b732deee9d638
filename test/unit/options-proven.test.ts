/**
 * Every option that is declared is read by code, and is named by a behavioural test: whoever adds an option and does nothing with it, or shows nothing of it, is told
 * here. What such a test shows is its own business; that it is there is this one's.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { optionsOf, schemaAt } from '../../lib/config/expectation.ts';

/** Where each option is shown to do what it says: a file below test/, and the titles of its tests name it. Connections are alike on both sides. */
const PROVEN: Readonly<Record<string, string>> = {
  pipeline: 'pg/load-transaction.test.ts',
  source: 'e2e/engine.test.ts',
  tables: 'unit/selection.test.ts',
  target: 'e2e/engine.test.ts',
  mask_salt: 'pg/projection.test.ts',
  schedule: 'e2e/engine.test.ts',

  'connection.host': 'pg/connector.test.ts',
  'connection.port': 'pg/connector.test.ts',
  'connection.user': 'pg/connector.test.ts',
  'connection.password': 'pg/connector.test.ts',
  'connection.database': 'pg/connector.test.ts',
  'connection.connect_timeout_seconds': 'pg/connection-options.test.ts',
  'connection.application_name': 'pg/connection-options.test.ts',
  'connection.ssl': 'pg/tls.test.ts',
  'connection.ssh': 'pg/ssh-tunnel.test.ts',

  'ssl.mode': 'pg/tls.test.ts',
  'ssl.ca': 'pg/tls.test.ts',
  'ssl.cert': 'pg/tls.test.ts',
  'ssl.key': 'pg/tls.test.ts',
  'ssl.key_password': 'pg/tls.test.ts',
  'ssl.server_name': 'pg/tls.test.ts',

  'ssh.host': 'pg/ssh-tunnel.test.ts',
  'ssh.port': 'pg/ssh-tunnel.test.ts',
  'ssh.user': 'pg/ssh-tunnel.test.ts',
  'ssh.private_key': 'pg/ssh-tunnel.test.ts',
  'ssh.passphrase': 'pg/ssh-tunnel.test.ts',
  'ssh.host_key': 'pg/ssh-tunnel.test.ts',

  'source.plugin': 'pg/wal2json.test.ts',
  'source.slot_reader': 'pg/peek-line.test.ts',
  'source.replication_slot': 'pg/options.test.ts',
  'source.publication_name': 'pg/options.test.ts',
  'source.fold_partitions': 'pg/partitions.test.ts',
  'source.create_slot': 'pg/options.test.ts',
  'source.failover': 'pg/failover.test.ts',
  'source.logical_poll_total_seconds': 'unit/pipeline-drain.test.ts',
  'source.break_at_end_lsn': 'unit/pipeline-drain.test.ts',
  'source.max_run_seconds': 'unit/pipeline-drain.test.ts',
  'source.itersize': 'pg/incremental.test.ts',
  'source.batch_fetch_limit': 'pg/query-streams.test.ts',
  'source.use_secondary': 'pg/secondary.test.ts',
  'source.secondary_host': 'pg/connector.test.ts',
  'source.secondary_port': 'pg/connector.test.ts',
  'source.debug_lsn': 'pg/debug-lsn.test.ts',
  'source.wal_sender_timeout': 'unit/slot-reader.test.ts',

  'tables.table': 'unit/selection.test.ts',
  'tables.replication_method': 'pg/query-and-log.test.ts',
  'tables.replication_key': 'pg/query-and-log.test.ts',
  'tables.lookback': 'pg/incremental.test.ts',
  'tables.key_properties': 'pg/incremental.test.ts',
  'tables.columns': 'pg/projection.test.ts',
  'tables.mask': 'pg/projection.test.ts',
  'tables.where': 'pg/row-filter.test.ts',
  'tables.json_schema': 'pg/validation.test.ts',
  'tables.target_schema': 'pg/options.test.ts',
  'tables.target_table': 'pg/options.test.ts',
  'tables.schedule': 'pg/table-schedules.test.ts',

  'target.default_target_schema': 'pg/options.test.ts',
  'target.schema_mapping': 'pg/options.test.ts',
  'target.default_target_schema_select_permissions': 'pg/target-readers.test.ts',
  'target.hard_delete': 'pg/metadata-options.test.ts',
  'target.add_metadata_columns': 'pg/metadata-options.test.ts',
  'target.consistency': 'pg/consistency.test.ts',
  'target.batch_size_rows': 'pg/batches.test.ts',
  'target.batch_flush_interval': 'pg/batches.test.ts',
  'target.batch_flush_min_time_gap': 'pg/batches.test.ts',
  'target.flush_all_streams': 'pg/batches.test.ts',
  'target.parallelism': 'e2e/engine.test.ts',
  'target.max_parallelism': 'e2e/engine.test.ts',
  'target.stage_retention_days': 'infra/stateful-stack.test.ts',
  'target.custom_types': 'pg/custom-types.test.ts',
  'target.primary_key_required': 'pg/keyless.test.ts',
  'target.on_type_change': 'pg/load-shape.test.ts',
  'target.on_drop_column': 'pg/load-shape.test.ts',
  'target.validate_records': 'pg/validation.test.ts',
  'target.on_invalid': 'pg/validation.test.ts',
  'target.on_error': 'pg/quarantine.test.ts',
  'target.quarantine_rows_max': 'pg/quarantine.test.ts',
  'target.indices': 'pg/load-indices.test.ts',
  'target.data_flattening_max_level': 'pg/flattening.test.ts',
  'target.on_truncate': 'pg/truncate-unlogged.test.ts',

  'schedule.every': 'pg/table-schedules.test.ts',
  'schedule.cron': 'pg/table-schedules.test.ts',
  'schedule.timezone': 'infra/schedule.test.ts',
  'schedule.anchor': 'infra/schedule.test.ts',
  'schedule.continuous': 'unit/scheduler.test.ts',
  'schedule.paused': 'pg/table-schedules.test.ts',
};

/** What only declares options, holds them against each other, or writes of them: reading there proves nothing. */
const DECLARES =
  /^lib\/config\/(?:connection|source|target|tables|option|rules|[a-z-]+-rules|reference|unavailable|initial-pipeline|expectation|explain)\.ts$|^lib\/singer\//;

const ROOT = new URL('../../', import.meta.url);
const textOf = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8');

/** Sections by what the page calls them, with the path at which their options are found. */
const SECTIONS: Readonly<Record<string, readonly string[]>> = {
  '': [],
  source: ['source'],
  ssl: ['source', 'ssl'],
  ssh: ['source', 'ssh'],
  tables: ['tables'],
  target: ['target'],
  schedule: ['schedule'],
};

const namesIn = (path: readonly string[]): string[] => {
  const schema = schemaAt(path);
  return schema === null || schema === undefined ? [] : Object.keys(optionsOf(schema));
};

function declared(): string[] {
  const both = namesIn(['source']).filter((name) => namesIn(['target']).includes(name));
  return Object.entries(SECTIONS).flatMap(([section, path]) =>
    namesIn(path).map((name) => {
      if ((section === 'source' || section === 'target') && both.includes(name)) return `connection.${name}`;
      return section === '' ? name : `${section}.${name}`;
    }),
  );
}

/** Code of the product, without comments. */
const CODE = ['lib', 'functions', 'infra', 'cli']
  .flatMap((folder) =>
    readdirSync(new URL(folder, ROOT), { recursive: true, encoding: 'utf8' }).map((file) => `${folder}/${file}`),
  )
  .filter((path) => path.endsWith('.ts') && !DECLARES.test(path))
  .map((path) => textOf(path).replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, ''));

/** Titles of tests and of what they are described under; and, where titles are made of a table, what its rows begin with. */
function titlesIn(text: string): string[] {
  const titles = text.matchAll(/\b(?:test|describe)(?:\.\w+)*(?:<[^>]*>)?\(\s*(['"`])((?:\\.|(?!\1)[\s\S])*)\1/g);
  const ofTables = text.matchAll(/\)\(\s*(['"`])((?:\\.|(?!\1)[\s\S])*)\1/g);
  const rows = text.matchAll(/^\s*\[(['"`])((?:\\.|(?!\1).)*)\1/gm);
  return [...titles, ...ofTables, ...rows].map(([, , title = '']) => title);
}

const nameOf = (option: string): string => option.split('.').at(-1) ?? option;

test('the table has every option, and no other', () => {
  expect(Object.keys(PROVEN).toSorted()).toEqual([...new Set(declared())].toSorted());
});

describe('every option', () => {
  test.each(Object.entries(PROVEN))('%s is read by code, and is named by a test of %s', (option, file) => {
    const name = nameOf(option);
    const read = new RegExp(`[.]${name}\\b|[{,(]\\s*${name}\\s*[,:=})]`);
    expect(
      CODE.some((code) => read.test(code)),
      'read by code outside of its declaration',
    ).toBe(true);
    const word = new RegExp(`(?<![\\w.])(?:[\\w.]*[.])?${name}\\b`);
    expect(
      titlesIn(textOf(`test/${file}`)).some((title) => word.test(title)),
      `a title in test/${file} names ${name}`,
    ).toBe(true);
  });
});
