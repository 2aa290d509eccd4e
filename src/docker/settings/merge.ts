/**
 * Merging settings into Docker's daemon.json, only when asked for: the members that are ours are set in place, written
 * by rename with the file's own mode and owner, only when something differs, and taken out again when the mode or the
 * host changes. What was there before is remembered first (merge-memory.ts).
 */
import { isUtf8 } from 'node:buffer';
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
import { dirname } from 'node:path';
import { errnoOf, messageOf, TartanError } from '../../lib/errors.js';
import { writeFileAtomic, type Owner } from '../../lib/file.js';
import { withKey } from './daemon-json.js';
import {
  checksum,
  readMergeMemory,
  removeMergeMemory,
  undoMerge,
  withoutOurs,
  withOurs,
  writeMergeMemory,
  type MergeMemory,
} from './merge-memory.js';
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
  const other = readMergeMemory(stateDir);
  if (other && other.file !== daemonJsonFile) unmergeDaemonJson(stateDir);
  const memory = other?.file === daemonJsonFile ? other : undefined;
  const found = openDaemonJson(daemonJsonFile);
  const text = mergedText(daemonJsonFile, found?.text, memory, options);
  const before = memory ? undoMerge(memory, found?.text).text : found?.text;
  writing(stateDir, () =>
    writeMergeMemory(stateDir, {
      version: 1,
      file: daemonJsonFile,
      before: before ?? null,
      madeFolder: memory?.madeFolder ?? !existsSync(dirname(daemonJsonFile)),
      sha256: checksum(text),
      ours: withOurs(memory?.ours ?? {}, options),
    }),
  );
  if (text === found?.text) return false;
  return writing(daemonJsonFile, () => writeFileAtomic(daemonJsonFile, text, found?.mode ?? 0o644, found?.owner));
}

function mergedText(
  file: string,
  text: string | undefined,
  memory: MergeMemory | undefined,
  options: readonly EngineOption[],
): string {
  const gone = Object.keys(memory?.ours ?? {}).filter(key => !options.some(option => option.key === key));
  const start = memory && text !== undefined ? withoutOurs(memory, text, gone) : (text ?? '');
  return options.reduce((edited, { key, value }) => withKey(edited, key, value, file), start);
}

export interface Unmerged {
  readonly file: string;
  readonly changed: boolean;
  /** Keys that stay because somebody else changed their values. */
  readonly left: readonly string[];
}

/**
 * @returns undefined when nothing was merged
 * @throws TartanError as `mergeDaemonJson`; what was merged stays and is not forgotten
 */
export function unmergeDaemonJson(stateDir: string): Unmerged | undefined {
  const memory = readMergeMemory(stateDir);
  if (!memory) return undefined;
  const { file } = memory;
  const found = openDaemonJson(file);
  const { text, left } = undoMerge(memory, found?.text);
  const changed = found !== undefined && text !== found.text;
  if (changed)
    writing(file, () => {
      if (text === undefined) removeFile(memory);
      else writeFileAtomic(file, text, found.mode, found.owner);
    });
  removeMergeMemory(stateDir);
  return { file, changed, left };
}

function removeFile({ file, madeFolder }: MergeMemory): void {
  rmSync(file, { force: true });
  const folder = dirname(file);
  if (madeFolder && readdirSync(folder).length === 0) rmdirSync(folder);
}

interface OpenFile {
  readonly text: string;
  readonly mode: number;
  readonly owner: Owner;
}

/** @returns undefined when there is none */
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
