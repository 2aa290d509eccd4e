/**
 * What a restart wants to know before etcd answers: `<state-dir>/state.json`, 0600, with a version and a checksum.
 * A damaged, older or foreign file is refused as a whole, never trusted in part.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { z } from 'zod';
import { readBounded, writeFileAtomic } from '../lib/file.js';
import { formatPrefix, parsePrefix, type Prefix } from '../model/ipv4.js';

export interface State {
  readonly nodeId: string;
  readonly network: Prefix;
  readonly subnet: Prefix;
}

export type StateRead =
  | { readonly kind: 'found'; readonly state: State }
  | { readonly kind: 'absent' }
  | { readonly kind: 'refused'; readonly reason: string };

const version = 1;
const maxBytes = 64 * 1024;
const prefix = z.string().transform((text, context) => {
  try {
    return parsePrefix(text);
  } catch {
    context.addIssue({ code: 'custom', message: 'not a prefix' });
    return z.NEVER;
  }
});
const body = z.strictObject({
  nodeId: z.string(),
  network: prefix,
  subnet: prefix,
  files: z.array(z.string().startsWith('/')),
});
const file = z.strictObject({ version: z.literal(version), sha256: z.string(), body: z.unknown() });

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
    if (read.kind !== 'found' || read.state.nodeId === nodeId) return read;
    return this.#refused(`belongs to node ${read.state.nodeId}`);
  }

  /** The files that a daemon of this state directory wrote; none when that cannot be told. */
  writtenFiles(): readonly string[] {
    const read = this.#read();
    return read.kind === 'found' ? read.state.files : [];
  }

  #read(): { kind: 'found'; state: z.infer<typeof body> } | Exclude<StateRead, { kind: 'found' }> {
    const text = readBounded(this.path, maxBytes);
    if (text === undefined) return { kind: 'absent' };
    try {
      const outer = file.parse(JSON.parse(text));
      if (checksum(outer.body) !== outer.sha256) return this.#refused('is damaged: its checksum does not fit');
      return { kind: 'found', state: body.parse(outer.body) };
    } catch {
      return this.#refused(`is not a state file of version ${version}`);
    }
  }

  #refused(reason: string): { readonly kind: 'refused'; readonly reason: string } {
    return { kind: 'refused', reason: `${this.path} ${reason}` };
  }

  /** @throws Error in Node's shape; the old file stays */
  write(state: State): void {
    const content = {
      nodeId: state.nodeId,
      network: formatPrefix(state.network),
      subnet: formatPrefix(state.subnet),
      files: this.#files,
    };
    writeFileAtomic(this.path, `${JSON.stringify({ version, sha256: checksum(content), body: content })}\n`, 0o600);
  }
}

function checksum(content: unknown): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}
