/**
 * What the pipeline file says of the target's tables, as the loader needs it: the options of `target` that are no connection and no batch (lib/config/target.ts).
 */
import type { IndexOptions } from './indices.ts';
import type { CustomTypes } from './types.ts';

export interface LoadOptions {
  /** Deletes rows. Turns the metadata columns on, as in target-postgres. */
  readonly hard_delete: boolean;
  readonly add_metadata_columns: boolean;
  readonly on_truncate: 'apply' | 'ignore' | 'halt';
  /** Enums, domains and composites of the source are made on the target, or are text there. */
  readonly custom_types: CustomTypes;
  /** A change of a column's type is followed, or halts the stream. */
  readonly on_type_change: 'widen' | 'halt';
  /** A column that the source has dropped stays as it is, or goes. */
  readonly on_drop_column: 'keep' | 'drop';
  readonly indices?: IndexOptions;
  /** How deep keys of json objects have columns of their own; 0: none have. */
  readonly data_flattening_max_level?: number;
  /** Each stream for itself, or all of them at one commit of the source. */
  readonly consistency?: 'stream' | 'transaction';
  /** Roles that may read what is made. */
  readonly default_target_schema_select_permissions?: readonly string[];
}

export function wantsMetadata(options: LoadOptions): boolean {
  return options.hard_delete || options.add_metadata_columns;
}
