/**
 * What the figures are held against. `facts` of a peer that cannot be run here are other people's figures, on a machine like this one.
 */
import type { Comparison } from './figures.ts';

const least = (work: string, what: string, who: string, peer: string | null, goal: number): Comparison => ({
  work,
  what,
  who,
  peer,
  goal,
  wants: 'least',
});
const most = (work: string, what: string, who: string, peer: string | null, goal: number): Comparison => ({
  ...least(work, what, who, peer, goal),
  wants: 'most',
});

const TO_STAGE = 'W2: a backlog of 900,000 changes, slot → durable in stage and ledger';
const TO_TARGET = 'W2: the same, slot → visible in the target';
const FIRST = 'W1: first sync of 2,000,000 rows through the stage';

export const GOALS: readonly Comparison[] = [
  least('W2', TO_STAGE, 'Sluice, slot → stage, by stream', 'pg_recvlogical to /dev/null', 2.5),
  least('W2', TO_TARGET, 'Sluice, slot → target', 'native subscription, applied', 1.5),
  // tap-postgres | target-postgres, LOG_BASED: 5.6 thousand changes/s on a machine of two cores.
  least(
    'W2',
    `${TO_TARGET}, changes/s (25 × tap-postgres \\| target-postgres)`,
    'Sluice, slot → target',
    null,
    140_000,
  ),
  least('W1', FIRST, 'Sluice', 'COPY TO → COPY FROM', 0.8),
  least('W1', FIRST, 'Sluice', 'native subscription', 0.8),
  least('W1', FIRST, 'Sluice', 'pgcopydb clone', 0.8),
  least('W3', 'W3: 1,000,000 updates of 1,000 rows', 'Sluice, slot → target', 'native subscription, applied', 5),
  most('W4', 'W4: wide rows, peak of memory of drain, MiB', 'Sluice, drain: peak of memory', null, 256),
  most('W4', 'W4: wide rows, peak of memory of load, MiB', 'Sluice, load: peak of memory', null, 256),
  most(
    'W6',
    'W6: one transaction of 2,000,000 rows, peak of memory of drain, MiB',
    'Sluice, drain: peak of memory',
    null,
    256,
  ),
  most('W6', 'W6: the same, peak of memory of load, MiB', 'Sluice, load: peak of memory', null, 256),
  most(
    'W7',
    'W7: 2 GB of log of others, until it is confirmed',
    'Sluice, by stream',
    'pg_replication_slot_advance',
    1.3,
  ),
  most(
    'latency',
    'continuous, 1,000 transactions/s: commit → visible, p50, ms',
    'Sluice, continuous, p50',
    null,
    1_000,
  ),
  most('latency', 'the same, p95, ms', 'Sluice, continuous, p95', null, 2_000),
  ...['drain', 'extract', 'load'].flatMap((name) => [
    most('cold start', `bundle of ${name}, KB`, `${name}: bundle`, null, 1_000),
    most('cold start', `import of ${name}, ms`, `${name}: import`, null, 150),
  ]),
  ...[1, 15].flatMap((minutes) =>
    ['idle', 'small', 'busy'].flatMap((size) =>
      ['AWS DMS Serverless, 1 DCU, a month', 't4g.small, a month'].map((peer) =>
        most('cost', `a month, ${size}, each ${minutes} min`, `Sluice, a month, ${size}, each ${minutes} min`, peer, 1),
      ),
    ),
  ),
];
