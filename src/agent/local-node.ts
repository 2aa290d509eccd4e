/**
 * This host as a node: an identity that never changes, and an underlay address that it can move away from. The node id
 * is a UUID in the state directory. It stays when the address, the name or the disk image of the machine is changed on
 * purpose. The boot id tells apart two starts of one identity.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, statSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, TartanError } from '../lib/errors.js';
import { readBounded, writeFileAtomic } from '../lib/file.js';
import { shown } from '../model/ip.js';
import { nodeIdPattern, type Node, type UnderlayAddress } from '../model/node.js';

export class LocalNode {
  #current: Node;

  constructor(identity: Pick<Node, 'id' | 'bootId' | 'hardware' | 'hostName'>, underlay: UnderlayAddress) {
    this.#current = { ...identity, ...underlay };
  }

  get current(): Node {
    return this.#current;
  }

  move(to: UnderlayAddress): void {
    this.#current = { ...this.#current, ...to };
  }
}

export function nodeIdFile(stateDir: string): string {
  return join(stateDir, 'node-id');
}

/**
 * Reads the node id of the state directory, or makes it at the first start.
 * @throws TartanError CONFIG_INVALID when the file contains something else: a new identity never replaces it
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

/** Returns the boot id of the kernel with the network namespace: each namespace is a host of its own to its peers. */
export function readBootId(): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return `${boot}.${statSync('/proc/self/ns/net').ino}`;
}
