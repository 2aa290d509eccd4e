/**
 * The etcd of a fault lab: one or three members in the namespace `e`, each on its own port, and the operator's own way
 * to them. That way is a Unix socket a member: no fault of the network touches it, and it costs no process a question.
 */
import type { ChildProcess } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Etcd3 } from 'etcd3';
import { Connection } from '../../../src/store/etcd/connection.js';
import type { Namespaces } from '../../support/namespaces.js';
import { ended, hasEnded, run, startService, until } from '../../support/tools.js';

const address = '192.0.2.254';
/** Written together with everything the harness writes, so that the history tells it from what hosts write. */
export const operatorKey = '/operator';

export class Member {
  readonly index: number;
  readonly #spaces: Namespaces;
  readonly #count: number;
  #child: ChildProcess | undefined;
  #connection: Connection | undefined;

  constructor(spaces: Namespaces, index: number, count: number) {
    this.#spaces = spaces;
    this.index = index;
    this.#count = count;
  }

  get endpoint(): string {
    return `http://${address}:${clientPort(this.index)}`;
  }

  get group(): number {
    return 61_000 + this.index;
  }

  /** A way to its client port that leads out of the namespace. */
  get socket(): string {
    return join(this.#spaces.directory, socketName(this.index));
  }

  /** Drops its packets to and from the other members, and no others. */
  async partition(): Promise<void> {
    const others = Array.from({ length: this.#count }, (_, index) => peerPort(index)).filter(
      port => port !== peerPort(this.index),
    );
    const own = `tcp dport ${peerPort(this.index)} drop; tcp sport ${peerPort(this.index)} drop`;
    const away = `meta skgid ${this.group} tcp dport { ${others.join(', ')} } drop`;
    const rules = `table inet partition {\nchain out {\ntype filter hook output priority 0; ${own}; ${away}\n}\n}\n`;
    await run(this.#spaces.inside('e', ['nft', '-f', '-']), { input: rules });
  }

  get running(): boolean {
    return this.#child !== undefined && !hasEnded(this.#child);
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** @param token a cluster that begins with another one has another id */
  start(token: string): void {
    const { directory } = this.#spaces;
    const peers = Array.from({ length: this.#count }, (_, index) => `m${index}=http://127.0.0.1:${peerPort(index)}`);
    const peer = `http://127.0.0.1:${peerPort(this.index)}`;
    const args = [
      ['--name', `m${this.index}`, '--data-dir', this.#dataDirectory],
      // The address of a Unix socket must look like host:port; it is a file in the working directory.
      ['--listen-client-urls', `http://0.0.0.0:${clientPort(this.index)},unix://${socketName(this.index)}`],
      // It is killed, and the machine is not; other tests write to the same disk.
      ['--unsafe-no-fsync'],
      ['--advertise-client-urls', this.endpoint, '--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
      [
        '--initial-cluster',
        peers.join(','),
        '--initial-cluster-token',
        token,
        '--logger',
        'zap',
        '--log-level',
        'error',
      ],
    ].flat();
    // What a killed one left there keeps its successor from listening.
    rmSync(join(directory, socketName(this.index)), { force: true });
    // A group of its own tells the packets of a member from those of the others.
    const group = ['setpriv', '--regid', String(this.group), '--clear-groups'];
    const command = this.#spaces.inside('e', ['env', '-C', directory, ...group, 'etcd', ...args]);
    this.#child = startService(command, join(directory, `etcd-${this.index}.log`));
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    this.#child?.kill(name);
  }

  async kill(): Promise<void> {
    if (!this.#child) return;
    this.#child.kill('SIGKILL');
    await ended(this.#child);
  }

  wipe(): void {
    rmSync(this.#dataDirectory, { recursive: true, force: true });
  }

  /** The operator's: a new one after each failure, an old one may wait a long time before it tries again. */
  connection(): Connection {
    if (this.#connection?.closed.aborted) this.#connection = undefined;
    this.#connection ??= this.connect();
    return this.#connection;
  }

  connect(): Connection {
    return new Connection(`http://unix:${this.socket}`, { endpoints: [], prefix: '' }, false);
  }

  close(): void {
    this.#connection?.close();
  }

  /** Of a member that does not run. */
  backUp(): void {
    rmSync(this.#backup, { recursive: true, force: true });
    cpSync(this.#dataDirectory, this.#backup, { recursive: true });
  }

  restore(): void {
    this.wipe();
    cpSync(this.#backup, this.#dataDirectory, { recursive: true });
  }

  get #backup(): string {
    return `${this.#dataDirectory}-backup`;
  }

  get #dataDirectory(): string {
    return join(this.#spaces.directory, `etcd-${this.index}`);
  }
}

export class FaultEtcd {
  readonly members: readonly Member[];
  /** When members were last given back to those who use them, by performance.now(). */
  healedMs = -Infinity;
  /** The first revision that a recorder of the present history can read. */
  firstRevision = 1;
  #wipes = 0;
  #backupRevision = 0;
  #history = new AbortController();

  constructor(spaces: Namespaces, count: 1 | 3) {
    this.members = Array.from({ length: count }, (_, index) => new Member(spaces, index, count));
  }

  get endpoints(): string {
    return this.members.map(({ endpoint }) => endpoint).join(',');
  }

  /** Aborted when the present history is wiped or taken back: what comes later begins with `firstRevision`. */
  get history(): AbortSignal {
    return this.#history.signal;
  }

  /** Starts whatever does not run and waits until every member serves. */
  async start(): Promise<void> {
    // An empty etcd of the same configuration has the same cluster id: every other time it is another one.
    const token = `lab-${this.#wipes >> 1}`;
    for (const member of this.members) if (!member.running) member.start(token);
    for (const member of this.members)
      await until(`etcd member ${member.index} serves`, () =>
        this.#on(member, etcd => etcd.get('any')).then(() => true),
      );
    this.healedMs = performance.now();
  }

  async kill(): Promise<void> {
    await Promise.all(this.members.map(member => member.kill()));
  }

  /** Every member begins anew, without history. */
  async wipe(): Promise<void> {
    await this.kill();
    for (const member of this.members) member.wipe();
    this.#wipes++;
    this.#beginHistory(1);
  }

  /** Of members that do not run. @param revision of what is in them */
  backUp(revision: number): void {
    for (const member of this.members) member.backUp();
    this.#backupRevision = revision;
  }

  /** Brings members that do not run back to the backup. */
  restore(): void {
    for (const member of this.members) member.restore();
    this.#beginHistory(this.#backupRevision + 1);
  }

  #beginHistory(firstRevision: number): void {
    this.firstRevision = firstRevision;
    this.#history.abort();
    this.#history = new AbortController();
  }

  signal(name: 'SIGSTOP' | 'SIGCONT'): void {
    for (const member of this.members) member.signal(name);
    if (name === 'SIGCONT') this.healedMs = performance.now();
  }

  async leader(): Promise<Member> {
    return until('etcd has a leader', async () => {
      for (const member of this.members) {
        const { header, leader } = await this.#on(member, etcd => etcd.maintenance.status());
        if (header.member_id === leader) return member;
      }
      return undefined;
    });
  }

  /** Asks the members in turn until one answers. */
  async ask<T>(question: (etcd: Etcd3) => PromiseLike<T>): Promise<T> {
    return until('etcd answers', async () => {
      for (const member of this.members.filter(({ running }) => running))
        try {
          return { answer: await this.#on(member, question) };
        } catch {
          // The next one, and then all again.
        }
      return undefined;
    }).then(({ answer }) => answer);
  }

  /** Writes as an operator would, without a guard: a value, or undefined to delete the key. */
  async write(changes: Readonly<Record<string, string | undefined>>, leaseId = '0'): Promise<void> {
    const operations = Object.entries({ ...changes, [operatorKey]: '' }).map(([key, value]) =>
      value === undefined
        ? { request_delete_range: { key: Buffer.from(key) } }
        : {
            request_put: {
              key: Buffer.from(key),
              value: Buffer.from(value),
              lease: key === operatorKey ? '0' : leaseId,
            },
          },
    );
    await this.ask(etcd => etcd.kv.txn({ success: operations }));
  }

  /** The value and the etcd lease of a key; undefined when there is no such key. */
  async read(key: string): Promise<{ readonly value: string; readonly leaseId: string } | undefined> {
    const { kvs } = await this.ask(etcd => etcd.kv.range({ key: Buffer.from(key) }));
    return kvs[0] && { value: kvs[0].value.toString('utf8'), leaseId: kvs[0].lease };
  }

  async revision(): Promise<number> {
    return Number((await this.ask(etcd => etcd.kv.range({ key: Buffer.from(operatorKey) }))).header.revision);
  }

  /** Forgets all history up to now, and gives the space back. */
  async compact(): Promise<void> {
    const revision = String(await this.revision());
    await this.ask(etcd => etcd.kv.compact({ revision, physical: true })).catch(() => {});
    for (const member of this.members)
      if (member.running) await this.#on(member, etcd => etcd.maintenance.defragment());
  }

  async #on<T>(member: Member, question: (etcd: Etcd3) => PromiseLike<T>): Promise<T> {
    const connection = member.connection();
    try {
      return await question(connection.etcd);
    } catch (error) {
      connection.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    for (const member of this.members) member.close();
  }
}

function clientPort(index: number): number {
  return 2379 + 100 * index;
}

function peerPort(index: number): number {
  return 2380 + 100 * index;
}

function socketName(index: number): string {
  return `m${index}:1`;
}
