/** The decoder of what the slot's plugin says. */
import type { OpenCut } from '../cut/open-cut.ts';
import { SluiceError } from '../errors.ts';
import type { SlotDialect, Source, SourceTable } from '../ports.ts';
import type { LogDecoder } from './log-decoder.ts';
import { NumberDoubts } from './number-doubts.ts';
import { PgoutputDecoder } from './pgoutput.ts';
import { Wal2jsonDecoder } from './wal2json.ts';
import { Wal2jsonV1 } from './wal2json-v1.ts';
import { Wal2jsonV2 } from './wal2json-v2.ts';

export interface LogDecoderOptions {
  /** Those that are followed, as the catalog has them. */
  readonly tables: readonly SourceTable[];
  readonly source: Pick<Source, 'tables' | 'specialNumbers'>;
  readonly cut: OpenCut;
}

/** Without a dialect it is pgoutput. */
export function logDecoder(dialect: SlotDialect | undefined, { tables, source, cut }: LogDecoderOptions): LogDecoder {
  if (dialect?.plugin !== 'wal2json') return new PgoutputDecoder(cut);
  const { format, numbers_as_text } = dialect;
  return new Wal2jsonDecoder(cut, {
    tables,
    catalog: () => source.tables(),
    reader: format === 2 ? new Wal2jsonV2() : new Wal2jsonV1(),
    numbers_as_text,
    doubts: new NumberDoubts({
      lookUp: async (query) => {
        if (!source.specialNumbers)
          throw new SluiceError('UNEXPECTED', { reason: 'a source of wal2json that looks up no numbers' });
        return await source.specialNumbers(query);
      },
      fail: (relation, fault) => cut.fail(relation, fault),
    }),
  });
}
