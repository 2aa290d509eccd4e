/**
 * Who this host is. The node id is a UUID kept in the state directory: it stays when the address, the name or the
 * machine's disk image change hands knowingly. The boot id tells two starts of one identity apart: the kernel's boot
 * id with the network namespace, because each namespace is a host of its own to its peers.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, statSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, TartanError } from '../lib/errors.js';
import { readBounded, writeFileAtomic } from '../lib/file.js';
import { nodeIdPattern } from '../model/node.js';
import { shown } from '../model/ipv4.js';

export function nodeIdFile(stateDir: string): string {
  return join(stateDir, 'node-id');
}

/**
 * @returns the node id of the state directory, made at the first start
 * @throws TartanError CONFIG_INVALID when the file holds something else: a new identity is never invented over it
 */
export function loadNodeId(stateDir: string): string {
  const path = nodeIdFile(stateDir);
  if (!existsSync(path)) {
    const id = randomUUID();
    try {
      writeFileAtomic(path, `${id}\n`, 0o600);
    } catch (cause) {
      throw new TartanError(
        'CONFIG_INVALID',
        `cannot write ${path} (${messageOf(cause)}): make room, or choose another --state-dir or a --node-id`,
        { cause },
      );
    }
    return id;
  }
  const id = (readBounded(path, 256) ?? '').trimEnd();
  if (!nodeIdPattern.test(id)) {
    throw new TartanError(
      'CONFIG_INVALID',
      `${path} holds '${shown(id)}', expected a node id such as a UUID: restore it, or remove it to become a new node`,
    );
  }
  return id;
}

export function readBootId(): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return `${boot}.${statSync('/proc/self/ns/net').ino}`;
}
