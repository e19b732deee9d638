/**
 * The ledger's table, as little of DynamoDB as the ledger needs: reads that are strongly consistent, writes of one item with a condition,
 * ordered queries, and batches. Every call is one item or one bounded page, and every error is a SluiceError.
 *
 * Throttled and broken calls are tried again by the client (its own limit of attempts); what a batch leaves undone is tried again here.
 */
import {
  type AttributeValue,
  BatchWriteItemCommand,
  type DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  UpdateItemCommand,
  type WriteRequest,
} from '@aws-sdk/client-dynamodb';
import { awsFault, isConditionFailed } from '../aws-faults.ts';
import { SluiceError } from '../errors.ts';
import type { Clock } from '../ports.ts';
import { type Attributes, Damage, type FieldCodecs, itemBytes, readFields } from './attributes.ts';
import type { ItemKey } from './keys.ts';

/** DynamoDB's limit of an item, names included. */
export const ITEM_BYTES_MAX = 400 * 1024;
/** DynamoDB's limit of a BatchWriteItem. */
export const BATCH_ITEMS_MAX = 25;
/** Attempts at what a batch left undone, and the wait after the first of them; it doubles. 25 ms to 3.2 s: 6 s in all. */
export const BATCH_ATTEMPTS_MAX = 8;
const BATCH_WAIT_MS = 25;
/** Pages of one query: a page is 1 MB or what is left, so this is far past what a pipeline's partition holds. */
const PAGES_MAX = 10_000;

/** A condition or an update: its text, the values it names (`:value`), and names that DynamoDB reserves (`#name`). */
export interface Expression {
  readonly text: string;
  readonly values?: Attributes;
  readonly names?: Readonly<Record<string, string>>;
}

export interface TableQuery {
  readonly pk: string;
  /** Sort keys greater than this. */
  readonly after?: string;
  readonly descending?: boolean;
  /** Items at most; all when it is not given. */
  readonly limit?: number;
  /** Attributes to bring; all when it is not given. */
  readonly only?: readonly string[];
}

export class LedgerTable {
  readonly #client: DynamoDBClient;
  readonly #name: string;
  readonly #clock: Clock;

  constructor(client: DynamoDBClient, name: string, clock: Clock) {
    this.#client = client;
    this.#name = name;
    this.#clock = clock;
  }

  async get(key: ItemKey): Promise<Attributes | null> {
    try {
      const answer = await this.#client.send(
        new GetItemCommand({ TableName: this.#name, Key: keyAttributes(key), ConsistentRead: true }),
      );
      return answer.Item ?? null;
    } catch (error) {
      throw awsFault('DynamoDB', 'GetItem', error);
    }
  }

  /** Writes the whole item; false when the condition does not hold. LEDGER_ITEM_TOO_LARGE. */
  async put(key: ItemKey, fields: Attributes, condition?: Expression): Promise<boolean> {
    const Item = itemOf(key, fields);
    try {
      await this.#client.send(
        new PutItemCommand({
          TableName: this.#name,
          Item,
          ConditionExpression: condition?.text,
          ...expressionAttributes(condition),
        }),
      );
      return true;
    } catch (error) {
      if (isConditionFailed(error)) return false;
      throw awsFault('DynamoDB', 'PutItem', error);
    }
  }

  /** Changes one item and returns all of it; null when the condition does not hold. */
  async update(key: ItemKey, change: Expression, condition: Expression): Promise<Attributes | null> {
    try {
      const answer = await this.#client.send(
        new UpdateItemCommand({
          TableName: this.#name,
          Key: keyAttributes(key),
          UpdateExpression: change.text,
          ConditionExpression: condition.text,
          ...expressionAttributes(change, condition),
          ReturnValues: 'ALL_NEW',
        }),
      );
      return answer.Attributes ?? {};
    } catch (error) {
      if (isConditionFailed(error)) return null;
      throw awsFault('DynamoDB', 'UpdateItem', error);
    }
  }

  /** Items of one partition in the order of their sort keys. Strongly consistent, page by page. */
  async query(query: TableQuery): Promise<Attributes[]> {
    return await this.queryAs(query, (item) => item);
  }

  /** The same, each item read as soon as its page is there: an item as it comes is many times as large as what it says (I8). */
  async queryAs<T>(query: TableQuery, read: (item: Attributes) => T): Promise<T[]> {
    const items: T[] = [];
    let from: Attributes | undefined;
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const room = query.limit === undefined ? undefined : query.limit - items.length;
      if (room !== undefined && room <= 0) return items;
      const answer = await this.#page(query, room, from);
      for (const item of answer.items) items.push(read(item));
      if (!answer.next) return items;
      from = answer.next;
    }
    throw new SluiceError('UNEXPECTED', {
      reason: `the ledger's partition ${query.pk} has more than ${PAGES_MAX} pages`,
    });
  }

  /** Puts or deletes, in order by batches of 25; what a batch leaves undone is tried again before the next. AWS_TRANSIENT when it stays undone. */
  async writeAll(requests: readonly WriteRequest[]): Promise<void> {
    for (let at = 0; at < requests.length; at += BATCH_ITEMS_MAX) {
      await this.#writeBatch(requests.slice(at, at + BATCH_ITEMS_MAX));
    }
  }

  async #writeBatch(requests: readonly WriteRequest[]): Promise<void> {
    let undone: WriteRequest[] = [...requests];
    for (let attempt = 1; ; attempt += 1) {
      try {
        const answer = await this.#client.send(new BatchWriteItemCommand({ RequestItems: { [this.#name]: undone } }));
        undone = answer.UnprocessedItems?.[this.#name] ?? [];
      } catch (error) {
        throw awsFault('DynamoDB', 'BatchWriteItem', error);
      }
      if (undone.length === 0) return;
      if (attempt === BATCH_ATTEMPTS_MAX) {
        const reason = `${undone.length} of ${requests.length} items were left undone ${attempt} times`;
        throw new SluiceError('AWS_TRANSIENT', { service: 'DynamoDB', operation: 'BatchWriteItem', reason });
      }
      await this.#clock.sleep(BATCH_WAIT_MS * 2 ** (attempt - 1));
    }
  }

  async #page(query: TableQuery, limit: number | undefined, from: Attributes | undefined) {
    const values: Record<string, AttributeValue> = { ':pk': { S: query.pk } };
    if (query.after !== undefined) values[':after'] = { S: query.after };
    const only = query.only?.map((name, i): [string, string] => [`#a${i}`, name]);
    try {
      const answer = await this.#client.send(
        new QueryCommand({
          TableName: this.#name,
          KeyConditionExpression: query.after === undefined ? 'pk = :pk' : 'pk = :pk AND sk > :after',
          ExpressionAttributeValues: values,
          ...(only && {
            ProjectionExpression: only.map(([alias]) => alias).join(', '),
            ExpressionAttributeNames: Object.fromEntries(only),
          }),
          ScanIndexForward: !query.descending,
          ConsistentRead: true,
          Limit: limit,
          ExclusiveStartKey: from,
        }),
      );
      return { items: answer.Items ?? [], next: answer.LastEvaluatedKey };
    } catch (error) {
      throw awsFault('DynamoDB', 'Query', error);
    }
  }
}

export function keyAttributes(key: ItemKey): Attributes {
  return { pk: { S: key.pk }, sk: { S: key.sk } };
}

/** An item ready to be written. Throws LEDGER_ITEM_TOO_LARGE before DynamoDB would refuse it. */
export function itemOf(key: ItemKey, fields: Attributes): Attributes {
  const item = { ...keyAttributes(key), ...fields };
  const bytes = itemBytes(item);
  if (bytes > ITEM_BYTES_MAX) {
    throw new SluiceError('LEDGER_ITEM_TOO_LARGE', { item: displayKey(key), bytes, bytes_max: ITEM_BYTES_MAX });
  }
  return item;
}

export function keyOf(item: Attributes): ItemKey {
  return { pk: item.pk?.S ?? '', sk: item.sk?.S ?? '' };
}

/** The fields of an item. Throws LEDGER_DAMAGED with the item's key and the field's name. */
export function readItem<T extends object>(codecs: FieldCodecs<T>, item: Attributes): T {
  try {
    return readFields(codecs, item);
  } catch (error) {
    throw error instanceof Damage ? damaged(keyOf(item), error.message) : error;
  }
}

export function damaged(key: ItemKey, reason: string): SluiceError {
  return new SluiceError('LEDGER_DAMAGED', { item: displayKey(key), reason });
}

function displayKey(key: ItemKey): string {
  return `${key.pk} ${key.sk}`;
}

/** Values and names of expressions that go together; absent where there are none, because DynamoDB refuses empty maps. */
function expressionAttributes(...expressions: (Expression | undefined)[]) {
  const values = Object.assign({}, ...expressions.map((expression) => expression?.values)) as Attributes;
  const names = Object.assign({}, ...expressions.map((expression) => expression?.names)) as Record<string, string>;
  return {
    ...(Object.keys(values).length > 0 && { ExpressionAttributeValues: values }),
    ...(Object.keys(names).length > 0 && { ExpressionAttributeNames: names }),
  };
}
