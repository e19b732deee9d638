/**
 * A pipeline whose ports are in memory: a source, what is durable, a target, and processes that come and go.
 */
import { readPipeline } from '../../lib/config/read.ts';
import type { Pipeline } from '../../lib/config/schema.ts';
import { streamId } from '../../lib/config/stream-id.ts';
import { refusalsOf } from '../../lib/load/quarantine.ts';
import {
  type DrainPorts,
  drain,
  type ExtractReport,
  extract,
  type LoadReport,
  load,
  type Window,
} from '../../lib/pipeline.ts';
import type { ExtractBell, LoadBell, RunReport } from '../../lib/ports.ts';
import { ajvCompiler } from '../../lib/validation/ajv-compiler.ts';
import type { JsonSchema } from '../../lib/validation/catalog-schema.ts';
import type { CompiledSchema } from '../../lib/validation/compiler.ts';
import { Crash, Durable, memoryDoorbell, memoryLedger, memoryStage, World } from './memory-ports.ts';
import { MemoryDatabase, memoryExtractor, memorySource } from './memory-source.ts';
import { MemoryWarehouse, memoryComparer, memoryTarget } from './memory-target.ts';

export const LEASE_MS = 900_000;
export const WINDOW_MS = 800_000;
/** Bells that one pumping answers: more, and they ring each other without end. */
const BELLS_MAX = 500;

export const idOf = (name: string): string => {
  const [schema = '', table = ''] = name.split('.');
  return streamId({ schema, table });
};

/** Pipelines by their file: reading one takes longer than a window does here. */
const READ = new Map<string, Pipeline>();

/** Schemas likewise. */
const COMPILED = new Map<string, CompiledSchema>();

function compiledOnce(schema: JsonSchema): CompiledSchema {
  const text = JSON.stringify(schema);
  const compiled = COMPILED.get(text) ?? ajvCompiler.compile(schema);
  COMPILED.set(text, compiled);
  return compiled;
}

export class MemoryPipeline {
  readonly world = new World();
  readonly durable = new Durable();
  readonly database = new MemoryDatabase();
  readonly warehouse: MemoryWarehouse;
  readonly pipeline: Pipeline;
  #runs = 0;

  /** `target`, `source`: lines of the pipeline file. */
  constructor(options: { tables?: string; source?: string; target?: string; schedule?: string } = {}) {
    const {
      tables = '[public.*]',
      source = 'break_at_end_lsn: true',
      target = 'hard_delete: true',
      schedule = 'every: 5 minutes',
    } = options;
    const text = `pipeline: shop\ntables: ${tables}\nsource: { ${source} }\ntarget: { ${target} }\nschedule: { ${schedule} }\n`;
    this.pipeline = READ.get(text) ?? readPipeline(text, 'pipeline.yaml');
    READ.set(text, this.pipeline);
    this.warehouse = new MemoryWarehouse(this.pipeline.target.hard_delete);
  }

  drainPorts(): DrainPorts {
    const { world, durable, database } = this;
    return {
      clock: world.clock,
      log: world.log,
      source: memorySource(world, database),
      stage: memoryStage(world, durable),
      ledger: memoryLedger(world, durable),
      doorbell: memoryDoorbell(world, durable),
      newId: world.newId,
      random: () => 0.5,
      schemas: async () => ({ compile: compiledOnce }),
    };
  }

  /** One window. */
  async window(more: Partial<Window> = {}, pipeline = this.pipeline): Promise<RunReport> {
    const run = `run-${++this.#runs}`;
    const now_ms = this.world.clock.now();
    return await drain(this.drainPorts(), pipeline, {
      run,
      owner: run,
      lease_ms: LEASE_MS,
      deadline_ms: now_ms + WINDOW_MS,
      ...more,
    });
  }

  async extract(bell: ExtractBell): Promise<ExtractReport> {
    const { world, database, warehouse } = this;
    const ports = {
      ...this.drainPorts(),
      extractor: memoryExtractor(world, database),
      comparer: memoryComparer(world, database, warehouse),
      target: memoryTarget(world, warehouse),
    };
    return await extract(ports, this.pipeline, bell);
  }

  async load(bell: LoadBell, deadline_ms = this.world.clock.now() + WINDOW_MS): Promise<LoadReport> {
    const ports = { ...this.drainPorts(), target: memoryTarget(this.world, this.warehouse) };
    const refusals = refusalsOf(this.pipeline, ports.newId);
    return await load(ports, bell, { deadline_ms, consistency: this.pipeline.target.consistency, refusals });
  }

  /** Answers bells until there are none. Answers are given in the order of ringing. */
  async pump(): Promise<void> {
    const { extractBells, loadBells } = this.durable;
    for (let bells = 0; ; bells++) {
      if (bells > BELLS_MAX) throw new Error('the bells do not end');
      const extractBell = extractBells[0];
      const loadBell = loadBells[0];
      // As in a queue: a message is deleted when it has been answered.
      if (extractBell) {
        await this.extract(extractBell);
        extractBells.shift();
      } else if (loadBell) {
        await this.load(loadBell);
        loadBells.shift();
      } else return;
    }
  }

  /** A new process after the last one has died; the lease and the slot are as it left them, and bells that it had taken come back. */
  revive(): void {
    this.world.revive();
    this.world.clock.now_ms += LEASE_MS + 1;
  }

  /** Runs every step, each a process of its own once one has died; then all that is left to do, and nobody dies any more. */
  async live(steps: readonly ((pipeline: MemoryPipeline) => unknown)[]): Promise<void> {
    for (const step of steps) {
      try {
        await step(this);
      } catch (error) {
        if (!(error instanceof Crash)) throw error;
      }
      if (this.world.isDead) this.revive();
    }
    this.world.crashAt = 0;
    await this.settle();
  }

  /** Windows and bells until every stream has applied all that there is. */
  async settle(windows_max = 12): Promise<void> {
    for (let windows = 0; windows < windows_max; windows++) {
      const report = await this.window({ ring_all: true });
      if (report.error) throw new Error(`${report.error.code}: ${report.error.message}`);
      await this.pump();
      if (this.isSettled) return;
      this.world.clock.now_ms += 300_000;
    }
    const states = [...this.durable.bookmarks.values()].map(({ table, state, halt, applied_cut, epoch }) => ({
      table: table.table,
      state,
      halt,
      applied_cut,
      epoch,
    }));
    throw new Error(`not settled after ${windows_max} windows: ${JSON.stringify(states)}`);
  }

  get isSettled(): boolean {
    const bookmarks = [...this.durable.bookmarks.values()];
    return (
      bookmarks.length > 0 &&
      bookmarks.every(({ stream, state, reset_requested, resync_requested }) => {
        const behind = this.durable.chain.some(
          (cut) => cut.number > (this.warehouse.streams.get(stream)?.row.applied_cut ?? -1) && cut.streams[stream],
        );
        return state === 'live' && !reset_requested && !resync_requested && !behind;
      })
    );
  }

  /** Rows of the target and of the source, to be compared. */
  both(name: string): { readonly target: unknown; readonly source: unknown } {
    const sorted = (rows: ReadonlyMap<string, unknown>) => [...rows].sort(([a], [b]) => (a < b ? -1 : 1));
    const target = [...this.warehouse.rows(idOf(name))].filter(([, { deleted_at }]) => deleted_at === null);
    return { target: sorted(new Map(target)), source: sorted(this.database.table(name).snapshot()) };
  }
}
