/**
 * `npm run soak -- --minutes N [--seed S] [--reader stream|peek] [--json]`: a soak (course.ts), and its report: Markdown, or JSON. Exit 1 where anything was lost, doubled or halted.
 * SLUICE_SOAK_LOG: a file that gets all that the processes say.
 */
import { parseArgs } from 'node:util';
import { soak } from './course.ts';
import { soakPage } from './report.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    seed: { type: 'string' },
    reader: { type: 'string', default: 'stream' },
    json: { type: 'boolean', default: false },
  },
});
const seconds = Number(values.minutes) * 60;
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
const { reader } = values;
if (!(seconds > 0) || !Number.isSafeInteger(seed) || (reader !== 'stream' && reader !== 'peek')) {
  console.error('Usage: npm run soak -- --minutes N [--seed S] [--reader stream|peek] [--json]');
  process.exit(2);
}
console.error(`seed ${seed}`);
const report = await soak({ seconds, seed, slot_reader: reader, onProgress: (line) => console.error(line) });
console.log(values.json ? JSON.stringify(report, null, 2) : soakPage(report));
process.exitCode = report.problems.length === 0 ? 0 : 1;
