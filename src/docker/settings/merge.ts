/**
 * Merges settings into Docker's daemon.json, only when asked for. Our members are set in place; the file is written by
 * rename with its own mode and owner, and only when something differs. tartand undoes the merge when the mode or the
 * host changes. `<state-dir>/docker-merge.json` records the merge before it is made, with mode 0600 because it holds
 * the file's earlier text. The undo restores the file byte for byte where nobody changed it since, else by member.
 */
import { isUtf8 } from 'node:buffer';
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { errnoOf, messageOf, TartanError } from '../../lib/errors.js';
import { readBounded, writeFileAtomic, type Owner } from '../../lib/file.js';
import { isSame, readMembers, withKey, withoutKey, type DaemonJsonValue } from './daemon-json.js';
import type { EngineOption } from './settings.js';

export interface MergePaths {
  readonly daemonJsonFile: string;
  readonly stateDir: string;
}

const maxBytes = 1024 * 1024;

/**
 * @returns whether the file changed
 * @throws TartanError CONFIG_INVALID for a file that cannot be edited, HOST_REFUSED for one that cannot be written
 */
export function mergeDaemonJson({ daemonJsonFile, stateDir }: MergePaths, options: readonly EngineOption[]): boolean {
  const other = readMergeRecord(stateDir);
  if (other && other.file !== daemonJsonFile) unmergeDaemonJson(stateDir);
  const record = other?.file === daemonJsonFile ? other : undefined;
  const found = openDaemonJson(daemonJsonFile);
  const text = mergedText(daemonJsonFile, found?.text, record, options);
  const before = record ? undoMerge(record, found?.text).text : found?.text;
  writing(stateDir, () =>
    writeMergeRecord(stateDir, {
      version: 1,
      file: daemonJsonFile,
      before: before ?? null,
      madeFolder: record?.madeFolder ?? !existsSync(dirname(daemonJsonFile)),
      sha256: checksum(text),
      ours: withOurs(record?.ours ?? {}, options),
    }),
  );
  if (text === found?.text) return false;
  return writing(daemonJsonFile, () => writeFileAtomic(daemonJsonFile, text, found?.mode ?? 0o644, found?.owner));
}

function mergedText(
  file: string,
  text: string | undefined,
  record: MergeRecord | undefined,
  options: readonly EngineOption[],
): string {
  const droppedKeys = Object.keys(record?.ours ?? {}).filter(key => !options.some(option => option.key === key));
  const start = record && text !== undefined ? withoutOurs(record, text, droppedKeys) : (text ?? '');
  return options.reduce((edited, { key, value: recordedValue }) => withKey(edited, key, recordedValue, file), start);
}

export interface Unmerged {
  readonly file: string;
  readonly changed: boolean;
  /** Keys that stay because somebody else changed their values. */
  readonly left: readonly string[];
}

/**
 * @returns undefined when nothing was merged
 * @throws TartanError as `mergeDaemonJson` does; the members and their record stay then
 */
export function unmergeDaemonJson(stateDir: string): Unmerged | undefined {
  const record = readMergeRecord(stateDir);
  if (!record) return undefined;
  const { file } = record;
  const found = openDaemonJson(file);
  const { text, left } = undoMerge(record, found?.text);
  const changed = found !== undefined && text !== found.text;
  if (changed)
    writing(file, () => {
      if (text === undefined) removeFile(record);
      else writeFileAtomic(file, text, found.mode, found.owner);
    });
  removeMergeRecord(stateDir);
  return { file, changed, left };
}

function removeFile({ file, madeFolder }: MergeRecord): void {
  rmSync(file, { force: true });
  const folder = dirname(file);
  if (madeFolder && readdirSync(folder).length === 0) rmdirSync(folder);
}

/**
 * Returns the text of daemon.json as it would be without what we merged; undefined when there is no such file.
 * @throws TartanError as `mergeDaemonJson` does
 */
export function textOfOthers({ daemonJsonFile, stateDir }: MergePaths): string | undefined {
  const record = readMergeRecord(stateDir);
  const text = openDaemonJson(daemonJsonFile)?.text;
  return record?.file === daemonJsonFile ? undoMerge(record, text).text : text;
}

interface OpenFile {
  readonly text: string;
  readonly mode: number;
  readonly owner: Owner;
}

/** @returns undefined when there is no such file */
function openDaemonJson(path: string): OpenFile | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    if (errnoOf(cause) === 'ELOOP')
      throw invalid(
        path,
        'is a symbolic link, which is not replaced',
        'name the file it leads to by --docker-daemon-json',
      );
    throw new TartanError('HOST_REFUSED', `cannot read ${path} (${messageOf(cause)}): let tartand read it`, { cause });
  }
  try {
    const stat = fstatSync(fd);
    const { mode, uid, gid, size } = stat;
    if (!stat.isFile()) throw invalid(path, 'is no file', 'move it out of the way');
    if (size > maxBytes) throw invalid(path, `has ${size} bytes, at most ${maxBytes} are read`, 'shorten it');
    const bytes = readFileSync(fd);
    if (!isUtf8(bytes)) throw invalid(path, 'is not UTF-8', 'save it as UTF-8, as dockerd reads it');
    return { text: bytes.toString('utf8'), mode: mode & 0o7777, owner: { uid, gid } };
  } finally {
    closeSync(fd);
  }
}

function invalid(path: string, what: string, next: string): TartanError {
  return new TartanError('CONFIG_INVALID', `${path} ${what}: ${next}`);
}

function writing<T>(path: string, write: () => T): T {
  try {
    return write();
  } catch (cause) {
    const next = 'let tartand write there (under systemd: ReadWritePaths=), or use --docker-config=env';
    throw new TartanError('HOST_REFUSED', `cannot write ${path} (${messageOf(cause)}): ${next}`, { cause });
  }
}

const recordedValue: z.ZodType<DaemonJsonValue> = z.json();
const recordSchema = z.strictObject({
  version: z.literal(1),
  file: z.string().startsWith('/'),
  /** The text without our members; null: there was no file. */
  before: z.string().nullable(),
  madeFolder: z.boolean(),
  /** The checksum of the text with our members. */
  sha256: z.string(),
  /** The values that we ever wrote for a key, the newest last. */
  ours: z.record(z.string(), z.array(recordedValue)),
});

type MergeRecord = Readonly<z.infer<typeof recordSchema>>;

const maxRecordBytes = 8 * 1024 * 1024;
const keptValues = 8;

/** @returns undefined when nothing is merged, or the record cannot be read */
export function readMergeRecord(stateDir: string): MergeRecord | undefined {
  const text = readBounded(pathIn(stateDir), maxRecordBytes);
  if (text === undefined) return undefined;
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** @throws Error in Node's shape */
function writeMergeRecord(stateDir: string, record: MergeRecord): void {
  writeFileAtomic(pathIn(stateDir), `${JSON.stringify(record)}\n`, 0o600);
}

function removeMergeRecord(stateDir: string): void {
  rmSync(pathIn(stateDir), { force: true });
}

function checksum(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Adds the values. A restart between two writes leaves an older value in the file: the last ones all count as ours. */
function withOurs(
  ours: MergeRecord['ours'],
  options: readonly { readonly key: string; readonly value: DaemonJsonValue }[],
): MergeRecord['ours'] {
  const added = options.map(({ key, value }) => {
    const earlier = (ours[key] ?? []).filter(one => !isSame(one, value));
    return [key, [...earlier, value].slice(-keptValues)] as const;
  });
  return { ...ours, ...Object.fromEntries(added) };
}

interface UndoneMerge {
  /** undefined: the file is removed too. */
  readonly text: string | undefined;
  /** Keys that somebody else has given another value since: they stay. */
  readonly left: readonly string[];
}

/**
 * @param text of the file now; undefined when there is none
 * @throws TartanError CONFIG_INVALID for text that is no JSON object any more
 */
function undoMerge(record: MergeRecord, text: string | undefined): UndoneMerge {
  if (text === undefined) return { text, left: [] };
  if (checksum(text) === record.sha256) return { text: record.before ?? undefined, left: [] };
  const keys = Object.keys(record.ours);
  const left = keys.filter(key => isForeign(record, key, readMembers(text, record.file).get(key)));
  return { text: withoutOurs(record, text, keys), left };
}

/** Puts back the values that these keys had before ours. */
function withoutOurs(record: MergeRecord, text: string, keys: readonly string[]): string {
  const { file, before } = record;
  return keys.reduce((edited, key) => {
    const now = readMembers(edited, file).get(key);
    if (now === undefined || isForeign(record, key, now)) return edited;
    const earlier = recordedValue.safeParse(before === null ? undefined : readMembers(before, file).get(key));
    return earlier.success ? withKey(edited, key, earlier.data, file) : withoutKey(edited, key, file);
  }, text);
}

function isForeign(record: MergeRecord, key: string, now: unknown): boolean {
  if (now === undefined) return false;
  return (
    !(record.ours[key] ?? []).some(one => isSame(one, now)) &&
    !isSame(readMembers(record.before ?? '', record.file).get(key), now)
  );
}

function pathIn(stateDir: string): string {
  return join(stateDir, 'docker-merge.json');
}
