/**
 * target-postgres' config.json as the pipeline's target: PipelineWise's (transferwise), Macrometa's, Meltano's and datamill-co's. Pure.
 */
import { targetOptions } from '../config/target.ts';
import { addConnection } from './connection.ts';
import { Section } from './section.ts';
import { isJson, type Settings } from './settings.ts';

const FLATTENING_LEVEL_MAX = 10;
/** Macrometa's target takes a privilege where others take roles. */
const PRIVILEGES = ['USAGE', 'SELECT'];

export interface SingerTarget {
  readonly section: Section;
  /** The one table that it writes, where it is configured for one (Macrometa). */
  readonly table: string | null;
  readonly primary_key_required: boolean;
}

const LEFT: Readonly<Record<string, string>> = {
  postgres_sslcrl: 'lists of revoked certificates are not read.',
  disable_table_cache: "the target's catalog is looked at when a table's shape changes, not before.",
  stream_buffer_size: 'what is read lies in the stage.',
  temp_dir: 'nothing is written to local files.',
  disable_collection: 'nothing is collected.',
  logging_level: 'set SLUICE_DEBUG=1 for more.',
  persist_empty_tables: 'every table is made, also an empty one.',
  state_support: 'positions lie in the ledger and in the target itself.',
  add_upsert_indexes: 'each table has the key of its source.',
  before_run_sql: 'nothing of that kind is run.',
  after_run_sql: 'nothing of that kind is run.',
  use_copy: 'COPY is what loads rows.',
  activate_version: 'a whole copy takes the place of the table at once.',
  stream_maps: 'see columns, mask and where of tables.',
  load_method: 'rows are merged by their key.',
  batch_wait_limit_seconds: 'see batch_flush_interval.',
  batch_size_mb: 'see batch_size_rows.',
  max_batch_rows: 'see batch_size_rows.',
};

/** Throws USAGE for what cannot be read. */
export function targetOf(settings: Settings, file: string): SingerTarget {
  const section = new Section('target');
  addConnection(section, settings, file);
  section.set('default_target_schema', settings.text('default_target_schema', 'postgres_schema', 'schema'));
  addMapping(section, settings);
  section.set('hard_delete', settings.flag('hard_delete'));
  section.set('add_metadata_columns', metadata(section, settings));
  const batch = settings.whole('batch_size_rows', 'batch_size', 'max_batch_size');
  section.setWithin(targetOptions, 'batch_size_rows', batch);
  if (batch === null) section.remark('batch_size_rows: the default is 10000 rows here, and 100000 in PipelineWise.');
  section.setWithin(targetOptions, 'batch_flush_interval', settings.whole('batch_flush_interval'));
  section.setWithin(targetOptions, 'batch_flush_min_time_gap', settings.whole('batch_flush_min_time_gap'));
  section.set('flush_all_streams', settings.flag('flush_all_streams'));
  section.setWithin(targetOptions, 'parallelism', settings.whole('parallelism'));
  section.setWithin(targetOptions, 'max_parallelism', settings.whole('max_parallelism', 'parallelism_max'));
  addFlattening(section, settings);
  const primary_key_required = settings.flag('primary_key_required');
  section.set('primary_key_required', primary_key_required);
  addValidation(section, settings);
  const table = settings.text('target_table');
  section.leave(settings, LEFT);
  return { section, table, primary_key_required: primary_key_required ?? true };
}

/** hard_delete needs the columns, and turns them on by itself. */
function metadata(section: Section, settings: Settings): boolean | null {
  const wanted = settings.flag('add_metadata_columns', 'add_record_metadata');
  if (wanted !== false || settings.flag('hard_delete') !== true) return wanted;
  section.remark('add_metadata_columns is left out: hard_delete turns it on, there as here.');
  return null;
}

/** Targets by source schema, each with roles and indexes of its own there. */
function addMapping(section: Section, settings: Settings): void {
  const mapping: Record<string, string> = {};
  const indices: Record<string, string[][]> = {};
  const roles = new Set(grantees(section, settings));
  const few = roles.size;
  for (const [schema, entry] of Object.entries(settings.map('schema_mapping'))) {
    const mapped = isJson(entry) ? entry : { target_schema: entry };
    if (typeof mapped.target_schema === 'string') mapping[schema] = mapped.target_schema;
    for (const role of textsOf(mapped.target_schema_select_permissions)) roles.add(role);
    for (const [table, wanted] of Object.entries(isJson(mapped.indices) ? mapped.indices : {})) {
      indices[`${schema}.${table}`] = textsOf(wanted).map((columns) => columns.split(',').map((name) => name.trim()));
    }
  }
  if (Object.keys(mapping).length > 0) section.set('schema_mapping', mapping);
  if (roles.size > 0) section.set('default_target_schema_select_permissions', [...roles]);
  if (few > 0 && roles.size > few) {
    section.remark(
      'target_schema_select_permissions: the roles of all schemas are one list here, and read all of them.',
    );
  }
  if (Object.keys(indices).length > 0) section.set('indices', indices);
}

function grantees(section: Section, settings: Settings): string[] {
  const named = settings.list('default_target_schema_select_permissions', 'default_target_schema_select_permission');
  const roles = named.filter((role) => !PRIVILEGES.includes(role.toUpperCase()));
  if (roles.length < named.length) {
    section.remark(
      'default_target_schema_select_permission names a privilege, and no role that would get it: name the roles in default_target_schema_select_permissions.',
    );
  }
  return roles;
}

function textsOf(value: unknown): string[] {
  const texts = Array.isArray(value) ? value : [value];
  return texts.filter((text): text is string => typeof text === 'string' && text !== '');
}

function addFlattening(section: Section, settings: Settings): void {
  // Meltano's: a depth that holds where flattening is on.
  const depth = settings.whole('flattening_max_depth');
  const isOn = settings.flag('flattening_enabled') === true;
  const level = settings.whole('data_flattening_max_level') ?? (isOn ? depth : null);
  if (level === null) return;
  section.set('data_flattening_max_level', Math.max(0, Math.min(level, FLATTENING_LEVEL_MAX)));
  if (level > FLATTENING_LEVEL_MAX)
    section.remark(`data_flattening_max_level is at most ${FLATTENING_LEVEL_MAX} here.`);
  if (level > 0) {
    section.remark(
      "data_flattening_max_level: the tap sends json as text, which the target did not flatten. Here json columns are, and stay beside their keys' columns.",
    );
  }
}

function addValidation(section: Section, settings: Settings): void {
  const wanted = settings.flag('validate_records');
  section.set('validate_records', wanted);
  // datamill-co's: false goes on without them.
  const detected = settings.flag('invalid_records_detect');
  const threshold = settings.whole('invalid_records_threshold') ?? 0;
  if (detected !== false && threshold === 0) return;
  if (wanted === null) section.set('validate_records', true);
  section.set('on_invalid', 'reject');
  if (threshold > 0) {
    section.remark(
      'invalid_records_threshold: rejected rows are counted, kept and told of (sluice rejects), and there is no number at which the stream stops.',
    );
  }
}
