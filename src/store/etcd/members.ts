/** The members of an etcd cluster, as its administrator. */
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, TartanError } from '../../lib/errors.js';
import { Connection } from './connection.js';
import { plainMessage } from './errors.js';
import type { EtcdOptions } from './options.js';

/** etcd changes its members only when all have been connected for five seconds. */
const settleMs = 15_000;

export interface EtcdMember {
  readonly id: string;
  /** Empty until it was started. */
  readonly name: string;
  readonly peerUrls: readonly string[];
  readonly clientUrls: readonly string[];
  /** It gets all writes and has no vote yet, so that the cluster does not wait for it. */
  readonly isLearner: boolean;
}

export class EtcdMembers {
  readonly #connection: Connection;

  /** @param options with the login of root */
  constructor(options: EtcdOptions) {
    const [endpoint = ''] = options.endpoints;
    this.#connection = new Connection(endpoint, options, true);
  }

  async list(): Promise<readonly EtcdMember[]> {
    const { members } = await this.#do('list of members', ({ etcd }) => etcd.cluster.memberList({}));
    return members.map(({ ID, name, peerURLs, clientURLs, isLearner }) => ({
      id: ID,
      name,
      peerUrls: peerURLs,
      clientUrls: clientURLs,
      isLearner,
    }));
  }

  async addLearner(peerUrl: string): Promise<void> {
    await this.#do('new member', ({ etcd }) => etcd.cluster.memberAdd({ peerURLs: [peerUrl], isLearner: true }));
  }

  /** Gives a learner its vote. @returns false while it has not caught up, or was not started */
  async promote(id: string): Promise<boolean> {
    try {
      await this.#do('vote of the new member', ({ etcd }) => etcd.cluster.memberPromote({ ID: id }));
      return true;
    } catch (error) {
      if (/learner member which is in sync|not.*started|unhealthy/i.test(messageOf(error))) return false;
      throw error;
    }
  }

  async remove(id: string): Promise<void> {
    await this.#do('removal of a member', ({ etcd }) => etcd.cluster.memberRemove({ ID: id }));
  }

  close(): void {
    this.#connection.close();
  }

  async #do<T>(what: string, work: (connection: Connection) => Promise<T>): Promise<T> {
    for (const endMs = performance.now() + settleMs; ; await delay(500)) {
      try {
        await this.#connection.reachable;
        return await work(this.#connection);
      } catch (cause) {
        if (/unhealthy cluster|leader changed|no leader/.test(messageOf(cause)) && performance.now() < endMs) continue;
        throw new TartanError('STORE_UNAVAILABLE', `etcd, ${what}: ${plainMessage(cause)}`);
      }
    }
  }
}
