import { test } from 'vitest';
import { idOf, MemoryPipeline } from '../support/memory-pipeline.ts';
test('E1 continuous, others by query', async () => {
  for (const extra of ['', ', { table: public.daily, schedule: { every: 1 day } }']) {
    const p = new MemoryPipeline({ tables: `[{ table: public.always, replication_method: FULL_TABLE }, public.log${extra}]`, schedule: 'continuous: true', source: 'break_at_end_lsn: false' });
    const t0 = Date.parse('2026-05-01T00:00:00Z');
    p.world.clock.now_ms = t0;
    p.database.makeTable('public.always').makeTable('public.daily').makeTable('public.log');
    await p.window({ break_at_end_lsn: true }); await p.pump();
    let pumping: Promise<void> | null = null;
    const at: number[] = [];
    let seen = 0;
    p.database.onRead = () => {
      const e = p.durable.bookmarks.get(idOf('public.always'))?.epoch ?? 0;
      if (e !== seen) { seen = e; at.push((p.world.clock.now() - t0) / 1000); }
      pumping ??= p.pump().catch((e) => console.log(e)).finally(() => { pumping = null; });
    };
    for (let i = 0; i < 4; i++) { at.push(-i); await p.window(); await p.pump(); p.world.clock.now_ms += 1000; }
    console.log(`extra=${extra}`, at.join(' '));
  }
});
