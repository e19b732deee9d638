/**
 * How an option is declared: a zod schema for type, default and bounds, and beside it what zod has no place for. The reference page, the
 * JSON Schema for editors and the messages about faults are all made from these declarations (`reference.ts`, `expectation.ts`), so that an
 * option has one home.
 */
import * as z from 'zod';

export interface OptionFacts {
  /** What the option does, as one or two sentences. */
  readonly sentence?: string;
  /** Unit of a number: `seconds`, `rows`, `days`, `milliseconds`. */
  readonly unit?: string;
  /** What a value must look like where the type alone does not say it; completes "must be …". */
  readonly form?: string;
  /** The default in words, where it depends on other options. */
  readonly default_text?: string;
  /** A value for the page and for the remedy of a fault, as it stands in the file. */
  readonly example?: string;
  /** Its value, or what was written in its place, is never shown. */
  readonly secret?: boolean;
}

const facts = z.registry<OptionFacts>();

/** Declares an option: the schema itself, described. The sentence also becomes the description in the JSON Schema. */
export function option<S extends z.ZodType>(schema: S, about: OptionFacts & { readonly sentence: string }): S {
  const described = schema.describe(about.sentence);
  facts.add(described, about);
  return described;
}

/** A kind of value that several options take: says once what it must look like. */
export function form<S extends z.ZodType>(schema: S, looks: string): S {
  const own = schema.clone();
  facts.add(own, { form: looks });
  return own;
}

/** What was declared beside the schema; undefined for a schema that is not an option of its own (a branch, an element). */
export function optionFacts(schema: z.core.$ZodType): OptionFacts | undefined {
  return facts.get(schema as z.ZodType);
}

/** An option that may be left out and is then null. */
export function orNull<S extends z.ZodType>(
  schema: S,
): z.ZodPipe<z.ZodOptional<S>, z.ZodTransform<z.output<S> | null, z.output<S> | undefined>> {
  return schema.optional().transform((value: z.output<S> | undefined): z.output<S> | null => value ?? null);
}
