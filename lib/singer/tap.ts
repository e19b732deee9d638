/**
 * tap-postgres' config.json as the pipeline's source, with what differs in defaults written out. Pure.
 */
import { sourceOptions } from '../config/source.ts';
import { addConnection } from './connection.ts';
import { Section } from './section.ts';
import type { Settings } from './settings.ts';

/** The tap's default, and what its 0 means. */
const POLL_SECONDS = 10_800;

export interface Tap {
  readonly section: Section;
  readonly database: string;
  /** Schemas that it looks into; empty: all. */
  readonly schemas: readonly string[];
  /** One table that it reads, where it is configured for one (Macrometa). */
  readonly table: string | null;
  readonly default_method: string | null;
  readonly default_key: string | null;
  /** The pipeline's name. */
  readonly id: string;
}

const LEFT: Readonly<Record<string, string>> = {
  limit: 'a window takes all that is new, in pages of itersize rows.',
  emit_state_interval: 'positions are recorded with every cut.',
  frequency: 'positions are recorded with every cut.',
  wal2json_message_format: 'pgoutput is read; with plugin: wal2json the newest format that the plugin has.',
  include_schemas_in_destination_stream_name: 'tables keep their schema; see target_schema and schema_mapping.',
  itersize_per_stream: 'itersize is one for all tables.',
  max_record_count: 'a run takes all that is new.',
  stream_maps: 'see columns, mask and where of tables: what they hid or left out is replicated else.',
  stream_options: 'see where of tables: rows that they left out are replicated else.',
  fastsync_parallelism: 'copies are read by as many functions as target.parallelism allows.',
};

/** Throws USAGE for what cannot be read. */
export function tapOf(settings: Settings, file: string): Tap {
  const section = new Section('source');
  const database = addConnection(section, settings, file);
  section.set(
    'break_at_end_lsn',
    settings.flag('break_at_end_lsn') ?? true,
    settings.has('break_at_end_lsn') ? null : "The tap's default; Sluice's own is false.",
  );
  const poll = settings.whole('logical_poll_total_seconds');
  section.setWithin(sourceOptions, 'logical_poll_total_seconds', poll === 0 ? POLL_SECONDS : poll);
  section.setWithin(sourceOptions, 'max_run_seconds', settings.whole('max_run_seconds'));
  section.setWithin(sourceOptions, 'itersize', settings.whole('itersize', 'batch_fetch_limit', 'cursor_iter_size'));
  if (settings.flag('debug_lsn') === true) {
    section.set('debug_lsn', true);
    section.remark('debug_lsn: _sdc_lsn is of type pg_lsn here, and NULL in rows that a copy has brought.');
  }
  const tap_id = settings.text('tap_id');
  addSecondary(section, settings);
  slotRemark(section, settings, database, tap_id);
  const databases = settings.list('filter_dbs');
  if (databases.some((name) => name !== database)) {
    section.remark(
      `filter_dbs names more than ${database}: a pipeline reads one database, so each needs a file of its own.`,
    );
  }
  const tap = {
    section,
    database,
    schemas: settings.list('filter_schemas', 'schema', 'source_schema'),
    table: settings.text('source_table', 'table'),
    default_method: settings.text('default_replication_method', 'replication_method'),
    default_key: settings.text('default_replication_key'),
    id: tap_id ?? database,
  };
  section.leave(settings, LEFT);
  return tap;
}

function addSecondary(section: Section, settings: Settings): void {
  const host = settings.text('secondary_host');
  const port = settings.whole('secondary_port');
  if (settings.flag('use_secondary') !== true) return;
  if (host === null) {
    section.remark('use_secondary is left out: it has no secondary_host.');
    return;
  }
  section.set('use_secondary', true);
  section.set('secondary_host', host);
  section.set('secondary_port', port);
}

/** A slot has one reader, and the tap's is wal2json's. */
function slotRemark(section: Section, settings: Settings, database: string, tap_id: string | null): void {
  const own = settings.text('replication_slot', 'replication_slot_name', 'slot_name');
  const usual = ['pipelinewise', database, ...(tap_id === null ? [] : [tap_id])].join('_').toLowerCase();
  const slot = own ?? usual.replaceAll(/[^a-z0-9_]/g, '_');
  section.remark(
    `a slot of its own is made, and every table copied once: the tap's slot (${slot}) is not read. Drop it when the tap is off, for it holds the log: SELECT pg_drop_replication_slot('${slot}')`,
  );
}
