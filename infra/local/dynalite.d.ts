/** The part of dynalite 4 that is used here; it brings no types. */
declare module 'dynalite' {
  import type { Server } from 'node:http';

  export interface DynaliteOptions {
    /** LevelDB's directory. */
    readonly path: string;
    readonly createTableMs: number;
    readonly deleteTableMs: number;
    readonly updateTableMs: number;
  }

  /** A server whose one `request` listener answers, and whose `close` closes the database too. */
  export default function dynalite(options: DynaliteOptions): Server;
}
