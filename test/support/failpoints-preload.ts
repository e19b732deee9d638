/**
 * Preloaded into a `sluice` that is to die at a failpoint (failpoints.ts): each module of lib that makes an adapter is replaced by one that makes the same
 * adapter, watched. By --require, which threads inherit as well; the command's own thread only looks, and is left alone.
 */
import { registerHooks } from 'node:module';
import { isMainThread, threadId } from 'node:worker_threads';
import { Passage, type WatchedPort, watched } from './failpoints.ts';

/** Modules that make adapters, with the function that does. */
const FACTORIES: Readonly<Record<string, readonly [string, WatchedPort]>> = {
  'ledger/dynamo.ts': ['dynamoLedger', 'ledger'],
  'ledger/doorbell.ts': ['sqsDoorbell', 'doorbell'],
  'stage/s3.ts': ['s3Stage', 'stage'],
  'slot/source.ts': ['postgresSource', 'source'],
  'epoch/extractor.ts': ['postgresExtractor', 'extractor'],
  'epoch/comparer.ts': ['postgresComparer', 'comparer'],
  'load/target.ts': ['postgresTarget', 'target'],
};
const LIB = new URL('../../lib/', import.meta.url).href;

const passage = isMainThread ? null : Passage.fromEnvironment(process.env, threadId);

/** For the modules made below. */
export function watch<Port extends object>(port: WatchedPort, given: Port): Port {
  return passage === null ? given : watched(passage, port, given);
}

if (passage !== null) {
  registerHooks({
    load(url, context, next) {
      const factory = url.startsWith(LIB) ? FACTORIES[url.slice(LIB.length)] : undefined;
      if (factory === undefined) return next(url, context);
      const [name, port] = factory;
      const real = JSON.stringify(`${url}?unwatched`);
      const source = `export * from ${real};
import { ${name} as make } from ${real};
import { watch } from ${JSON.stringify(import.meta.url)};
export const ${name} = (options) => watch(${JSON.stringify(port)}, make(options));`;
      return { format: 'module', source, shortCircuit: true };
    },
  });
}
