/**
 * One JSON file of a Singer tap or target: its settings by name, in whatever spelling, and which of them nobody has asked for. Below `sluice init --from-singer`.
 *
 * Values may be secrets: no message holds one. Pure.
 */
import { SluiceError } from '../errors.ts';

export type Json = Readonly<Record<string, unknown>>;

export function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export class Settings {
  #data: Json;
  #file: string;
  #asked = new Set<string>();

  /** `file` names it in messages. */
  constructor(data: unknown, file: string) {
    if (!isJson(data)) throw wrong(file, 'is no JSON object.');
    this.#data = data;
    this.#file = file;
  }

  /** The first of these settings that has a value. Empty text counts as none, as taps and targets have it. */
  value(...names: readonly string[]): unknown {
    for (const name of names) this.#asked.add(name);
    return names.map((name) => this.#data[name]).find((value) => value !== undefined && value !== null && value !== '');
  }

  has(...names: readonly string[]): boolean {
    return this.value(...names) !== undefined;
  }

  /** Null: there is none. Throws USAGE for what is no text. */
  text(...names: readonly string[]): string | null {
    const value = this.value(...names);
    if (value === undefined) return null;
    if (typeof value === 'string') return value.trim();
    if (typeof value === 'number') return String(value);
    throw this.#not(names, 'a text');
  }

  /** Legacy taps take "true" and "false" as text. */
  flag(...names: readonly string[]): boolean | null {
    const value = this.value(...names);
    if (value === undefined) return null;
    const said = typeof value === 'string' ? value.toLowerCase() : value;
    if (said === true || said === 1 || said === 'true' || said === '1') return true;
    if (said === false || said === 0 || said === 'false' || said === '0') return false;
    throw this.#not(names, 'true or false');
  }

  whole(...names: readonly string[]): number | null {
    const value = this.value(...names);
    if (value === undefined) return null;
    const number = typeof value === 'string' ? Number(value) : value;
    if (typeof number === 'number' && Number.isFinite(number)) return Math.trunc(number);
    throw this.#not(names, 'a number');
  }

  /** A list of texts, or one text with commas. */
  list(...names: readonly string[]): string[] {
    const value = this.value(...names);
    const texts = typeof value === 'string' ? value.split(',') : (value ?? []);
    if (!Array.isArray(texts) || texts.some((text) => typeof text !== 'string')) throw this.#not(names, 'a list');
    return (texts as string[]).map((text) => text.trim()).filter((text) => text !== '');
  }

  map(...names: readonly string[]): Json {
    const value = this.value(...names);
    // Meltano and others hand objects over as JSON text.
    const object = typeof value === 'string' ? parsed(value) : (value ?? {});
    if (!isJson(object)) throw this.#not(names, 'a JSON object');
    return object;
  }

  /** Names of the settings that have a value and that nobody has asked for. */
  unused(): string[] {
    return Object.keys(this.#data).filter((name) => !this.#asked.has(name) && this.#data[name] !== null);
  }

  #not(names: readonly string[], form: string): SluiceError {
    const name = names.find((one) => this.#data[one] !== undefined) ?? names[0];
    return wrong(this.#file, `has ${name}, which is not ${form}.`);
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

export function wrong(file: string, problem: string): SluiceError {
  const remedy = 'Name the JSON files that the tap and the target are run with: --from-singer, --catalog, --target.';
  return new SluiceError('USAGE', { problem: `${file} ${problem}`, remedy });
}
