/**
 * What was merged into a daemon.json: `<state-dir>/docker-merge.json`, 0600 because it holds that file's earlier text.
 * With it the merge can be undone: byte for byte where nobody else changed the file since, else member by member.
 */
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readBounded, writeFileAtomic } from '../../lib/file.js';
import { readMembers, withKey, withoutKey, type DaemonJsonValue } from './daemon-json.js';

const value = z.union([z.string(), z.number(), z.boolean()]);
const schema = z.strictObject({
  version: z.literal(1),
  file: z.string().startsWith('/'),
  /** Without what is ours; null: there was none. */
  before: z.string().nullable(),
  madeFolder: z.boolean(),
  /** Of the text with what is ours. */
  sha256: z.string(),
  /** The values that we ever wrote for a key, the newest last. */
  ours: z.record(z.string(), z.array(value)),
});

export type MergeMemory = Readonly<z.infer<typeof schema>>;

const maxBytes = 8 * 1024 * 1024;
const remembered = 8;

/** @returns undefined when nothing is merged, or nothing can be told of it */
export function readMergeMemory(stateDir: string): MergeMemory | undefined {
  const text = readBounded(pathIn(stateDir), maxBytes);
  if (text === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** @throws Error in Node's shape */
export function writeMergeMemory(stateDir: string, memory: MergeMemory): void {
  writeFileAtomic(pathIn(stateDir), `${JSON.stringify(memory)}\n`, 0o600);
}

export function removeMergeMemory(stateDir: string): void {
  rmSync(pathIn(stateDir), { force: true });
}

export function checksum(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** A restart between two writes leaves a value of the time before: all of the last ones are known as ours. */
export function withOurs(
  ours: MergeMemory['ours'],
  options: readonly { readonly key: string; readonly value: DaemonJsonValue }[],
): MergeMemory['ours'] {
  const added = options.map(({ key, value }) => {
    const earlier = (ours[key] ?? []).filter(one => one !== value);
    return [key, [...earlier, value].slice(-remembered)] as const;
  });
  return { ...ours, ...Object.fromEntries(added) };
}

export interface Undone {
  /** undefined: the file goes too */
  readonly text: string | undefined;
  /** Keys that somebody else has given another value since: they stay. */
  readonly left: readonly string[];
}

/**
 * @param text of the file as it is now; undefined when there is none
 * @throws TartanError CONFIG_INVALID for what is no JSON object any more
 */
export function undoMerge(memory: MergeMemory, text: string | undefined): Undone {
  if (text === undefined) return { text, left: [] };
  if (checksum(text) === memory.sha256) return { text: memory.before ?? undefined, left: [] };
  const keys = Object.keys(memory.ours);
  const left = keys.filter(key => isForeign(memory, key, readMembers(text, memory.file).get(key)));
  return { text: withoutOurs(memory, text, keys), left };
}

/** The text with the values that stood for these keys before ours did. */
export function withoutOurs(memory: MergeMemory, text: string, keys: readonly string[]): string {
  const { file, before } = memory;
  return keys.reduce((edited, key) => {
    const now = readMembers(edited, file).get(key);
    if (now === undefined || isForeign(memory, key, now)) return edited;
    const earlier = value.safeParse(before === null ? undefined : readMembers(before, file).get(key));
    return earlier.success ? withKey(edited, key, earlier.data, file) : withoutKey(edited, key, file);
  }, text);
}

function isForeign(memory: MergeMemory, key: string, now: unknown): boolean {
  if (now === undefined) return false;
  return (
    !(memory.ours[key] ?? []).some(one => one === now) && readMembers(memory.before ?? '', memory.file).get(key) !== now
  );
}

function pathIn(stateDir: string): string {
  return join(stateDir, 'docker-merge.json');
}
