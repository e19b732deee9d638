/**
 * `sluice doctor`: asks source and target what a run would need, and tells what stands in its way, each with what mends it. Changes nothing.
 */
import type { Command } from 'commander';
import { findEngine } from '../infra/local/state.ts';
import { checkPipeline } from '../lib/config/read.ts';
import { doctor } from '../lib/doctor/doctor.ts';
import { fileFindings } from '../lib/doctor/file.ts';
import type { ChainSeen, Finding } from '../lib/doctor/finding.ts';
import { SluiceError } from '../lib/errors.ts';
import { Ended } from './failure.ts';
import type { CliIo } from './io.ts';
import { CONFIG_OPTION, STATE_OPTION } from './options.ts';
import { readPipelineFile, readPipelineText } from './pipeline-file.ts';
import { beside, hasState, type Place } from './place/beside.ts';
import { connectionsTo, type Reachable } from './place/connect.ts';
import { doctorPage } from './view/doctor.ts';
import type { Terminal } from './view/terminal.ts';

interface DoctorOptions {
  readonly config: string;
  readonly state: string;
  readonly json?: boolean;
}

export function registerDoctor(program: Command, io: CliIo, terminal: Terminal): void {
  program
    .command('doctor')
    .description('check source, target and pipeline file; each finding with the SQL or setting that mends it')
    .addOption(CONFIG_OPTION())
    .addOption(STATE_OPTION())
    .option('--json', 'the findings as JSON')
    .action((options: DoctorOptions) => doctorCommand(options, io, terminal));
}

/** Throws Ended(1) when there is an error among the findings, and Ended(2) when it is one of the file. */
export async function doctorCommand(options: DoctorOptions, io: CliIo, terminal: Terminal): Promise<void> {
  const { config, state } = options;
  const tell = (pipeline: string | null, findings: readonly Finding[]): void => {
    const counts = { errors: countOf(findings, 'error'), warnings: countOf(findings, 'warning') };
    if (options.json) io.out(JSON.stringify({ pipeline, ...counts, findings }));
    else for (const line of doctorPage(findings, terminal.columns(), terminal.paint)) io.out(line);
  };
  const { faults } = checkPipeline(await readPipelineText(config));
  if (faults.length > 0) {
    tell(null, fileFindings(faults, config));
    throw new Ended(2);
  }
  const file = await readPipelineFile(config);
  const findings = await examine({ file, path: config, state, environment: io.env });
  tell(file.pipeline.pipeline, findings);
  if (countOf(findings, 'error') > 0) throw new Ended(1);
}

function countOf(findings: readonly Finding[], severity: Finding['severity']): number {
  return findings.filter((finding) => finding.severity === severity).length;
}

/** With a state there, what its ledger says counts as well; an embedded server is only there with one. */
async function examine(place: Place): Promise<Finding[]> {
  const { pipeline } = place.file;
  const isEmbedded = pipeline.source.host === null || pipeline.target.host === null;
  const isThere = await hasState(place);
  if (isEmbedded && !isThere && (await findEngine(place.state)) === null) {
    const sides = (['source', 'target'] as const).filter((side) => pipeline[side].host === null);
    throw new SluiceError('USAGE', {
      problem: `The ${sides.join(' and the ')} of this pipeline ${sides.length > 1 ? 'are' : 'is'} an embedded PostgreSQL, which does not exist yet.`,
      remedy: `Run it first (sluice run -c ${place.path}), or name the database in the file.`,
    });
  }
  if (!isThere) {
    // Nobody can tell from here whether a slot that is there is ours: it may be a stack's.
    return await findings({ pipeline, config_path: place.path, environment: place.environment }, undefined);
  }
  return await beside(place, async ({ backend, ports, running_pid }) => {
    const { pipeline: complete } = await readPipelineFile(backend.configPath);
    const reachable = { pipeline: complete, config_path: backend.configPath, environment: backend.environment };
    const found = await findings(reachable, await ports.ledger.head());
    return running_pid === null ? found : found.map((finding) => besideEngine(finding, running_pid));
  });
}

/** A slot that is read while an engine runs here is read by that. */
function besideEngine(finding: Finding, pid: number): Finding {
  if (finding.code !== 'SLOT_ACTIVE') return finding;
  const { check, subject } = finding;
  return {
    check,
    severity: 'info',
    subject,
    problem: `It is being read; \`sluice run\` is at work in process ${pid}.`,
    remedy: null,
  };
}

async function findings(reachable: Reachable, chain: ChainSeen): Promise<Finding[]> {
  return await doctor({ pipeline: reachable.pipeline, connect: connectionsTo(reachable), chain });
}
