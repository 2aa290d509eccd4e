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
const body = z.strictObject({ nodeId: z.string(), network: prefix, subnet: prefix });
const file = z.strictObject({ version: z.literal(version), sha256: z.string(), body: z.unknown() });

export class StateFile {
  readonly path: string;

  constructor(stateDir: string) {
    this.path = join(stateDir, 'state.json');
  }

  read(nodeId: string): StateRead {
    const text = readBounded(this.path, maxBytes);
    if (text === undefined) return { kind: 'absent' };
    const refused = (reason: string): StateRead => ({ kind: 'refused', reason: `${this.path} ${reason}` });
    try {
      const outer = file.parse(JSON.parse(text));
      if (checksum(outer.body) !== outer.sha256) return refused('is damaged: its checksum does not fit');
      const state = body.parse(outer.body);
      return state.nodeId === nodeId ? { kind: 'found', state } : refused(`belongs to node ${state.nodeId}`);
    } catch {
      return refused(`is not a state file of version ${version}`);
    }
  }

  /** @throws Error in Node's shape; the old file stays */
  write(state: State): void {
    const content = { nodeId: state.nodeId, network: formatPrefix(state.network), subnet: formatPrefix(state.subnet) };
    writeFileAtomic(this.path, `${JSON.stringify({ version, sha256: checksum(content), body: content })}\n`, 0o600);
  }
}

function checksum(content: unknown): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}
