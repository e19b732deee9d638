/**
 * The header of a segment, from its JSON: checked before anything is believed of it, so that a damaged or foreign object is STAGE_CORRUPT
 * and not a statement against the target.
 */
import * as z from 'zod';
import { LSN_COLUMN } from '../lsn-column.ts';
import type { SourceType } from '../shape.ts';
import { BLOCK_KINDS, SEGMENT_VERSION, type SegmentHeader } from './segment.ts';

/** MaxTupleAttributeNumber (access/htup_details.h): no tuple has more columns. */
const COLUMNS_MAX = 1664;
/** MaxHeapAttributeNumber (access/htup_details.h): dropped columns count. */
const COLUMN_NUMBER_MAX = 1600;
/** A block per set of absent columns; the cut's writer stays far below. */
const BLOCKS_MAX = 100_000;

const index = z
  .int()
  .min(0)
  .max(COLUMNS_MAX - 1);

const lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/);

const name = z.string().min(1);
const typeName = { schema: name, name };
const typeUse = {
  type_oid: z.int().min(0).max(0xffffffff),
  type_modifier: z.int(),
  get type() {
    return sourceType.exactOptional();
  },
};
const sourceType: z.ZodType<SourceType> = z.lazy(() =>
  z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('enum'), ...typeName, labels: z.array(z.string()) }),
    z.strictObject({ kind: z.literal('domain'), ...typeName, base: z.strictObject(typeUse) }),
    z.strictObject({
      kind: z.literal('composite'),
      ...typeName,
      attributes: z.array(z.strictObject({ name, ...typeUse })).max(COLUMNS_MAX),
    }),
    z.strictObject({ kind: z.literal('array'), element: z.strictObject(typeUse) }),
    z.strictObject({ kind: z.literal('named'), ...typeName, extension: z.string().nullable() }),
  ]),
);

/** pg_attribute.attnum of a column. */
const number = z.int().min(1).max(COLUMN_NUMBER_MAX);
/** 0: a column of Sluice's own (lib/lsn-column.ts). */
const column = { name, ...typeUse, number: z.union([number, z.literal(LSN_COLUMN.number)]).exactOptional() };
const generatedColumn = z.strictObject({ ...column, expression: z.string(), storage: z.enum(['s', 'v']) });
const description = z.strictObject({
  oid: z.int().min(0).max(0xffffffff),
  filenode: z.string(),
  definition: z.string().exactOptional(),
  columns: z
    .array(
      z.strictObject({
        ...column,
        number,
        dropped: z.boolean(),
        generated: z.enum(['', 's', 'v']),
        missing: z.string().nullable(),
      }),
    )
    .max(COLUMN_NUMBER_MAX),
  current: z.boolean(),
});

const headerSchema = z
  .strictObject({
    version: z.literal(SEGMENT_VERSION),
    stream: z.string().min(1),
    object: z.string().min(1).exactOptional(),
    operation: z.enum(['changes', 'truncate']),
    shape: z.strictObject({
      columns: z.array(z.strictObject(column)).max(COLUMNS_MAX),
      key: z.array(index),
      filenode: z.string().exactOptional(),
      definition: z.string().exactOptional(),
      greatest: z.int().min(0).max(COLUMN_NUMBER_MAX).exactOptional(),
      hidden: z.array(number).max(COLUMN_NUMBER_MAX).exactOptional(),
      generated: z.array(generatedColumn).max(COLUMNS_MAX).exactOptional(),
    }),
    commits: z.strictObject({ first: lsn, last: lsn }).exactOptional(),
    described: description.exactOptional(),
    extracted_at: z.iso.datetime(),
    blocks: z
      .array(
        z.strictObject({
          kind: z.enum(BLOCK_KINDS),
          columns: z.array(index),
          rows: z.int().min(0).nullable(),
        }),
      )
      .max(BLOCKS_MAX),
  })
  .refine((header) => header.operation === 'changes' || header.blocks.length === 0, 'a truncate has no blocks')
  .refine(
    ({ shape, blocks }) =>
      [shape.key, ...blocks.map((block) => block.columns)].flat().every((i) => i < shape.columns.length),
    'a column outside the shape',
  )
  .refine(
    ({ blocks }) =>
      blocks.every((block, i) => {
        const before = blocks[i - 1];
        return before === undefined || BLOCK_KINDS.indexOf(before.kind) <= BLOCK_KINDS.indexOf(block.kind);
      }),
    'blocks out of their order',
  );

/** Throws what `corrupt` makes of the reason. */
export function parseHeader(text: Buffer, corrupt: (reason: string) => Error): SegmentHeader {
  let json: unknown;
  try {
    json = JSON.parse(text.toString('utf8'));
  } catch {
    throw corrupt('its header is not JSON');
  }
  const parsed = headerSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw corrupt(`its header is not one of this version: ${issue?.path.join('.')} ${issue?.message}`);
}
