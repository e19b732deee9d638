/** A file that is wrong is what the doctor finds first: every fault with its place and remedy, and nothing else is looked at. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { doctorCommand } from '../../cli/doctor.ts';
import { Ended } from '../../cli/failure.ts';

const WRONG = `pipeline: shop
source: { host: h, user: u, database: d, password: { iam: true } }
tables: [public.*]
target: { host: h, user: u, database: e, pasword: 3 }
schedule: { every: 5 minutes, cron: "0 6 * * ? *" }
`;

test.each([false, true])('with --json: %s', async (json) => {
  const directory = await mkdtemp(join(tmpdir(), 'sluice-test-doctor-'));
  const config = join(directory, 'pipeline.yaml');
  const lines: string[] = [];
  const io = {
    out: (line: string) => void lines.push(line),
    err: () => {},
    env: {},
    connect: () => Promise.reject(new RangeError('nothing is connected to')),
  };
  const terminal = {
    isLive: false,
    columns: () => 200,
    rows: () => 50,
    write: () => {},
    paint: (_: string, text: string) => text,
  };
  try {
    await writeFile(config, WRONG);
    const failure: unknown = await doctorCommand({ config, state: '.sluice', json }, io, terminal).catch(
      (thrown: unknown) => thrown,
    );
    expect(failure).toBeInstanceOf(Ended);
    expect(failure).toMatchObject({ exit_code: 2 });
  } finally {
    await rm(directory, { recursive: true });
  }
  const places = ['2:52', '2:52', '4:42', '5:31'];
  if (json) {
    const told = JSON.parse(lines.join('\n')) as { findings: { subject: string; remedy: string }[] };
    expect(told).toMatchObject({ pipeline: null, errors: 4, warnings: 0 });
    expect(told.findings.map(({ subject }) => subject)).toEqual(places.map((place) => `${config}:${place}`));
    expect(told.findings.every(({ remedy }) => remedy.length > 0)).toBe(true);
  } else {
    expect(lines.filter((line) => line.startsWith('ERROR'))).toHaveLength(4);
    expect(lines.at(-1)).toBe('4 errors, 0 warnings');
  }
});
