/**
 * One entry of the error catalogue (error-catalogue.ts).
 */
export type Disposition = 'retry' | 'halt' | 'recopy' | 'usage';

export type Facts = Readonly<Record<string, string | number | boolean | null | undefined>>;

export interface Entry {
  readonly disposition: Disposition;
  /** One sentence: what happened. */
  readonly meaning: (facts: Facts) => string;
  /** One or two sentences: what to do, with the SQL or setting where there is one. */
  readonly remedy: (facts: Facts) => string;
}
