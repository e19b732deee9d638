/**
 * Writes docs/CONFIGURATION.md and docs/pipeline.schema.json from the declarations of `lib/config`.
 * Usage: node docs/generate-configuration.ts
 */
import { writeFileSync } from 'node:fs';
import { configurationPage, pipelineJsonSchema } from '../lib/config/reference.ts';

writeFileSync(new URL('CONFIGURATION.md', import.meta.url), configurationPage());
writeFileSync(new URL('pipeline.schema.json', import.meta.url), `${JSON.stringify(pipelineJsonSchema(), null, 2)}\n`);
