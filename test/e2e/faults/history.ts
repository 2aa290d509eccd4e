/**
 * The history of etcd, recorded change by change from revision 1 on. It goes on over every fault: after a break from
 * the next revision, after a wipe from the beginning of the new cluster.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { KeyEvent, KeyRange } from '../../../src/store/kv.js';
import { watchStream } from '../../../src/store/etcd/streams.js';
import { operatorKey, type FaultEtcd, type Member } from './etcd.js';
import type { RunLog } from './log.js';

const everything: KeyRange = { start: Buffer.from([0]), end: Buffer.from([0]) };

export class History {
  readonly #etcd: FaultEtcd;
  readonly #log: RunLog;
  readonly #life = new AbortController();
  readonly #done: Promise<void>;
  /** What has been recorded so far is of this one. */
  #recorded: AbortSignal;
  #next = 1;
  #gap: string | undefined;

  constructor(etcd: FaultEtcd, log: RunLog) {
    this.#etcd = etcd;
    this.#log = log;
    this.#recorded = etcd.history;
    this.#done = this.#record();
  }

  /** Everything up to this revision has been recorded. @throws Error when something can never be */
  reached(revision: number): boolean {
    if (this.#gap !== undefined) throw new Error(this.#gap);
    return this.#recorded === this.#etcd.history && this.#next > revision;
  }

  async close(): Promise<void> {
    this.#life.abort();
    await this.#done;
  }

  async #record(): Promise<void> {
    for (let turn = 0; !this.#life.signal.aborted; turn++) {
      const member = this.#etcd.members[turn % this.#etcd.members.length];
      if (member?.running) await this.#follow(member);
      await delay(50);
    }
  }

  /** Until the member or the watch ends. */
  async #follow(member: Member): Promise<void> {
    const connection = member.connect();
    // By its revisions alone a wiped history cannot be told from one that went on.
    const { history } = this.#etcd;
    try {
      const { header } = await connection.etcd.kv.range({ key: Buffer.from('any') });
      if (history.aborted) return;
      if (this.#recorded !== history) {
        this.#next = this.#etcd.firstRevision;
        this.#recorded = history;
        this.#log.add({ kind: 'wiped', atMs: this.#log.now() });
      }
      const request = {
        range: everything,
        revision: BigInt(this.#next),
        clusterId: header.cluster_id,
        onEvents: (events: readonly KeyEvent[]) => this.#hear(events),
      };
      const end = await watchStream(connection, request, AbortSignal.any([this.#life.signal, history]));
      if (end.kind === 'compacted')
        this.#gap = `what happened before revision ${this.#next} was not recorded: ${end.reason}`;
    } catch {
      // It does not answer: another one may, or the same one later.
    } finally {
      connection.close();
    }
  }

  #hear(events: readonly KeyEvent[]): void {
    const marked = new Set(events.filter(event => keyOf(event) === operatorKey).map(revisionOf));
    for (const event of events) {
      const revision = revisionOf(event);
      this.#next = revision + 1;
      const value = event.kind === 'put' ? event.entry.value.toString('latin1') : '';
      const operator = marked.has(revision);
      this.#log.add({ kind: event.kind, atMs: this.#log.now(), revision, key: keyOf(event), value, operator });
    }
  }
}

function keyOf(event: KeyEvent): string {
  return (event.kind === 'put' ? event.entry.key : event.key).toString('latin1');
}

function revisionOf(event: KeyEvent): number {
  return Number(event.kind === 'put' ? event.entry.modRevision : event.revision);
}
