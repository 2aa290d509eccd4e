/**
 * The two hosts of datapath-lab.ts with a choice of what crosses between them (`under`, as in the bench) and of what
 * carries packets on each: the data process, the same without some of the kernel's offloads, or the bench's plain loop.
 */
import { rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, vi } from 'vitest';
import { link, offloads, type Underlay } from '../bench/lab.js';
import { program } from '../bench/process.js';
import { counter } from '../bench/traffic.js';
import { burst, sendBurst } from '../support/burst.js';
import { compile, root, run, start } from '../support/tools.js';
import { secondLine, transfer, type Places, type TransferReport } from '../support/traffic.js';
import { Lab, until, type Daemon, type Host } from './datapath-lab.js';

const hosts = ['a', 'b'] as const;
const outer = { a: '192.0.2.1', b: '192.0.2.2' } as const;
export const inner = { a: '10.5.1.0', b: '10.5.2.0' } as const;
export const other = { a: 'b', b: 'a' } as const;

const withhold = join(root, 'native/build/withhold');

/** Who carries packets; a name of `withhold.c` says which of the kernel's offloads are refused. */
const carriers = {
  fast: { refuses: undefined, without: [] },
  /** Linux 4.18: no UDP super-packets through the TUN, no UDP_GRO. */
  older: { refuses: 'withhold-60-104', without: ['tun_uso', 'udp_gro'] },
  /** The TUN hands over finished packets, the underlay takes and gives single ones. */
  bare: {
    refuses: 'withhold-ffffffff-103-104',
    without: ['tun_csum', 'tun_tso', 'tun_uso', 'udp_segment', 'udp_gro'],
  },
  plain: undefined,
} as const;
export type Carrier = keyof typeof carriers;

/** Of kernel 5.0; USO is younger and not asked for. */
const needed = ['tun_csum', 'tun_tso', 'udp_segment', 'udp_gro'];

export interface SpeedOptions {
  readonly underlay: Underlay;
  readonly a: Carrier;
  readonly b: Carrier;
}

function compileAll(): void {
  compile('test/support/burst.c', burst);
  compile('test/support/withhold.c', withhold);
  for (const name of ['offload', 'plain']) compile(`test/bench/${name}.c`, program(name));
}

export class SpeedLab extends Lab implements Places {
  readonly #daemons: Partial<Record<Host, Daemon>> = {};
  readonly #options: SpeedOptions;

  constructor(options: SpeedOptions) {
    super();
    this.#options = options;
  }

  /** Both ends up, with the features that their carriers have, and packets crossing. */
  async ready(): Promise<void> {
    const words = offloads[this.#options.underlay];
    for (const host of hosts) {
      if (words.length > 0) await run(this.inside(host, [program('offload'), link, ...words]));
      await this.#carry(host, this.#options[host]);
      this.configureLink(host);
    }
    await until(
      'traffic',
      () => this.reaches(),
      seen => seen,
    );
  }

  inside(letter: string, command: readonly string[]): readonly string[] {
    return this.enter(letter === 'a' ? 'a' : 'b', command);
  }

  /** Of the hosts with a data process. */
  get daemons(): readonly Daemon[] {
    return hosts.map(host => this.#daemons[host]).filter(daemon => daemon !== undefined);
  }

  async counters(host: Host): Promise<Readonly<Record<string, number>>> {
    const daemon = this.#daemons[host];
    if (!daemon) throw new Error(`host ${host} counts nothing`);
    return (await daemon.state()).counters;
  }

  async #carry(host: Host, carrier: Carrier): Promise<void> {
    const refusal = carriers[carrier];
    if (!refusal) {
      const command = [program('plain'), 'tartan0', outer[host], outer[other[host]], '8285'];
      await secondLine(start(this.inside(host, command)));
      return;
    }
    const { daemon } = await this.up(host, refusal.refuses === undefined ? {} : { executable: named(refusal.refuses) });
    this.#daemons[host] = daemon;
    const { features } = await daemon.state();
    expect(features).toEqual(expect.arrayContaining(needed.filter(name => !refusal.without.some(one => one === name))));
    expect(features.filter(name => refusal.without.some(one => one === name))).toEqual([]);
  }
}

function named(refuses: string): string {
  const path = join(dirname(withhold), refuses);
  rmSync(path, { force: true });
  symlinkSync('withhold', path);
  return path;
}

/** A lab for the tests of one block; closed after them. */
export function useSpeedLab(options: SpeedOptions): () => SpeedLab {
  let lab: SpeedLab | undefined;
  // A connection that stalls is a failure: it takes a second or never ends.
  vi.setConfig({ testTimeout: 20_000 });
  beforeAll(async () => {
    compileAll();
    lab = new SpeedLab(options);
    await lab.ready();
  });
  afterAll(() => lab?.close());
  return () => {
    if (!lab) throw new Error('the lab did not open');
    return lab;
  };
}

/** One file from `from` to the other host; its sender and its receiver must have seen the same bytes. */
export async function sendFile(lab: SpeedLab, from: Host, bytes: number): Promise<TransferReport> {
  const to = other[from];
  const { sent, received } = await transfer(lab, { from, to, address: inner[to], port: 7002, bytes });
  expect(received).toEqual({ ...sent, bytes, source: inner[from] });
  return received;
}

/** What a receiver says when nothing went wrong. */
export const complete = { lost: 0, firstLost: -1, corrupted: 0, duplicates: 0, reordered: 0 };

/** None lost, changed, doubled or overtaken. */
export async function expectAll(lab: SpeedLab, from: Host, parts: readonly string[]): Promise<void> {
  const to = other[from];
  const report = await sendBurst(lab, { from, to, address: inner[to], port: 7003, parts });
  const { sent } = report;
  expect(sent).toBeGreaterThanOrEqual(parts.length);
  expect(report).toEqual({ ...complete, sent, received: sent, unanswered: 0 });
}

/** Packets that a kernel refused after us: TCP would repeat them, and nobody else would see. */
export async function refusedByKernel(lab: SpeedLab, host: Host): Promise<Readonly<Record<string, number>>> {
  const text = await run(lab.inside(host, ['cat', '/proc/self/net/snmp']));
  const names = [
    ['Tcp', 'InCsumErrors'],
    ['Tcp', 'InErrs'],
    ['Udp', 'InCsumErrors'],
    ['Udp', 'RcvbufErrors'],
    ['Ip', 'InHdrErrors'],
    ['Ip', 'ReasmFails'],
  ] as const;
  const refused = names.map(([protocol, name]) => [`${protocol} ${name}`, counter(text, protocol, name)] as const);
  // A SYN that was sent again and came behind the handshake is no bad segment, and the kernel counts it as one (RFC 5961).
  const late = counter(await run(lab.inside(host, ['cat', '/proc/self/net/netstat'])), 'TcpExt', 'TCPSYNChallenge');
  return Object.fromEntries(refused.map(([name, count]) => [name, name === 'Tcp InErrs' ? count - late : count]));
}

/** Of a lab in which only good packets were sent: nothing failed, and no offload was given up. */
export async function expectNoTrouble(lab: SpeedLab): Promise<void> {
  for (const host of hosts) {
    const refused = await refusedByKernel(lab, host);
    expect(Object.entries(refused).filter(([name, count]) => name !== 'Udp RcvbufErrors' && count !== 0)).toEqual([]);
  }
  for (const daemon of lab.daemons) {
    const { counters, respawns } = await daemon.state();
    const fine = /^(rx_ok|tx_ok|rx_bytes|tx_bytes|tx_bad_version)$/;
    expect(Object.entries(counters).filter(([name, count]) => !fine.test(name) && count !== 0)).toEqual([]);
    expect(respawns).toBe(0);
  }
}
