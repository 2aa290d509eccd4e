/**
 * The fault lab: hosts and an etcd as in support/lab.ts, a numbered flow for each pair, 1000 packets a second of each
 * host, and a log of everything for the validator. `run` is one fault from its injection to the moment all is as before.
 *
 *   inject --> in force --> heal --> converged      flows run all the time; between two faults all must be well
 */
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../../src/lib/errors.js';
import type { Scope } from '../../../src/lib/scope.js';
import { defaultNetwork, keyPrefix, Lab } from '../../support/lab.js';
import type { Flags, LabHost } from '../../support/lab-host.js';
import { attempt, run, until } from '../../support/tools.js';
import { Flow, type FlowReport } from '../../support/traffic.js';
import { FaultEtcd } from './etcd.js';
import type { Fault } from './fault.js';
import { History } from './history.js';
import { RunLog, type MarkLine } from './log.js';
import { Patience } from './patience.js';
import { askDaemon, States } from './states.js';

interface PairFlow {
  /** `a-b`: from container to container. */
  readonly pair: string;
  /** The victim is one of its ends. */
  readonly touched: boolean;
  readonly flow: Flow;
}

export interface FaultLabOptions {
  readonly hosts: readonly string[];
  readonly members: 1 | 3;
  readonly ttlSeconds: number;
  /** 0 <= random() < 1, for what a fault leaves to chance. */
  readonly random: () => number;
  /** Kept there after the run, one JSON line each. */
  readonly logFile?: string;
}

/** Of the flow for once; below are those of the pairs, above none of the ports that the kernel gives out. */
const lonePort = 7000;
const ports = { first: 7001, rounds: 1000 };

export class FaultLab {
  readonly lab: Lab;
  readonly etcd: FaultEtcd;
  readonly log: RunLog;
  readonly ttlMs: number;
  readonly random: () => number;
  /** What the present fault is done to. */
  victim: LabHost;
  readonly #ttlSeconds: number;
  #history: History | undefined;
  #rounds = 0;
  #unfilteredMs = -Infinity;

  private constructor(lab: Lab, etcd: FaultEtcd, o: FaultLabOptions) {
    this.lab = lab;
    this.etcd = etcd;
    this.log = new RunLog(o.logFile);
    this.random = o.random;
    this.#ttlSeconds = o.ttlSeconds;
    this.ttlMs = o.ttlSeconds * 1000;
    this.victim = lab.node(o.hosts[0] ?? '');
  }

  static async open(scope: Scope, o: FaultLabOptions): Promise<FaultLab> {
    const lab = await Lab.open(scope, { nodes: o.hosts, etcd: false });
    const etcd = await scope.own('etcd', new FaultEtcd(lab.spaces, o.members));
    const opened = new FaultLab(lab, etcd, o);
    await etcd.start();
    opened.#history = await scope.own('history', new History(etcd, opened.log));
    await etcd.write({ [`${keyPrefix}/config`]: defaultNetwork });
    opened.#mark('inject', startUp);
    await Promise.all(lab.hosts.map(host => host.bringUp(opened.flags)));
    for (const host of lab.hosts) await scope.own(`states of ${host.letter}`, new States(host, opened.log));
    await opened.#converge(startUp);
    return opened;
  }

  get flags(): Flags {
    return {
      'etcd-endpoints': this.etcd.endpoints,
      'lease-ttl': String(this.#ttlSeconds),
      'iptables-resync': '1',
    };
  }

  get peers(): readonly LabHost[] {
    return this.lab.hosts.filter(host => host !== this.victim);
  }

  /** One of the peers, for what needs only two. */
  get peer(): LabHost {
    const [first] = this.peers;
    if (!first) throw new Error('the lab has one host only');
    return first;
  }

  /** The key of a host's lease. */
  keyOf(host: LabHost): string {
    return `${keyPrefix}/subnets/${host.subnet.replace('/', '-')}`;
  }

  /** Keeps the fault in force: how long is a part of it, there is nothing to wait for. */
  async stay(ms: number): Promise<void> {
    await delay(ms);
  }

  /** Starts the victim's daemon again, once the one before has ended. */
  async restart(host: LabHost = this.victim): Promise<void> {
    await host.daemon.end();
    await host.startDaemon(this.flags).waitForEvent('daemon.ready');
  }

  /** Rules in a table of their own, in the victim's namespace; `heal` removes them. */
  async filter(...rules: readonly string[]): Promise<void> {
    const chain = (hook: string): string => `chain ${hook} { type filter hook ${hook} priority -300; }`;
    const text = ['table inet faults {', chain('input'), chain('output'), '}'];
    for (const rule of rules) text.push(`add rule inet faults ${rule}`);
    await run(this.victim.inside(['nft', '-f', '-']), { input: `${text.join('\n')}\n` });
  }

  async unfilter(): Promise<void> {
    await attempt(this.victim.inside(['nft', 'delete', 'table', 'inet', 'faults']));
    this.#unfilteredMs = performance.now();
  }

  /** For what the victim does with etcd's help. */
  patience(limitMs: number): Patience {
    return this.#patience(limitMs, [this.victim]);
  }

  /** T of reliability.md section 2: what an event may take, and what is left of the time after a reconnect. */
  get eventMs(): number {
    const healedMs = Math.max(this.etcd.healedMs, this.#unfilteredMs);
    return Math.max(eventMs, healedMs + reconnectMs - performance.now());
  }

  #patience(limitMs: number, hosts: readonly LabHost[]): Patience {
    return new Patience(limitMs, () =>
      [...hosts.map(({ daemon }) => daemon), ...this.etcd.members].map(({ pid }) => pid),
    );
  }

  /** Injects, heals, waits until all is as before. @returns what went wrong, besides what the log shows */
  async run(fault: Fault): Promise<readonly string[]> {
    this.#mark('inject', fault);
    const flows = await this.#openFlows();
    const troubles: string[] = [];
    const step = async (what: string, act: () => Promise<void>): Promise<void> => {
      await act().catch((error: unknown) => troubles.push(`${fault.name}: ${what}: ${messageOf(error)}`));
    };
    await delay(settledMs);
    await step('inject', () => fault.inject(this));
    this.#mark('heal', fault);
    await step('heal', async () => fault.heal?.(this));
    await step('converge', () => this.#converge(fault, flows));
    await step('traffic', () => this.#closeFlows(fault, flows));
    await this.#recorded();
    return troubles;
  }

  /** Undoes whatever a failed case may have left. */
  async repair(): Promise<void> {
    this.etcd.signal('SIGCONT');
    await this.unfilter();
    await this.etcd.start();
    for (const host of this.lab.hosts) {
      host.daemon.signal('SIGCONT');
      if (!host.daemon.running) await host.startDaemon(this.flags).waitForEvent('daemon.ready');
    }
    await this.#converge(startUp);
  }

  /** One numbered flow, in which losses are counted from now on. */
  flow(from: LabHost, to: LabHost, port = lonePort): Promise<Flow> {
    const ends = { from: from.containerNamespace, to: to.containerNamespace };
    return Flow.open(this.lab.spaces, { ...ends, address: to.containerAddress, port, rate: this.#rate });
  }

  /** Packets a second of a flow: the queue of a host holds half a second of a thousand a second in all. */
  get #rate(): number {
    return Math.floor(1000 / (this.lab.hosts.length - 1));
  }

  async #openFlows(): Promise<readonly PairFlow[]> {
    const { hosts, pairs } = this.lab;
    // Ports that are new each time: what the fault before held back in a queue must not count as twice.
    const first = ports.first + (this.#rounds++ % ports.rounds) * hosts.length;
    return Promise.all(
      pairs.map(async ([from, to]) => ({
        pair: `${from.letter}-${to.letter}`,
        touched: from === this.victim || to === this.victim,
        // Two flows end at each host: a port for each sender.
        flow: await this.flow(from, to, first + hosts.indexOf(from)),
      })),
    );
  }

  async #closeFlows(fault: Fault, flows: readonly PairFlow[]): Promise<void> {
    const reports = await Promise.all(flows.map(({ flow }) => flow.stop()));
    for (const [index, report] of reports.entries()) {
      const { pair = '', touched = false } = flows[index] ?? {};
      const lostMax = touched ? Math.ceil(((fault.lostMax ?? 0) * this.#rate) / 1000) : 0;
      this.log.add({
        kind: 'flow',
        atMs: this.log.now(),
        fault: fault.name,
        pair,
        ...counts(report),
        lostMax: lostMax === Infinity ? null : lostMax,
      });
    }
  }

  #mark(mark: MarkLine['mark'], fault: Fault): void {
    const touched = fault === startUp ? this.lab.hosts : [this.victim];
    const mayGo = fault.peersMayGo ? touched.map(({ letter }) => letter) : [];
    this.log.add({ kind: 'mark', atMs: this.log.now(), mark, fault: fault.name, mayGo });
  }

  /**
   * All is as before when the hosts say so, packets of every flow arrive, and it stays so: a member of etcd that was
   * stopped as the leader may end leases that another one has renewed (etcd issue 15247), just after it goes on.
   */
  async #converge(fault: Fault, flows: readonly PairFlow[] = []): Promise<void> {
    const limitMs = fault.convergeMs ?? convergeMs;
    const patience = this.#patience(limitMs, this.lab.hosts);
    const arrivals = await arrivalsOf(flows);
    for (let sinceMs = Infinity; ;) {
      const missing = (await this.#missing()) ?? (await silentOf(flows, arrivals));
      sinceMs = missing === undefined ? Math.min(sinceMs, this.log.now()) : Infinity;
      if (this.log.now() - sinceMs >= steadyMs) return this.#mark('converged', fault);
      if (missing !== undefined && patience.isOver) {
        this.#mark('diverged', fault);
        throw new Error(`not within ${limitMs} ms: ${missing}`);
      }
      await delay(25);
    }
  }

  /** The first thing that is not as it should be. */
  async #missing(): Promise<string | undefined> {
    const states = await Promise.all(this.lab.hosts.map(async host => ({ host, state: await askDaemon(host) })));
    const subnets = states.map(({ state }) => state?.subnet ?? '');
    for (const { host, state } of states) {
      if (!state) return `${host.letter} does not answer`;
      if (!state.ready || state.lease !== 'held' || !state.adopted)
        return `${host.letter} is ${state.phase}, lease ${state.lease}`;
      // It has not been renewed since the fault: it may end yet.
      if (state.deadlineSeconds !== null && state.deadlineSeconds < 1)
        return `the lease of ${host.letter} is not renewed`;
      const others = subnets.filter(subnet => subnet !== state.subnet);
      if (others.some(subnet => !(subnet in state.peers))) return `${host.letter} lacks a peer of ${others.join()}`;
      const entry = await this.etcd.read(this.keyOf(host));
      if (!entry?.value.includes(state.nodeId)) return `the key of ${host.letter} is ${entry?.value ?? 'not there'}`;
    }
    return undefined;
  }

  /** The recorder may be behind. */
  async #recorded(): Promise<void> {
    const revision = await this.etcd.revision();
    await until('the history is recorded', () => this.#history?.reached(revision));
  }

  lastWords(): string {
    return this.lab.lastWords();
  }
}

const settledMs = 200;
const steadyMs = 250;
const eventMs = 1000;
const reconnectMs = 5000;
const convergeMs = 5000;
const startUp: Fault = { name: 'start', peersMayGo: true, convergeMs: 30_000, inject: async () => {} };

async function arrivalsOf(flows: readonly PairFlow[]): Promise<readonly number[]> {
  return Promise.all(flows.map(({ flow }) => flow.received()));
}

/** @param before what had arrived of each */
async function silentOf(flows: readonly PairFlow[], before: readonly number[]): Promise<string | undefined> {
  const now = await arrivalsOf(flows);
  const silent = flows.filter((_, index) => (now[index] ?? 0) <= (before[index] ?? 0));
  return silent.length === 0 ? undefined : `nothing arrives ${silent.map(({ pair }) => pair).join()}`;
}

function counts({ sent, lost, firstLost, lastLost, duplicates, reordered }: FlowReport) {
  return { sent, lost, firstLost, lastLost, duplicates, reordered };
}
