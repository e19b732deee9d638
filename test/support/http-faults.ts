/**
 * A proxy of HTTP on loopback that breaks requests to S3, SQS and DynamoDB, or their answers: by operation, and so that the work was done or not.
 * Requests and answers are held whole (parts of the stage are some megabytes), so that a fault may meet any byte of them.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';

/** What a service says; `is_done`: after it has done the work all the same. */
export interface Refusal {
  readonly status: number;
  /** As the service spells it: `SlowDown`, `ThrottlingException`. */
  readonly code: string;
  readonly message?: string;
  readonly is_done?: boolean;
  /** Of its `Date`, from now. */
  readonly date_ahead_ms?: number;
}

/**
 * - lost_request:   the connection is reset before the service has seen anything
 * - half_request:   the service sees half of the request's body, and the end of the connection (S3; as lost_request elsewhere: dynalite itself breaks by it)
 * - lost_answer:    the work is done, and the connection is reset
 * - half_answer:    the work is done, and the connection is reset in the middle of the answer's body
 * - no_answer:      the work is not done, and nothing is said
 * - silent_answer:  the work is done, and nothing is said
 * - stalled_answer: the work is done, and the answer stops in the middle of its body
 * - changed_request, changed_answer: a byte of the body is another
 */
export type HttpFault =
  | Refusal
  | 'lost_request'
  | 'half_request'
  | 'lost_answer'
  | 'half_answer'
  | 'no_answer'
  | 'silent_answer'
  | 'stalled_answer'
  | 'changed_request'
  | 'changed_answer';

export interface HttpFaults extends AsyncDisposable {
  readonly endpoint: string;
  /** Operations that were asked for, in order: `PutItem`, `UploadPart`, `SendMessageBatch`. */
  readonly asked: string[];
  /** Requests that met a fault. */
  readonly met: number;
  /** The next `times` requests of an operation (of any: `*`) meet the fault; Infinity: all, until `heal`. */
  break(operation: string, fault: HttpFault, times?: number): void;
  /** From now on a share of all requests meets one of `faults`, by `random` in [0, 1), until `heal`. */
  breakSome(share: number, faults: readonly HttpFault[], random: () => number): void;
  /** No faults any more; what still waits for an answer is reset. */
  heal(): void;
}

interface Rule {
  readonly operation: string;
  readonly fault: HttpFault;
  left: number;
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

/** In front of `upstream`, a URL of HTTP on loopback. */
export async function startHttpFaults(upstream: string): Promise<HttpFaults> {
  const rules: Rule[] = [];
  const asked: string[] = [];
  const waiting = new Set<ServerResponse>();
  let draw: () => HttpFault | null = () => null;
  let met = 0;
  const faultFor = (operation: string): HttpFault | null => {
    const rule = rules.find((rule) => rule.left > 0 && (rule.operation === operation || rule.operation === '*'));
    if (rule) rule.left -= 1;
    const fault = rule ? rule.fault : draw();
    if (fault !== null) met += 1;
    return fault;
  };
  const wait = (to: ServerResponse): void => {
    waiting.add(to);
    to.once('close', () => waiting.delete(to));
  };

  const serve = async (from: IncomingMessage, to: ServerResponse): Promise<void> => {
    const body = await buffer(from);
    const operation = operationOf(from);
    asked.push(operation);
    const fault = faultFor(operation);
    if (fault === 'lost_request') return reset(to);
    if (fault === 'no_answer') return wait(to);
    if (fault === 'half_request') {
      if (from.headers['x-amz-target'] !== undefined) return reset(to);
      await sendHalf(upstream, from, body);
      return reset(to);
    }
    if (typeof fault === 'object' && fault !== null && !fault.is_done) return refuse(from, to, fault);
    const answer = await forward(upstream, from, fault === 'changed_request' ? changed(body) : body);
    if (fault === 'lost_answer') return reset(to);
    if (fault === 'silent_answer') return wait(to);
    // Of an answer without a body, the middle is before its end as well.
    if (answer.body.length === 0 && fault === 'half_answer') return reset(to);
    if (answer.body.length === 0 && fault === 'stalled_answer') return wait(to);
    if (typeof fault === 'object' && fault !== null) return refuse(from, to, fault);
    const headers = { ...answer.headers, 'content-length': String(answer.body.length) };
    delete headers['transfer-encoding'];
    // The answer to HEAD has a length, and no body.
    to.writeHead(answer.status, from.method === 'HEAD' ? answer.headers : headers);
    if (fault === 'half_answer' || fault === 'stalled_answer') {
      to.write(answer.body.subarray(0, answer.body.length >> 1));
      if (fault === 'stalled_answer') return wait(to);
      setTimeout(() => reset(to), 20); // What was written is to arrive before.
      return;
    }
    to.end(fault === 'changed_answer' ? changed(answer.body) : answer.body);
  };

  const server = createServer((from, to) => {
    serve(from, to).catch(() => reset(to)); // Its client has gone, or the service has: the client sees a connection that is reset.
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new TypeError('no port');
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    asked,
    get met() {
      return met;
    },
    break: (operation, fault, times = 1) => {
      rules.push({ operation, fault, left: times });
    },
    breakSome: (share, faults, random) => {
      draw = () => (random() < share ? (faults[Math.floor(random() * faults.length)] ?? null) : null);
    },
    heal: () => {
      rules.length = 0;
      draw = () => null;
      for (const to of waiting) reset(to);
    },
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((done) => server.close(done));
      server.closeAllConnections();
      await closed;
    },
  };
}

function operationOf({ method = '', url = '', headers }: IncomingMessage): string {
  const target = headers['x-amz-target'];
  if (typeof target === 'string') return target.slice(target.indexOf('.') + 1);
  const { searchParams } = new URL(url, 'http://localhost');
  if (method === 'POST') return searchParams.has('uploads') ? 'CreateMultipartUpload' : 'CompleteMultipartUpload';
  if (method === 'PUT') return searchParams.has('partNumber') ? 'UploadPart' : 'PutObject';
  if (method === 'DELETE') return searchParams.has('uploadId') ? 'AbortMultipartUpload' : 'DeleteObject';
  return method === 'HEAD' ? 'HeadObject' : 'GetObject';
}

function reset(to: ServerResponse): void {
  to.socket?.resetAndDestroy();
}

/** The middle byte is another, and no text becomes none. */
function changed(body: Buffer): Buffer {
  const copy = Buffer.from(body);
  const at = copy.length >> 1;
  if (copy.length > 0) copy.writeUInt8(copy.readUInt8(at) ^ 1, at);
  return copy;
}

async function forward(upstream: string, from: IncomingMessage, body: Buffer): Promise<Answer> {
  const { hostname, port } = new URL(upstream);
  const headers = { ...from.headers, 'content-length': String(body.length) };
  delete headers['transfer-encoding'];
  const asking = request({ hostname, port, method: from.method, path: from.url, headers, agent: false });
  asking.end(body);
  const [answer] = (await once(asking, 'response')) as [IncomingMessage];
  return { status: answer.statusCode ?? 0, headers: answer.headers, body: await buffer(answer) };
}

async function sendHalf(upstream: string, from: IncomingMessage, body: Buffer): Promise<void> {
  const { hostname, port } = new URL(upstream);
  const headers = { ...from.headers, 'content-length': String(body.length) };
  const asking = request({ hostname, port, method: from.method, path: from.url, headers, agent: false });
  asking.on('error', () => undefined); // It is broken off on purpose.
  await new Promise<void>((resolve) => asking.write(body.subarray(0, body.length >> 1), () => resolve()));
  await new Promise((resolve) => setTimeout(resolve, 50)); // The half is to arrive before its end.
  asking.destroy();
}

/** JSON of DynamoDB and SQS, XML of S3 (their API references, "Error responses"). */
function refuse(
  from: IncomingMessage,
  to: ServerResponse,
  { status, code, message = code, date_ahead_ms }: Refusal,
): void {
  const date = new Date(Date.now() + (date_ahead_ms ?? 0)).toUTCString();
  const isJson = from.headers['x-amz-target'] !== undefined;
  const body = isJson
    ? JSON.stringify({ __type: `com.amazonaws#${code}`, message })
    : `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`;
  to.writeHead(status, {
    date,
    'content-type': isJson ? 'application/x-amz-json-1.0' : 'application/xml',
    'x-amzn-requestid': 'r-1',
    'x-amz-request-id': 'r-1',
  });
  to.end(from.method === 'HEAD' ? undefined : body);
}
