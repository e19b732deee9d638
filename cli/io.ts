/**
 * What a command gets from the outside. The main file makes one and gives it to every command; tests make their own.
 *
 * A command says what it found by `out` (data and progress, standard output) and `err` (remarks). What goes wrong it throws as a SluiceError: the main file
 * prints meaning and remedy, and chooses the exit code.
 */
import type { Client } from 'pg';
import type { Endpoint } from '../lib/postgres/connection.ts';

export interface CliIo {
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A connected client with Sluice's settings pinned; the command closes it. Throws as `connectClient` does. */
  readonly connect: (endpoint: Endpoint) => Promise<Client>;
}
