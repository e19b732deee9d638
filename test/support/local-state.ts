/**
 * What a `sluice` has left in a state directory, as text: the ledger's items, the objects of the stage with their frames unpacked, the queues' messages, and the
 * files themselves. For tests of what must be in none of it. The engine has ended.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ListTablesCommand, paginateScan } from '@aws-sdk/client-dynamodb';
import { GetObjectCommand, ListBucketsCommand, ListObjectsV2Command } from '@aws-sdk/client-s3';
import { awsEnvironment } from '../../infra/local/environment.ts';
import { clientsFor } from '../../infra/local/resources.ts';
import { startServices } from '../../infra/local/services.ts';
import { textsOf } from './everything.ts';

export interface LocalState {
  /** Every item, as JSON. */
  readonly ledger: string;
  /** By name. */
  readonly objects: ReadonlyMap<string, string>;
}

export async function readLocalState(directory: string): Promise<LocalState> {
  const fail = (error: unknown): never => {
    throw error;
  };
  const services = await startServices({ directory, onError: fail, onEnd: fail });
  const { dynamodb, s3 } = clientsFor(services.endpoints, awsEnvironment({}));
  try {
    const items: unknown[] = [];
    const { TableNames = [] } = await dynamodb.send(new ListTablesCommand({}));
    for (const TableName of TableNames) {
      for await (const { Items = [] } of paginateScan({ client: dynamodb }, { TableName })) items.push(...Items);
    }
    const objects = new Map<string, string>();
    const { Buckets = [] } = await s3.send(new ListBucketsCommand({}));
    for (const { Name: Bucket } of Buckets) {
      const { Contents = [] } = await s3.send(new ListObjectsV2Command({ Bucket }));
      for (const { Key = '' } of Contents) {
        const { Body } = await s3.send(new GetObjectCommand({ Bucket, Key }));
        const bytes = Buffer.from((await Body?.transformToByteArray()) ?? []);
        // Rows that were put aside lie there as lines of JSON.
        const parts = Key.includes('/rejected/') ? [bytes] : textsOf(bytes);
        objects.set(Key, parts.map((part) => part.toString('latin1')).join('\n'));
      }
    }
    return {
      ledger: JSON.stringify(items, (_, value: unknown) =>
        value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : value,
      ),
      objects,
    };
  } finally {
    dynamodb.destroy();
    s3.destroy();
    await services.stop();
  }
}

/** Every file below `directory`, by its path in it. */
export async function filesBelow(directory: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(path.slice(directory.length + 1), await readFile(path));
  }
  return files;
}
