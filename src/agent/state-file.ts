/**
 * What a restart wants to know before etcd answers: `<state-dir>/state.json`, 0600, with a version and a checksum.
 * A damaged, unknown or foreign file is refused as a whole, never trusted in part. Version 1 knew the subnet only.
 */
import { createHash } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { messageOf } from '../lib/errors.js';
import { readBounded, writeFileAtomic } from '../lib/file.js';
import { formatPrefix, parsePrefix, type Prefix } from '../model/ipv4.js';
import { formatSavedState, savedStateSchema, parsed, type SavedState } from './saved-state.js';

export interface State {
  readonly nodeId: string;
  /** Asked for first by the next start. */
  readonly subnet: Prefix;
  /** What a start may stand on while the store is silent; undefined once the subnet was lost. */
  readonly saved: SavedState | undefined;
}

export type StateRead =
  | { readonly kind: 'found'; readonly state: State }
  | { readonly kind: 'absent' }
  | { readonly kind: 'refused'; readonly reason: string };

type FullRead =
  | { readonly kind: 'found'; readonly state: State; readonly files: readonly string[] }
  | Exclude<StateRead, { kind: 'found' }>;

const version = 2;
/** 65,536 peers take 9 MB. */
const maxBytes = 32 * 1024 * 1024;

const common = { nodeId: z.string(), subnet: parsed(parsePrefix), files: z.array(z.string().startsWith('/')) };
const bodies = {
  1: z.strictObject({ ...common, network: z.string() }).transform(body => ({ ...body, memory: undefined })),
  [version]: z.strictObject({ ...common, memory: savedStateSchema.optional() }),
};
const file = z.strictObject({ version: z.literal([1, version]), sha256: z.string(), body: z.unknown() });

export class StateFile {
  readonly path: string;

  readonly #files: readonly string[];

  /** @param files what this daemon writes outside its own directories, for `tartan cleanup` */
  constructor(stateDir: string, files: readonly string[] = []) {
    this.path = join(stateDir, 'state.json');
    this.#files = files;
  }

  read(nodeId: string): StateRead {
    const read = this.#read();
    if (read.kind !== 'found') return read;
    if (read.state.nodeId !== nodeId) return this.#refused(`belongs to node ${read.state.nodeId}`);
    return { kind: 'found', state: read.state };
  }

  /** The files that a daemon of this state directory wrote; none when that cannot be told. */
  writtenFiles(): readonly string[] {
    const read = this.#read();
    return read.kind === 'found' ? read.files : [];
  }

  #read(): FullRead {
    const text = readBounded(this.path, maxBytes);
    if (text === undefined) {
      return existsSync(this.path) ? this.#refused(`is no readable file of at most ${maxBytes} bytes`) : absent;
    }
    const outer = file.safeParse(parseJson(text));
    if (!outer.success) return this.#refused(`is damaged, or not a state file of version 1 to ${version}`);
    if (checksum(outer.data.body) !== outer.data.sha256) return this.#refused('is damaged: its checksum does not fit');
    const body = bodies[outer.data.version].safeParse(outer.data.body);
    if (!body.success) return this.#refused(`has no sound ${body.error.issues[0]?.path.join('.') ?? 'content'}`);
    const { nodeId, subnet, memory: saved, files } = body.data;
    return { kind: 'found', state: { nodeId, subnet, saved }, files };
  }

  #refused(reason: string): { readonly kind: 'refused'; readonly reason: string } {
    return { kind: 'refused', reason: `${this.path} ${reason}` };
  }

  /** @throws Error in Node's shape; the old file stays */
  write(state: State): void {
    this.#write(state, this.#files);
  }

  /**
   * The subnet was lost or given back: no later start may stand on it. Where the file cannot be rewritten it is removed.
   * @throws Error in Node's shape
   */
  forget(): void {
    const read = this.#read();
    try {
      if (read.kind === 'found') this.#write({ ...read.state, saved: undefined }, read.files);
    } catch (cause) {
      rmSync(this.path, { force: true });
      if (existsSync(this.path)) throw new Error(`${messageOf(cause)}, and it cannot be removed`, { cause });
    }
  }

  #write({ nodeId, subnet, saved }: State, files: readonly string[]): void {
    const body = { nodeId, subnet: formatPrefix(subnet), files, ...(saved && { memory: formatSavedState(saved) }) };
    writeFileAtomic(this.path, `${JSON.stringify({ version, sha256: checksum(body), body })}\n`, 0o600);
  }
}

const absent = { kind: 'absent' } as const;

/** @returns undefined, which is no state file, for what is no JSON */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function checksum(content: unknown): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}
