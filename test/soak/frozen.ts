/** A copy of the project as it stands, for a soak that lasts: what is edited meanwhile must not become part of a process that is just starting. */
import { cp, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const NEEDED = ['cli', 'functions', 'infra', 'lib', 'test/support', 'package.json'] as const;

export interface Frozen {
  readonly root: string;
  readonly launcher: string;
}

/** Puts it into `directory`, which is empty. */
export async function freeze(directory: string): Promise<Frozen> {
  for (const name of NEEDED) await cp(join(ROOT, name), join(directory, name), { recursive: true });
  await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
  return { root: directory, launcher: join(directory, 'cli/sluice.js') };
}
