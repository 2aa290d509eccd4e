/**
 * Replays the log of a run and names every invariant (I1 to I11) that it breaks. Pure: the same lines always give the
 * same verdict, so that hand-made bad logs prove that it can fail.
 *
 * What a run cannot show is checked elsewhere: I5 and I10 by the cases themselves, I12 by the tests of options and logs.
 */
import { prefixesOverlap, type Prefix } from '../../../src/model/ip.js';
import { readLeaseKey } from '../../../src/model/lease.js';
import type { ChangeLine, DaemonState, FlowLine, LogLine, MarkLine, ProcessState, StateLine } from './log.js';
import { Windows } from './windows.js';

export interface Bounds {
  /** What an event may take to have its effect. */
  readonly eventMs: number;
  /** How long a route may outlast its lease: hold-down, or the sweep that finds a missed delete. */
  readonly staleMs: number;
  /** How long a subnet is kept for a node that left without a goodbye. */
  readonly quarantineMs: number;
  readonly residentBytes: number;
  readonly descriptors: number;
  /** Averages over ten seconds. */
  readonly logBytesPerSecond: number;
  readonly cpuShare: number;
}

export interface Violation {
  readonly invariant: 'I1' | 'I2' | 'I3' | 'I6' | 'I7' | 'I8' | 'I9' | 'I11';
  readonly atMs: number;
  readonly what: string;
}

interface Owned {
  readonly subnet: Prefix;
  readonly owner: string;
  readonly released: boolean;
  readonly operator: boolean;
}

interface Left {
  readonly owner: string;
  readonly atMs: number;
  readonly free: boolean;
}

const subnetsKey = /\/subnets\/([^/]*)$/;
const averageOverMs = 10_000;
const togetherMs = 5_000;

export function validate(lines: readonly LogLine[], bounds: Bounds): readonly Violation[] {
  const replay = new Replay(new Windows(lines), bounds);
  for (const line of lines) replay.take(line);
  return replay.violations;
}

class Replay {
  readonly violations: Violation[] = [];
  readonly #windows: Windows;
  readonly #bounds: Bounds;
  readonly #owned = new Map<string, Owned>();
  readonly #left = new Map<string, Left>();
  /** When a key last changed its owner, or went. */
  readonly #changedMs = new Map<string, number>();
  /** When keys went of late, and when most had gone together: from then on hosts hold on to what they have. */
  #wentMs: readonly number[] = [];
  #massMs = -Infinity;
  readonly #subnets = new Map<string, string>();
  readonly #foreign = new Map<string, string>();
  readonly #lost = new Map<string, { readonly sinceMs: number; readonly packets: number }>();
  readonly #trail = new Map<string, { readonly atMs: number; readonly process: ProcessState }[]>();
  readonly #hosts = new Map<string, DaemonState>();

  constructor(windows: Windows, bounds: Bounds) {
    this.#windows = windows;
    this.#bounds = bounds;
  }

  take(line: LogLine): void {
    switch (line.kind) {
      case 'put':
      case 'delete':
        return this.#change(line);
      case 'wiped':
        this.#owned.clear();
        this.#left.clear();
        this.#changedMs.clear();
        this.#massMs = line.atMs;
        return;
      case 'mark':
        return this.#mark(line);
      case 'flow':
        return this.#flow(line);
      case 'state':
        return this.#state(line);
    }
  }

  #break(invariant: Violation['invariant'], atMs: number, what: string): void {
    // The same complaint ten times a second is one complaint.
    const said = this.violations.some(other => other.invariant === invariant && other.what === what);
    if (!said) this.violations.push({ invariant, atMs, what });
  }

  #flow({ fault, pair, sent, lost, lostMax, firstLost, lastLost, duplicates, atMs }: FlowLine): void {
    if (lostMax !== null && lost > lostMax) {
      const numbers = `numbers ${firstLost} to ${lastLost}`;
      this.#break('I3', atMs, `${fault}: ${lost} of ${sent} lost ${pair}, at most ${lostMax}, ${numbers}`);
    }
    if (duplicates > 0) this.#break('I3', atMs, `${fault}: ${duplicates} twice ${pair}`);
  }

  #mark({ mark, fault, atMs }: MarkLine): void {
    if (mark === 'diverged') this.#break('I11', atMs, `${fault}: not as before in time after it ended`);
  }

  #change(line: ChangeLine): void {
    const name = subnetsKey.exec(line.key)?.[1];
    const subnet = name === undefined ? undefined : readLeaseKey(name);
    if (name === undefined || !subnet) return;
    const before = this.#owned.get(name);
    if (line.kind === 'delete') {
      this.#owned.delete(name);
      this.#changedMs.set(name, line.atMs);
      this.#noteMass(line.atMs);
      if (before)
        this.#left.set(name, { owner: before.owner, atMs: line.atMs, free: before.released || before.operator });
      return;
    }
    const owned = { subnet, ...ownerOf(line.value), operator: line.operator };
    if (!line.operator) this.#checkClaim(name, owned, line.atMs);
    if (before?.owner !== owned.owner) this.#changedMs.set(name, line.atMs);
    this.#owned.set(name, owned);
  }

  /** As a host counts it, which is none of its own peers. */
  #noteMass(atMs: number): void {
    this.#wentMs = [...this.#wentMs.filter(wentMs => atMs - wentMs < togetherMs), atMs];
    if (this.#wentMs.length > 1 && this.#wentMs.length >= this.#owned.size) this.#massMs = atMs;
  }

  #checkClaim(name: string, claim: Owned, atMs: number): void {
    const { owner, subnet } = claim;
    for (const [other, held] of this.#owned) {
      if (held.owner === owner) continue;
      if (other === name) this.#break('I1', atMs, `${owner} wrote over ${name} of ${held.owner}`);
      else if (prefixesOverlap(held.subnet, subnet))
        this.#break('I1', atMs, `${owner} took ${name}, which overlaps ${other} of ${held.owner}`);
    }
    const left = this.#left.get(name);
    const early = left && left.owner !== owner && !left.free && atMs - left.atMs < this.#bounds.quarantineMs;
    if (early) this.#break('I1', atMs, `${owner} took ${name} ${atMs - left.atMs} ms after ${left.owner} left it`);
  }

  #state(line: StateLine): void {
    const quiet = this.#windows.quiet(line.atMs, line.untilMs);
    this.#checkForeign(line, quiet);
    this.#checkProcess(line);
    const { daemon, host, atMs } = line;
    if (!daemon) {
      if (quiet) this.#break('I11', atMs, `${host}: no daemon`);
      return;
    }
    this.#hosts.set(host, daemon);
    this.#checkLost(line, daemon);
    this.#checkSubnet(host, daemon, atMs, quiet);
    this.#checkPeers(host, daemon, atMs, quiet);
    if (quiet && !(daemon.ready && daemon.lease === 'held' && daemon.adopted))
      this.#break('I11', atMs, `${host}: ${daemon.phase}, lease ${daemon.lease}, though nothing is wrong`);
  }

  /** Within a second of the loss nothing may pass any more. */
  #checkLost({ host, atMs }: StateLine, daemon: DaemonState): void {
    const packets = daemon.received + daemon.transmitted;
    const lost = this.#lost.get(host);
    if (daemon.lease !== 'lost') this.#lost.delete(host);
    else if (!lost || atMs - lost.sinceMs < this.#bounds.eventMs)
      this.#lost.set(host, { sinceMs: lost?.sinceMs ?? atMs, packets });
    else if (packets > lost.packets) this.#break('I2', atMs, `${host} forwards for ${daemon.subnet}, which it lost`);
  }

  #checkSubnet(host: string, { subnet, nodeId, lease }: DaemonState, atMs: number, quiet: boolean): void {
    if (subnet === null) return;
    const before = this.#subnets.get(host);
    if (before !== undefined && before !== subnet)
      this.#break('I6', atMs, `${host} had ${before} and now has ${subnet}`);
    this.#subnets.set(host, subnet);
    const name = subnet.replace('/', '-');
    const settled = atMs - (this.#changedMs.get(name) ?? atMs) >= this.#bounds.eventMs;
    const owner = this.#owned.get(name)?.owner ?? 'nobody';
    if (quiet && settled && lease !== 'lost' && owner !== nodeId)
      this.#break('I2', atMs, `${host} uses ${subnet}, which belongs to ${owner}`);
  }

  #checkPeers(host: string, daemon: DaemonState, atMs: number, quiet: boolean): void {
    if (daemon.phase !== 'ready') return;
    const mayGo = this.#windows.mayGoAt(atMs);
    for (const [other, { subnet }] of this.#hosts) {
      if (other === host || subnet === null || subnet in daemon.peers) continue;
      if (quiet) this.#break('I11', atMs, `${host} has no route to ${other} (${subnet})`);
      else if (mayGo && !mayGo.includes(host) && !mayGo.includes(other))
        this.#break('I3', atMs, `${host} dropped ${other} (${subnet})`);
    }
    for (const subnet of Object.keys(daemon.peers)) {
      const name = subnet.replace('/', '-');
      const goneMs = atMs - Math.max(this.#changedMs.get(name) ?? atMs, this.#massMs);
      if (!this.#owned.has(name) && goneMs > this.#bounds.staleMs)
        this.#break(
          'I7',
          atMs,
          `${host} still routes ${subnet}, whose lease went more than ${this.#bounds.staleMs} ms ago`,
        );
    }
  }

  #checkForeign({ host, routes, atMs }: StateLine, quiet: boolean): void {
    if (!quiet) return;
    const now = routes.foreign.join('\n');
    const before = this.#foreign.get(host);
    if (before === undefined) this.#foreign.set(host, now);
    else if (before !== now)
      this.#break('I8', atMs, `${host}: foreign routes and rules were\n${before}\nand are\n${now}`);
  }

  #checkProcess({ host, process, atMs }: StateLine): void {
    if (!process) return;
    const { residentBytes, descriptors, logBytesPerSecond, cpuShare } = this.#bounds;
    if (process.residentBytes > residentBytes)
      this.#break('I9', atMs, `${host}: more than ${residentBytes} bytes of memory`);
    if (process.descriptors > descriptors)
      this.#break('I9', atMs, `${host}: ${process.descriptors} descriptors, more than ${descriptors}`);
    const trail = (this.#trail.get(host) ?? []).filter(({ process: { pid } }) => pid === process.pid);
    trail.push({ atMs, process });
    this.#trail.set(host, trail);
    const [first] = trail;
    if (!first || atMs - first.atMs < averageOverMs) return;
    trail.shift();
    const ms = atMs - first.atMs;
    if (process.cpuMs - first.process.cpuMs > ms * cpuShare)
      this.#break('I9', atMs, `${host}: more than ${cpuShare * 100} % of a core`);
    if ((process.logBytes - first.process.logBytes) * 1000 > ms * logBytesPerSecond)
      this.#break('I9', atMs, `${host}: logs more than ${logBytesPerSecond} bytes a second`);
  }
}

/** A value that nobody can read has an owner too: not us. */
function ownerOf(value: string): { readonly owner: string; readonly released: boolean } {
  try {
    const parsed: unknown = JSON.parse(value);
    const member = new Map(Object.entries(typeof parsed === 'object' && parsed !== null ? parsed : {}));
    return { owner: String(member.get('nodeId') ?? member.get('PublicIP')), released: member.get('released') === true };
  } catch {
    return { owner: 'unreadable', released: false };
  }
}
