/**
 * Faults of a command, its file and its machine, and of reaching a database.
 */
import type { Entry } from './entry.ts';

export const COMMAND_ERRORS = {
  // Usage and configuration
  USAGE: {
    disposition: 'usage',
    meaning: (f) => `${f.problem}`,
    remedy: (f) => `${f.remedy ?? 'See `sluice --help`.'}`,
  },
  CONFIG_INVALID: {
    disposition: 'usage',
    meaning: (f) => `The pipeline file is not valid: ${f.problem}`,
    remedy: (f) => `${f.remedy ?? 'Correct the lines named and run the command again.'}`,
  },
  STATE_IN_USE: {
    disposition: 'halt',
    meaning: (f) => `Another sluice (process ${f.pid}) holds the state in ${f.directory}.`,
    remedy: () => 'Wait until it ends, or stop it; or give this run a state of its own with --state DIR.',
  },
  // This machine
  LOCAL_POSTGRES_MISSING: {
    disposition: 'halt',
    meaning: (f) => `There is no embedded PostgreSQL for this machine (${f.platform}): ${f.reason}`,
    remedy: () =>
      'Install with optional dependencies (`npm ci` without --omit=optional), or name databases of your own in the pipeline file.',
  },
  LOCAL_POSTGRES_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The embedded PostgreSQL in ${f.directory} did not ${f.action}: ${f.reason}`,
    remedy: (f) => `Look into ${f.directory}/server.log. If it is only a trial, remove ${f.directory} and start again.`,
  },
  LOCAL_ENGINE_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The local engine could not ${f.action}: ${f.reason}`,
    remedy: (f) => `${f.remedy ?? 'Run the command again: it goes on from its state directory.'}`,
  },
  NOT_CAUGHT_UP: {
    disposition: 'retry',
    meaning: (f) => `${f.streams} had not applied ${f.lsn} after ${f.windows} windows without progress.`,
    remedy: () => 'Look at what was said before and at `sluice status`; run it again: it goes on from its state.',
  },
  // Connections
  CONNECTION_FAILED: {
    disposition: 'retry',
    meaning: (f) => `The ${f.side} at ${f.host}:${f.port} cannot be reached: ${f.reason}`,
    remedy: (f) =>
      `${f.remedy ?? `Check host, port and network of the ${f.side}, and that PostgreSQL runs and listens there.`}`,
  },
  AUTHENTICATION_FAILED: {
    disposition: 'halt',
    meaning: (f) => `The ${f.side} at ${f.host}:${f.port} refuses user ${f.user}: ${f.reason}`,
    remedy: (f) =>
      `${f.remedy ?? `Check user and password of the ${f.side} in the pipeline file, and the server's pg_hba.conf.`}`,
  },
  DATABASE_MISSING: {
    disposition: 'halt',
    meaning: (f) => `The ${f.side} has no database ${f.database}.`,
    remedy: (f) => `Correct ${f.side}.database in the pipeline file, or create the database.`,
  },
  TLS_FAILED: {
    disposition: 'halt',
    meaning: (f) => `TLS with the ${f.side} at ${f.host}:${f.port} failed: ${f.reason}`,
    remedy: (f) =>
      `${f.remedy ?? `Check ${f.side}.ssl: its mode, ca and server_name, and that the server has ssl = on.`}`,
  },
  SECRET_UNREADABLE: {
    disposition: 'halt',
    meaning: (f) => `The secret for ${f.path} cannot be read: ${f.reason}`,
    remedy: (f) => `Set what ${f.path} names (an environment variable, or a secret that this role may read).`,
  },
} as const satisfies Record<string, Entry>;
