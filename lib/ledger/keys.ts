/**
 * The keys of the ledger's single table: which items lie together, and in which order.
 *
 *     pk                                     sk                     item
 *     <pipeline>#chain                       <cut number>           cut           in the order of the chain
 *     <pipeline>#unfinished                  transaction            transaction that no window has come to the end of
 *     <pipeline>#streams                     <stream>               bookmark
 *     <pipeline>#epochs                      <stream>#<number>      epoch
 *     <pipeline>#chunks#<stream>#<n>#<plan>  <chunk number>         chunk
 *     <pipeline>#requests                    <id>#<stream>          epoch request in the order of time
 *     <pipeline>#rejects                     <stream>#<id>          rows left out
 *     <pipeline>#leases                      <name>                 lease
 *     <pipeline>#reports                     <started at>#<run>     run report    in the order of time
 *
 * Keys are text, and DynamoDB orders text by bytes: numbers in a sort key are padded, so that they sort as numbers.
 */
export interface ItemKey {
  readonly pk: string;
  readonly sk: string;
}

/** As many digits as Number.MAX_SAFE_INTEGER has. */
const NUMBER_DIGITS = 16;

export type Keys = ReturnType<typeof ledgerKeys>;

export function ledgerKeys(pipeline: string) {
  const partition = (...parts: string[]) => [pipeline, ...parts].map(escaped).join('#');
  const chain = partition('chain');
  const streams = partition('streams');
  const reports = partition('reports');
  const requests = partition('requests');
  const rejects = partition('rejects');
  return {
    chain,
    streams,
    reports,
    requests,
    rejects,
    reject: (stream: string, id: string): ItemKey => ({ pk: rejects, sk: `${escaped(stream)}#${escaped(id)}` }),
    request: (stream: string, id: string): ItemKey => ({ pk: requests, sk: `${escaped(id)}#${escaped(stream)}` }),
    cut: (number: number): ItemKey => ({ pk: chain, sk: sortable(number) }),
    unfinished: { pk: partition('unfinished'), sk: 'transaction' } satisfies ItemKey,
    bookmark: (stream: string): ItemKey => ({ pk: streams, sk: stream }),
    epoch: (stream: string, number: number): ItemKey => ({
      pk: partition('epochs'),
      sk: `${escaped(stream)}#${sortable(number)}`,
    }),
    chunks: (stream: string, epoch: number, plan: string) => partition('chunks', stream, String(epoch), plan),
    chunk: (stream: string, epoch: number, plan: string, number: number): ItemKey => ({
      pk: partition('chunks', stream, String(epoch), plan),
      sk: sortable(number),
    }),
    lease: (name: string): ItemKey => ({ pk: partition('leases'), sk: name }),
    report: (started_at_ms: number, run: string): ItemKey => ({ pk: reports, sk: `${sortable(started_at_ms)}#${run}` }),
  };
}

/** A number as text that sorts as the number does. Throws RangeError for what is not a natural number. */
export function sortable(number: number): string {
  if (!Number.isSafeInteger(number) || number < 0) throw new RangeError(`not a natural number: ${number}`);
  return String(number).padStart(NUMBER_DIGITS, '0');
}

/** A part of a key in which `#` separates: names of streams may hold one. */
function escaped(part: string): string {
  return part.replaceAll('%', '%25').replaceAll('#', '%23');
}
