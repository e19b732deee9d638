/**
 * Contracts of the doorbell (see ports.ts): what a message may say, and to whom (I9).
 */

/** What a message may say. It says where to look, never what is there (I9). */
export type LoadBell =
  | { readonly kind: 'cuts'; readonly stream: string; readonly cut: number }
  | {
      readonly kind: 'chunk';
      readonly stream: string;
      readonly epoch: number;
      readonly plan: string;
      readonly chunk: number;
    }
  | { readonly kind: 'finish'; readonly stream: string; readonly epoch: number };

export type ExtractBell =
  | { readonly kind: 'plan'; readonly stream: string; readonly epoch: number }
  | {
      readonly kind: 'chunk';
      readonly stream: string;
      readonly epoch: number;
      readonly plan: string;
      readonly chunk: number;
    };

/** At least once, or not at all: whoever rings does not rely on it. */
export interface Doorbell {
  ringLoad(bells: readonly LoadBell[]): Promise<void>;
  ringExtract(bells: readonly ExtractBell[]): Promise<void>;
}
